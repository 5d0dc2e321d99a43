/** The last so many times that something took. */
const kept = 32

/** How long something took of late. */
export class Durations {
  readonly #last: number[] = []
  #sorted: number[] | undefined

  add(ms: number): void {
    this.#last.push(ms)
    if (this.#last.length > kept) this.#last.shift()
    this.#sorted = undefined
  }

  /** @default 0 */
  get median(): number {
    this.#sorted ??= [...this.#last].sort((a, b) => a - b)
    return this.#sorted[this.#sorted.length >>> 1] ?? 0
  }
}
