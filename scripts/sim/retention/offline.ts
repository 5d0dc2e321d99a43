import { askersOf, type Outcome, type Setting } from './office.ts'
import { uniqueBytesOf } from './trace.ts'

/**
 * What no policy can be better than, even one that knows all that will be asked for: PFOO-L (Berger, Beckmann,
 * Harchol-Balter, SIGMETRICS 2018). To answer a request, a blob must have been kept since it was asked for last: that
 * takes its size, so long. Those that take least are answered, as long as they take no more than the whole capacity the
 * whole time; that all that is kept has to fit at each moment is left out. Each figure is a bound of its own, and no one
 * policy need reach any, let alone all. `hit` and `byteHit`: of one store that has all machines' capacity.
 */
export function offline({ trace, peers, capacity }: Setting): Outcome {
  const { sizes, requests } = trace
  const bytes = capacity * uniqueBytesOf(trace)
  const blobs = requests.map(({ blob }) => blob)
  const askers = askersOf(trace, peers)
  const all = requests.reduce((sum, { blob }) => sum + sizes[blob]!, 0)
  let localHits = 0
  for (let peer = 0; peer < peers; peer++) {
    const asked = blobs.filter((_, i) => askers[i] === peer)
    localHits += mostOf(asked, sizes, bytes / peers, () => 1)
  }
  return {
    hit: mostOf(blobs, sizes, bytes, () => 1) / requests.length,
    byteHit: mostOf(blobs, sizes, bytes, size => size) / all,
    localHit: localHits / requests.length,
  }
}

/** The most that requests to a store can be worth together that it answers. */
function mostOf(
  blobs: readonly number[],
  sizes: readonly number[],
  capacity: number,
  worth: (size: number) => number,
): number {
  const last = new Map<number, number>()
  const answers: { readonly value: number; readonly cost: number }[] = []
  for (const [i, blob] of blobs.entries()) {
    const before = last.get(blob)
    const size = sizes[blob]!
    if (before !== undefined && size <= capacity) answers.push({ value: worth(size), cost: (i - before) * size })
    last.set(blob, i)
  }
  answers.sort((a, b) => a.cost / a.value - b.cost / b.value)
  let left = capacity * blobs.length
  let most = 0
  for (const { value, cost } of answers) {
    if (cost > left) return most + (value * left) / cost
    left -= cost
    most += value
  }
  return most
}
