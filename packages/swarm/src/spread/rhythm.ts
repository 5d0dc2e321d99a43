import { Durations } from './durations.ts'
import type { Tuning } from './tuning.ts'

/** What is new is told after so many times what a chunk takes. */
const chunksLong = 4

/** What is looked at together, in ms. */
const together = 10

/**
 * When it is time to tell others what is new, of all blobs: seldomer where chunks take longer, as a message costs the same
 * there; and of all blobs at once, so that what one member is told of them leaves together.
 */
export class Rhythm {
  /** How long chunks take of late. */
  readonly times = new Durations()
  readonly #tuning: Tuning
  #beatAt = Number.NEGATIVE_INFINITY

  constructor(tuning: Tuning) {
    this.#tuning = tuning
  }

  /** From one time to the next, in ms. */
  get period(): number {
    const { tellEvery, tellMost } = this.#tuning
    return Math.min(Math.max(tellEvery, chunksLong * this.times.median), tellMost)
  }

  isDue(now: number): boolean {
    const past = now - this.#beatAt
    if (past > together && past < this.period) return false
    if (past > together) this.#beatAt = now
    return true
  }
}
