/** Where a peer may be dialled. `host` is an IP address, IPv6 link-local with its scope. */
export type Target = { readonly peerId?: string; readonly host: string; readonly port: number }

/** How a target was found: what the machine itself sees is tried again at each sight, what others tell only at times. */
export type Via = 'mdns' | 'bootstrap' | 'srv' | 'remembered' | 'peers'

export type DialerOptions = {
  readonly self: string
  /** Connects to the first of the addresses that answers. @returns the id of who is there; @throws if none does */
  readonly dial: (target: { peerId?: string; addresses: readonly Address[] }) => Promise<string>
  /** Whether one is connected who has that id or, if that isn't known, one of the addresses. */
  readonly isConnected: (target: { peerId?: string; addresses: readonly Address[] }) => boolean
  readonly isBanned: (peerId: string) => boolean
  /** In ms, never going back. */
  readonly now: () => number
  readonly random: () => number
  /** Told of a target that does not answer, the first time. */
  readonly onFailure: (target: Target, via: Via, error: unknown) => void
}

export type Address = { readonly host: string; readonly port: number }

/** Until the next try, in ms: at first, and at most. */
const firstPause = 1000
const longestPause = 5 * 60_000

/** The peer of the lower id dials first; the other gives it so long, in ms, lest both connect. */
const courtesy = 700

/** Dials at once. With more of them each takes longer where many start at a time, and more often both sides dial. */
const mostDials = 8

/** Of these, those of peers that others have told of: anybody can tell of addresses where nobody is. */
const mostDialsTold = 6

/** Peers whose addresses are known, and addresses of each. */
const mostTargets = 1024
const mostTargetsTold = 256
const mostAddresses = 8

/** What others tell of, or was remembered, is given up after so many tries in vain. */
const mostTries = 12

type Candidate = {
  readonly key: string
  readonly peerId: string | undefined
  /** Who was there, where that wasn't known: an address may be a router's that passes connections on. */
  metId: string | undefined
  readonly addresses: Map<string, Address>
  via: Via
  failures: number
  /** When it is to be dialled next. */
  due: number
  dialling: boolean
}

/** Dials those who were found until they are connected, each at growing intervals. */
export class Dialer {
  readonly #options: DialerOptions
  readonly #candidates = new Map<string, Candidate>()
  #dialling = 0
  #diallingTold = 0
  #timer: NodeJS.Timeout | undefined
  /** When the timer fires. */
  #wakes = Number.POSITIVE_INFINITY
  #closed = false

  constructor(options: DialerOptions) {
    this.#options = options
  }

  /** Somebody was found; dialled soon, if it isn't connected. */
  found(target: Target, via: Via): void {
    const { self, now, random, isBanned } = this.#options
    const { peerId, host, port } = target
    if (this.#closed || peerId === self || (peerId !== undefined && isBanned(peerId))) return
    const key = peerId ?? `${host} ${port}`
    let candidate = this.#candidates.get(key)
    if (!candidate) {
      if (via === 'peers' && this.#told >= mostTargetsTold) return
      if (this.#candidates.size >= mostTargets && !this.#forgetOne()) return
      // Who was told of by a third one need not know of this machine.
      const waits = via !== 'peers' && peerId !== undefined && peerId < self
      const wait = waits ? courtesy * (1 + random()) : 0
      candidate = {
        key,
        peerId,
        metId: undefined,
        addresses: new Map(),
        via,
        failures: 0,
        due: now() + wait,
        dialling: false,
      }
      this.#candidates.set(key, candidate)
    }
    const address = `${host} ${port}`
    // The newest first: an old one may be another's by now.
    const others = [...candidate.addresses].filter(([known]) => known !== address).slice(0, mostAddresses - 1)
    const news = !candidate.addresses.has(address)
    candidate.addresses.clear()
    for (const [known, value] of [[address, { host, port }] as const, ...others]) candidate.addresses.set(known, value)
    if (via === 'mdns' || candidate.via === 'peers') candidate.via = via
    // It has just been seen: what went wrong before is no reason to wait long.
    if (candidate.failures > 0 && (news || via === 'mdns')) {
      candidate.failures = Math.min(candidate.failures, 2)
      candidate.due = Math.min(candidate.due, now() + firstPause * (1 + random()))
    }
    this.#look(candidate)
  }

  /** A connection ended: it is dialled again soon, at the addresses where it was found. */
  lost(peerId: string): void {
    const candidate = this.#candidates.get(peerId)
    if (!candidate) return
    const { now, random, self } = this.#options
    candidate.failures = 0
    candidate.due = now() + (peerId < self ? courtesy : 100) * (1 + random())
    this.#run()
  }

  /** The network or the machine has just come back: everything may be tried at once. */
  hurry(): void {
    for (const candidate of this.#candidates.values()) {
      candidate.failures = 0
      candidate.due = this.#options.now() + 200 * this.#options.random()
    }
    this.#run()
  }

  /** Forgets where a peer is. */
  forget(peerId: string): void {
    this.#candidates.delete(peerId)
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#candidates.clear()
  }

  #run(): void {
    clearTimeout(this.#timer)
    this.#wakes = Number.POSITIVE_INFINITY
    if (this.#closed) return
    // Those who were never reached must not keep others from being dialled at all.
    const candidates = [...this.#candidates.values()].sort((a, b) => a.failures - b.failures)
    for (const candidate of candidates) this.#look(candidate)
  }

  /** How many are known by hearsay alone. */
  get #told(): number {
    let count = 0
    for (const { via } of this.#candidates.values()) if (via === 'peers') count++
    return count
  }

  /** Dials it if it is time, or sees to it that it is looked at when it is. */
  #look(candidate: Candidate): void {
    const { now, isConnected } = this.#options
    const { peerId = candidate.metId } = candidate
    if (candidate.dialling || isConnected({ ...targetOf(candidate), ...(peerId !== undefined && { peerId }) })) return
    const { due } = candidate
    if (due <= now()) {
      const full = candidate.via === 'peers' && this.#diallingTold >= mostDialsTold
      if (this.#dialling < mostDials && !full) void this.#dial(candidate)
    } else if (due < this.#wakes) {
      clearTimeout(this.#timer)
      this.#wakes = due
      this.#timer = setTimeout(() => this.#run(), Math.max(due - now(), 10)).unref()
    }
  }

  async #dial(candidate: Candidate): Promise<void> {
    const { dial, now, random, onFailure } = this.#options
    const { peerId, addresses } = candidate
    const told = candidate.via === 'peers' ? 1 : 0
    candidate.dialling = true
    this.#dialling++
    this.#diallingTold += told
    try {
      candidate.metId = await dial(targetOf(candidate))
      candidate.failures = 0
      // Its session may take a while, or be refused.
      candidate.due = now() + 10_000
    } catch (error) {
      const [first] = addresses.values()
      if (candidate.failures++ === 0 && first)
        onFailure({ ...(peerId !== undefined && { peerId }), ...first }, candidate.via, error)
      candidate.due =
        now() + Math.min(firstPause * 2 ** (candidate.failures - 1), longestPause) * (0.75 + 0.5 * random())
      const lasting = candidate.via === 'bootstrap' || candidate.via === 'srv'
      if (!lasting && candidate.failures >= mostTries) this.#candidates.delete(candidate.key)
    } finally {
      candidate.dialling = false
      this.#dialling--
      this.#diallingTold -= told
      this.#run()
    }
  }

  /** Makes room by forgetting the one that failed most. */
  #forgetOne(): boolean {
    let worst: Candidate | undefined
    for (const candidate of this.#candidates.values())
      if (candidate.failures > (worst?.failures ?? 0)) worst = candidate
    return worst !== undefined && this.#candidates.delete(worst.key)
  }
}

function targetOf({ peerId, addresses }: Candidate): { peerId?: string; addresses: readonly Address[] } {
  return { ...(peerId !== undefined && { peerId }), addresses: [...addresses.values()] }
}
