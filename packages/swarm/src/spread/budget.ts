import type { Tuning } from './tuning.ts'

/** What there may be at once, of all blobs together: chunks on their way to this machine, handed on, and given. */
export type Share = 'pulls' | 'hands' | 'serves'

/** Counts what is on its way for all blobs together. */
export class Budget {
  readonly #used: Record<Share, number> = { pulls: 0, hands: 0, serves: 0 }
  readonly #most: Record<Share, number>
  /** Who wants more, in the order in which they said so. */
  readonly #waiting: Record<Share, Set<() => void>> = { pulls: new Set(), hands: new Set(), serves: new Set() }

  constructor({ pullsInAll, handsInAll, servesInAll }: Tuning) {
    this.#most = { pulls: pullsInAll, hands: handsInAll, serves: servesInAll }
  }

  /**
   * @param resume called once when there is more, if there is none
   * @returns whether there was one, which is to be freed
   */
  take(share: Share, resume?: () => void): boolean {
    if (this.#used[share] >= this.#most[share]) {
      if (resume) this.#waiting[share].add(resume)
      return false
    }
    this.#used[share]++
    return true
  }

  /** Whether somebody waits for more. */
  lacks(share: Share): boolean {
    return this.#waiting[share].size > 0
  }

  free(share: Share): void {
    this.#used[share]--
    const [resume] = this.#waiting[share]
    if (!resume) return
    this.#waiting[share].delete(resume)
    resume()
  }

  /** Wants no more. */
  forget(share: Share, resume: () => void): void {
    this.#waiting[share].delete(resume)
  }
}
