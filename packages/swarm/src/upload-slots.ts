/** How long who was told to come back is waited for, in ms: longer than what it was told. */
const patience = 1500

type Waiting = { readonly since: number; last: number }

export type UploadSlotsOptions = {
  /** Uploads at once. */
  readonly most: number
  /** In ms, never going back. */
  readonly now: () => number
}

/**
 * How many uploads there may be at once. Nobody waits in line: who gets no slot is told so and asks elsewhere, or again.
 * Among those who ask, the one that holds fewest comes first, then the one that has been asking longest.
 */
export class UploadSlots {
  readonly #most: number
  readonly #now: () => number
  readonly #held = new Map<string, number>()
  readonly #waiting = new Map<string, Waiting>()
  #used = 0

  constructor({ most, now }: UploadSlotsOptions) {
    this.#most = most
    this.#now = now
  }

  /** Uploads under way. */
  get used(): number {
    return this.#used
  }

  /** A slot for an upload to `peer`, to be disposed of at its end; undefined if none is to be had now. */
  take(peer: string): Disposable | undefined {
    const now = this.#now()
    const since = this.#waiting.get(peer)?.since ?? now
    if (this.#most - this.#used <= this.#ahead(peer, since, now)) {
      this.#waiting.set(peer, { since, last: now })
      return undefined
    }
    this.#waiting.delete(peer)
    this.#used++
    this.#held.set(peer, this.#heldBy(peer) + 1)
    let given = true
    return {
      [Symbol.dispose]: () => {
        if (given) this.#giveBack(peer)
        given = false
      },
    }
  }

  #giveBack(peer: string): void {
    this.#used--
    const held = this.#heldBy(peer) - 1
    if (held > 0) this.#held.set(peer, held)
    else this.#held.delete(peer)
  }

  /** How many others should have the next slot before `peer`. */
  #ahead(peer: string, since: number, now: number): number {
    const holds = this.#heldBy(peer)
    let count = 0
    for (const [other, { since: before, last }] of this.#waiting) {
      if (now - last > patience) this.#waiting.delete(other)
      else if (other !== peer) {
        const held = this.#heldBy(other)
        if (held < holds || (held === holds && before < since)) count++
      }
    }
    return count
  }

  #heldBy(peer: string): number {
    return this.#held.get(peer) ?? 0
  }
}
