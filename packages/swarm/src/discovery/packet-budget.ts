/** Packets looked at in a second, from one address and from all. */
const mostOfOne = 20
const mostOfAll = 200

/** How many packets of a link are looked at: who floods it uses up what is its own, and not quickly what is others'. */
export class PacketBudget {
  readonly #now: () => number
  readonly #counts = new Map<string, number>()
  #since = Number.NEGATIVE_INFINITY
  #all = 0

  /** @param now in ms, never going back */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Whether one more, from an address, is to be looked at. */
  take(from: string): boolean {
    const now = this.#now()
    if (now - this.#since >= 1000) {
      this.#since = now
      this.#counts.clear()
      this.#all = 0
    }
    const count = this.#counts.get(from) ?? 0
    if (count >= mostOfOne || this.#all >= mostOfAll) return false
    this.#counts.set(from, count + 1)
    this.#all++
    return true
  }
}
