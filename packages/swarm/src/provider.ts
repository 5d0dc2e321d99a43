import type { Giver } from '@shoal/store/source'

/** How long a peer that failed is not asked while there are others, in ms: at first, and at most. */
const firstRest = 3000
const longestRest = 5 * 60_000

/** How long a peer whose upload slots were all taken is taken to be busy, in ms. */
const busyFor = 500

/** What a peer is taken to give before it was measured, in bytes/s: a LAN, rather than the line. */
const assumedRate = 40e6

/** Bodies that tell something of a rate, in bytes. */
const measurable = 256 * 1024

/**
 * Announced and lacked so many times, with less than a while in ms between two of them, a peer is no longer believed what it
 * announces for a while.
 */
const mostLacks = 5
const disbelief = 60_000

/** What is known of a peer as one who gives: how fast it is, how busy, how often it failed lately. */
export class Provider implements Giver {
  readonly kind = 'peer'
  readonly id: string
  name: string
  /** Round trip in ms. */
  rtt = 5
  /** Whether it gives at all now: not on battery, a metered line or a VPN. */
  willing = true
  receivedBytes = 0
  sentBytes = 0
  /** Downloads from it under way. */
  active = 0
  #rate: number | undefined
  #failures = 0
  #lacks = 0
  #lackedAt = 0
  #restUntil = 0
  #busyUntil = 0
  #disbelievedUntil = 0
  readonly #now: () => number
  readonly #onWrong: (reason: string) => void

  /**
   * @param now in ms, never going back
   * @param onWrong told that it gave what was not so
   */
  constructor(id: string, name: string, now: () => number, onWrong: (reason: string) => void) {
    this.id = id
    this.name = name
    this.#now = now
    this.#onWrong = onWrong
  }

  get label(): string {
    return this.name
  }

  wrong(reason: string): void {
    this.#onWrong(reason)
  }

  /** Measured, in bytes/s. */
  get rate(): number | undefined {
    return this.#rate
  }

  /** Whether it failed lately, and others had better be asked. */
  get rests(): boolean {
    return this.#now() < this.#restUntil
  }

  get busy(): boolean {
    return this.#now() < this.#busyUntil
  }

  /** Whether it announced too much that it then lacked. */
  get disbelieved(): boolean {
    return this.#now() < this.#disbelievedUntil
  }

  /** Whether it is likely to give, busy as it may be. */
  get fit(): boolean {
    return this.willing && !this.rests && !this.disbelieved
  }

  /** What one more download from it is likely to bring, in bytes/s. */
  get likelyRate(): number {
    return (this.#rate ?? assumedRate) / (1 + this.active)
  }

  /** How long `bytes` from it are likely to take, in ms. */
  expected(bytes: number): number {
    return (this.rtt * 2 + (bytes / this.likelyRate) * 1000) * (1 + this.#failures) + (this.busy ? 10_000 : 0)
  }

  /** `bytes` of a body came in `ms`. */
  gave(bytes: number, ms: number): void {
    this.receivedBytes += bytes
    if (bytes < measurable || ms <= 0) return
    const rate = (bytes / ms) * 1000
    this.#rate = this.#rate === undefined ? rate : 0.7 * this.#rate + 0.3 * rate
  }

  /** A body came whole. */
  succeeded(): void {
    this.#failures = 0
  }

  failed(): void {
    // What goes wrong for many downloads at once, or again before its rest is over, went wrong once.
    if (this.rests) return
    this.#restUntil = this.#now() + Math.min(firstRest * 2 ** this.#failures, longestRest)
    this.#failures = Math.min(this.#failures + 1, 10)
  }

  wasBusy(): void {
    this.#busyUntil = this.#now() + busyFor
  }

  lacked(): void {
    const now = this.#now()
    if (now - this.#lackedAt > disbelief) this.#lacks = 0
    this.#lackedAt = now
    if (++this.#lacks < mostLacks) return
    this.#lacks = 0
    this.#disbelievedUntil = this.#now() + disbelief
  }

  /** It has just come: what was wrong before may not be. */
  returned(): void {
    this.#restUntil = 0
    this.#failures = 0
  }
}

/**
 * Who is to be asked first for `bytes`: the one from whom they are likely to come soonest, by and large, so that many
 * who want the same do not all ask the same one.
 */
export function choose(providers: readonly Provider[], bytes: number, random: () => number): Provider | undefined {
  let best: Provider | undefined
  let shortest = Number.POSITIVE_INFINITY
  for (const provider of providers) {
    const time = provider.expected(bytes) * (1 + 0.3 * random())
    if (time >= shortest) continue
    best = provider
    shortest = time
  }
  return best
}
