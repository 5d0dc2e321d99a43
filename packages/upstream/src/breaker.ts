/** Failures in a row after which a source is passed over. */
const tolerance = 3

/** How long it is passed over at first, and at most, in ms; doubled at each further failure. */
const shortestPause = 2_000
const longestPause = 60_000

/**
 * Keeps an endpoint that fails from costing time: after three failures in a row it is passed over for a while, then
 * one request may try.
 */
export class Breaker {
  readonly #now: () => number
  readonly #random: () => number
  #failures = 0
  #until = 0
  #trying = false

  /** @param now in ms, must not go backwards; @param random from 0 to 1 */
  constructor(now: () => number, random: () => number) {
    this.#now = now
    this.#random = random
  }

  get state(): 'closed' | 'open' | 'half-open' {
    if (this.#failures < tolerance) return 'closed'
    return this.#now() < this.#until ? 'open' : 'half-open'
  }

  /** Whether a request may go out. Of those that ask while the circuit is half open, one may. */
  admits(): boolean {
    const { state } = this
    if (state === 'closed') return true
    if (state === 'open' || this.#trying) return false
    this.#trying = true
    return true
  }

  succeeded(): void {
    this.#failures = 0
    this.#trying = false
  }

  failed(): void {
    // Those that were under way when it opened tell nothing new.
    if (this.state === 'open') return
    this.#failures++
    this.#trying = false
    const pause = Math.min(shortestPause * 2 ** Math.max(this.#failures - tolerance, 0), longestPause)
    this.#until = this.#now() + pause * (0.75 + this.#random() / 2)
  }

  /** It did not answer, and there are others to ask: passed over at once, and for longer. */
  fellSilent(): void {
    if (this.state === 'open') return
    this.#failures = Math.max(this.#failures, tolerance + 1)
    this.failed()
  }

  /** The request was given up before it told anything. */
  gaveUp(): void {
    this.#trying = false
  }
}
