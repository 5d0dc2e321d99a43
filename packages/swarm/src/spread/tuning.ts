/** How a spread goes; times in ms. Chosen by simulation: docs/decisions/0014. */
export type Tuning = {
  /**
   * Into how many chunks a blob is cut, about, and how large they are at least and at most, in bytes; twice as large at least
   * if there would be more of them than are few.
   */
  readonly chunks: number
  readonly fewChunks: number
  readonly leastChunk: number
  readonly largestChunk: number
  /** Members up to which all know all; beyond, each is told of half as many, and told of to others. */
  readonly mates: number
  /** What is new is told after so long at least, and at most. */
  readonly tellEvery: number
  readonly tellMost: number
  /** Chunks that are fetched from others at once, for one blob, and for all together. */
  readonly pulls: number
  readonly pullsInAll: number
  /** Fresh chunks that are handed on and not taken yet. */
  readonly hands: number
  readonly handsInAll: number
  /** Chunks that are given to others at once, apart from those handed on; fewer of a blob that is one chunk. */
  readonly serves: number
  readonly servesInAll: number
  readonly servesWhole: number
  /** How long who was busy is left alone. */
  readonly busy: number
}

export const tuning: Tuning = {
  chunks: 512,
  fewChunks: 64,
  leastChunk: 128 * 1024,
  largestChunk: 1024 * 1024,
  mates: 16,
  tellEvery: 500,
  tellMost: 2500,
  pulls: 5,
  pullsInAll: 8,
  hands: 12,
  handsInAll: 8,
  serves: 5,
  servesInAll: 6,
  servesWhole: 2,
  busy: 40,
}
