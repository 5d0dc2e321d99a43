export type AllowanceOptions = {
  readonly atOnce: number
  readonly perSecond: number
  /** In ms, never going back. */
  readonly now: () => number
}

/** What somebody may have: so much at once, and so much a second after that. */
export class Allowance {
  readonly #options: AllowanceOptions
  #left: number
  #at: number

  constructor(options: AllowanceOptions) {
    this.#options = options
    this.#left = options.atOnce
    this.#at = options.now()
  }

  /** Takes so much, if that is left. @returns whether it was */
  take(price: number): boolean {
    const { atOnce, perSecond, now } = this.#options
    const time = now()
    this.#left = Math.min(atOnce, this.#left + ((time - this.#at) / 1000) * perSecond)
    this.#at = time
    if (this.#left < price) return false
    this.#left -= price
    return true
  }
}
