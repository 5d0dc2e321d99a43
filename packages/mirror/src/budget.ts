/** So many bytes at a rate: what is not used is saved up, to a limit; what was used too much is owed. */
export class Budget {
  readonly #rate: number
  readonly #most: number
  readonly #now: () => number
  #left: number
  #at: number

  /** @param rate in bytes/s; @param most that is saved up, in bytes, which it begins with; @param now in ms */
  constructor({ rate, most, now }: { readonly rate: number; readonly most: number; readonly now: () => number }) {
    this.#rate = rate
    this.#most = most
    this.#now = now
    this.#left = most
    this.#at = now()
  }

  /** In bytes; less than 0 if something is owed. */
  get left(): number {
    const now = this.#now()
    // A clock that is set back has nothing saved up.
    const time = Math.max(0, now - this.#at)
    this.#at = now
    this.#left = Math.min(this.#left + (time / 1000) * this.#rate, this.#most)
    return this.#left
  }

  /** Uses so many bytes. @returns how long until nothing is owed, in ms */
  use(bytes: number): number {
    this.#left = this.left - bytes
    return Math.max(0, (-this.#left / this.#rate) * 1000)
  }
}
