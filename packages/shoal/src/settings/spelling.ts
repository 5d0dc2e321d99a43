/** How an unknown name's problem ends. */
export function didYouMean(name: string | undefined): string {
  return name === undefined ? '; "shoal config" lists those there are' : `; did you mean ${name}?`
}

/**
 * The known name that `name` was probably meant to be.
 * @param most letters that may differ; @default a third of the name's, and 2 at least
 */
export function nearest(
  name: string,
  known: readonly string[],
  most = Math.max(2, name.length / 3),
): string | undefined {
  const ranked = known
    .map(other => ({ other, distance: editDistance(name, other) }))
    .sort((a, b) => a.distance - b.distance)
  return ranked[0] !== undefined && ranked[0].distance <= most ? ranked[0].other : undefined
}

/** Levenshtein's: letters to insert, delete or replace. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}
