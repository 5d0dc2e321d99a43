/** How often it is looked whether the event loop still turns, in ms. */
const interval = 1000

/** A turn that comes later than this is a stall, in ms. */
const longestDelay = 1000

/** A time in which the process did nothing else: it answered nobody. */
export type Stall = {
  /** How long it took, in ms; up to {@link interval} too little. */
  readonly ms: number
  /** When it was over, by the watch's clock. */
  readonly until: number
}

/**
 * Notices, afterwards, that the event loop stood still. While it does, only others can tell: nothing is answered.
 *
 * The clock is to be one that stands still while the machine sleeps, else each waking looks like a stall. On Linux
 * `performance.now` is (CLOCK_MONOTONIC); a process that was stopped by SIGSTOP has stalled.
 */
export class EventLoopWatch implements Disposable {
  last: Stall | undefined
  readonly #now: () => number
  readonly #onStall: (stall: Stall) => void
  readonly #timer: NodeJS.Timeout
  #seen: number

  constructor({ now, onStall }: { readonly now: () => number; readonly onStall: (stall: Stall) => void }) {
    this.#now = now
    this.#onStall = onStall
    this.#seen = now()
    this.#timer = setInterval(() => this.look(), interval).unref()
  }

  /** Is due each second; notes by how much it came too late. */
  look(): void {
    const until = this.#now()
    const ms = until - this.#seen - interval
    this.#seen = until
    if (ms <= longestDelay) return
    this.last = { ms, until }
    this.#onStall(this.last)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}
