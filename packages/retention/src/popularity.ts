import { type Score, scoreOf, sumOf } from './decay.ts'

/** How often something was pulled, by the name of what: `registry/repository:tag`, or `…@digest` where that was pulled. */
export type Row = { readonly image: string; readonly score: Score }

/** Rows that are kept. */
export const mostImages = 8192

/** More pulls of an image within a half-life than one machine will make. */
const mostPlausible = 4096

/** A score, or the highest that there can be at a time, in ms since the epoch: a clock may have been ahead. */
export function plausible(score: Score, now: number): Score {
  return Math.min(score, scoreOf(mostPlausible, now))
}

/** How often images were pulled on this machine. */
export class Popularity {
  readonly #scores = new Map<string, Score>()
  readonly #most: number

  /**
   * @param rows what was counted before
   * @param most rows that are kept: what was pulled least is forgotten first
   */
  constructor(rows: Iterable<Row> = [], most = mostImages) {
    this.#most = most
    for (const { image, score } of rows) this.#scores.set(image, score)
    this.#forget()
  }

  get size(): number {
    return this.#scores.size
  }

  /** In no order. */
  *[Symbol.iterator](): Generator<Row> {
    for (const [image, score] of this.#scores) yield { image, score }
  }

  scoreOf(image: string): Score | undefined {
    return this.#scores.get(image)
  }

  /** Counts a pull, at a time in ms since the epoch. @returns the image's score now */
  pulled(image: string, at: number): Score {
    const before = this.#scores.get(image)
    const one = scoreOf(1, at)
    const score = before === undefined ? one : sumOf(plausible(before, at), one)
    this.#scores.set(image, score)
    if (before === undefined) this.#forget()
    return score
  }

  #forget(): void {
    // Some at a time: sorting for each would cost more than what is counted.
    if (this.#scores.size <= this.#most * 1.1) return
    for (const { image } of weakest(this, this.#most)) this.#scores.delete(image)
  }
}

/** The rows with the highest scores, highest first; of equal ones, those whose image comes first. */
export function strongest(rows: Iterable<Row>, most: number): Row[] {
  const all = [...rows]
  const least = leastOf(all, most)
  return sorted(all.filter(({ score }) => score >= least)).slice(0, most)
}

/** The rows that are not among the strongest so many, in no order. */
export function weakest(rows: Iterable<Row>, most: number): Row[] {
  const all = [...rows]
  const least = leastOf(all, most)
  const weaker = all.filter(({ score }) => score < least)
  const equal = sorted(all.filter(({ score }) => score === least))
  return [...weaker, ...equal.slice(most - (all.length - weaker.length - equal.length))]
}

/** The lowest score among the strongest so many. */
function leastOf(rows: readonly Row[], most: number): Score {
  if (rows.length <= most) return Number.NEGATIVE_INFINITY
  // Numbers alone are sorted much faster.
  const scores = Float64Array.from(rows, ({ score }) => score).sort()
  return scores[scores.length - most] ?? Number.POSITIVE_INFINITY
}

function sorted(rows: readonly Row[]): Row[] {
  return [...rows].sort((a, b) => b.score - a.score || (a.image < b.image ? -1 : 1))
}
