/** How often it looks, in ms, and what passes at most from one look to the next. */
const lookEvery = 50
const mostAtOnce = 100

/**
 * A clock that stands still while this machine does: what is late because the machine is busy, or slept, is not taken for
 * the fault of others.
 */
export class PatientClock {
  readonly #now: () => number
  #passed = 0
  #lookedAt = 0
  #timer: NodeJS.Timeout | undefined

  /** @param now in ms, never going back */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Goes on. */
  start(): void {
    if (this.#timer) return
    this.#lookedAt = this.#now()
    this.#timer = setInterval(() => this.#look(), lookEvery).unref()
  }

  /** Stands still. */
  stop(): void {
    if (!this.#timer) return
    this.#look()
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** In ms, never going back. */
  get now(): number {
    return this.#passed + (this.#timer ? Math.min(this.#now() - this.#lookedAt, mostAtOnce) : 0)
  }

  #look(): void {
    this.#passed = this.now
    this.#lookedAt = this.#now()
  }
}
