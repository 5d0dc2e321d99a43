/**
 * A count that halves every {@link halfLife}, kept as log2 of what it would be at the Unix epoch (forward decay: Cormode
 * et al., ICDE 2009). It only grows when something is counted, and never has to be touched for the time that passes:
 * the same on every machine, and of two that were told of one count the larger is the newer.
 */
export type Score = number

/** In ms. */
export const halfLife = 7 * 24 * 3600 * 1000

/** The score of so many at a time, in ms since the epoch. */
export function scoreOf(count: number, at: number): Score {
  return at / halfLife + Math.log2(count)
}

/** What is left of a score at a time, in ms since the epoch. */
export function countOf(score: Score, now: number): number {
  return 2 ** (score - now / halfLife)
}

/** The score of both together. */
export function sumOf(a: Score, b: Score): Score {
  const [larger, smaller] = a > b ? [a, b] : [b, a]
  return larger + Math.log2(1 + 2 ** (smaller - larger))
}
