import { Chance } from '../spread/chance.ts'
import { drawSize, type Trace } from './trace.ts'

/** Digests for each request. */
const digestsPerRequest = 0.3137

/** What the digests asked for most take of all requests: so many of the digests, and of the requests. */
const skew = [
  [0, 0],
  [0.001, 0.319],
  [0.01, 0.44],
  [0.05, 0.552],
  [0.1, 0.624],
  [0.2, 0.712],
  // 68 of 100 are asked for once.
  [0.32, 1 - 0.68 * digestsPerRequest],
  [1, 1],
] as const

/** Part of all blobs, and the size that those are at most, in bytes. */
const sizes = [
  [0, 32],
  [0.1, 215],
  [0.5, 14_700],
  [0.75, 5.3e6],
  [0.9, 31e6],
  [0.99, 137e6],
  [1, 690e6],
] as const

/** How uneven the first part of the digests is in itself: an exponent as in Zipf's law. */
const unevenness = 0.3

const digestsPerRepository = 10

/** A digest's requests come within this part of the whole time at least: LRU does as well with it as on that trace. */
const shortest = 0.04

/**
 * A trace with the skew and the sizes of a registry's that was published (IBM Cloud, 2017; Anwar et al., FAST 2018). A
 * digest's requests lie within a part of the time, short for some and long for others.
 * @param seed the same gives the same trace
 */
export function generateTrace(count: number, seed: number): Trace {
  const chance = new Chance(seed)
  const counts = countsOf(count)
  const digests = chance.shuffled(counts.keys().map(rank => `generated-${seed}-${rank}`))
  const quantiles = Array.from({ length: 10_000 }, (_, i) => Math.round(sizeAt(i / 9999)))
  const repositories = Array.from(
    { length: Math.ceil(counts.length / digestsPerRepository) },
    (_, i) => `generated/repository-${i}`,
  )
  const requests: { readonly at: number; readonly blob: number; readonly repository: number }[] = []
  for (const [blob, times] of counts.entries()) {
    const repository = chance.below(repositories.length)
    const length = shortest ** chance.next()
    const begin = chance.next() * (1 - length)
    for (let i = 0; i < times; i++) requests.push({ at: begin + length * chance.next(), blob, repository })
  }
  requests.sort((a, b) => a.at - b.at)
  return { digests, sizes: digests.map(digest => drawSize(digest, quantiles)), repositories, requests }
}

/** How often each digest is asked for, most first; together so often. */
function countsOf(requests: number): number[] {
  const digests = Math.max(1, Math.round(requests * digestsPerRequest))
  const counts: number[] = []
  let given = 0
  for (let rank = 1; rank <= digests; rank++) {
    const times = Math.max(1, Math.round(requests * shareOf(rank / digests, digests)) - given)
    counts.push(times)
    given += times
  }
  return counts.sort((a, b) => b - a)
}

/** What so many of the digests, those asked for most, take of the requests. */
function shareOf(part: number, digests: number): number {
  const next = skew.findIndex(([x]) => part <= x)
  const [[x0, y0], [x1, y1]] = [skew[Math.max(next - 1, 0)]!, skew[Math.max(next, 1)]!]
  if (x0 > 0) return y0 + ((y1 - y0) * (part - x0)) / (x1 - x0)
  const sum = (ranks: number) => (ranks + 0.5) ** (1 - unevenness) - 0.5 ** (1 - unevenness)
  return (y1 * sum(part * digests)) / sum(x1 * digests)
}

/** The size that a part of all blobs has at most, in bytes. */
function sizeAt(part: number): number {
  const next = Math.max(
    1,
    sizes.findIndex(([x]) => part <= x),
  )
  const [[x0, y0], [x1, y1]] = [sizes[next - 1]!, sizes[next]!]
  return y0 * (y1 / y0) ** ((part - x0) / (x1 - x0))
}
