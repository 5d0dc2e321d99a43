import { createHash } from 'node:crypto'
import { Chance } from '../spread/chance.ts'
import type { Keeping, Policy } from './keeping.ts'
import { type Trace, uniqueBytesOf } from './trace.ts'

/** Machines that most of a repository's pulls come from, and how many of its pulls those are. */
const team = { machines: 5, share: 0.7 }

const day = 24 * 3600_000

export type Setting = {
  readonly trace: Trace
  /** Machines in the office. */
  readonly peers: number
  /** Of all machines together, as a share of the bytes of all blobs. Each has as much as any other. */
  readonly capacity: number
  /** How long the trace takes, with requests at equal distances. */
  readonly days: number
  /** How many of the times that a machine is asked how many others have a blob it is wrong about whether any has. */
  readonly wrong: number
}

/** Shares of all requests. */
export type Outcome = {
  /** That were answered without upstream. */
  readonly hit: number
  /** The same, in bytes. */
  readonly byteHit: number
  /** That were answered by the machine itself that was asked. */
  readonly localHit: number
}

/**
 * Who asks, for each request of a trace, which does not say so: mostly one of the repository's team, else anybody. The
 * same each time.
 */
export function askersOf({ repositories, requests }: Trace, machines: number): number[] {
  const everybody = Array.from({ length: machines }, (_, machine) => machine)
  const teams = repositories.map(repository => {
    const seed = createHash('md5').update(repository).digest().readInt32LE(0)
    return new Chance(seed).shuffled(everybody).slice(0, team.machines)
  })
  const chance = new Chance(machines)
  return requests.map(({ repository }) =>
    chance.next() < team.share ? chance.pick(teams[repository]!) : chance.below(machines),
  )
}

/** Replays a trace. All stores are empty at first, and all requests count. */
export function replay(policy: Policy, { trace, peers, capacity, days, wrong }: Setting): Outcome {
  const { digests, sizes, requests } = trace
  const askers = askersOf(trace, peers)
  const chance = new Chance(peers)
  const holders = sizes.map(() => new Set<number>())
  const start = Date.UTC(2026, 0, 1)
  let now = start
  const machines = Array.from({ length: peers }, (_, number): Keeping => {
    const machine = {
      number,
      capacity: (capacity * uniqueBytesOf(trace)) / peers,
      sizes,
      digests,
      copiesOf: (blob: number) => {
        const all = holders[blob]!
        const others = all.size - (all.has(number) ? 1 : 0)
        if (wrong > 0 && chance.next() < wrong)
          return others > 0 ? { others: 0, keeps: true } : { others: 1, keeps: false }
        return { others, keeps: others === 0 || keeperOf(blob, all) === number }
      },
      clock: () => now,
      changed: (blob: number, kept: boolean) => {
        if (kept) holders[blob]!.add(number)
        else holders[blob]!.delete(number)
      },
    }
    return policy(machine)
  })
  let [hits, hitBytes, localHits, bytes] = [0, 0, 0, 0]
  for (const [i, { blob }] of requests.entries()) {
    now = start + (i / requests.length) * days * day
    const machine = machines[askers[i]!]!
    const size = sizes[blob]!
    bytes += size
    if (holders[blob]!.size > 0) {
      hits++
      hitBytes += size
    }
    if (machine.has(blob)) {
      localHits++
      machine.hit(blob)
    } else machine.miss(blob)
  }
  return { hit: hits / requests.length, byteHit: hitBytes / bytes, localHit: localHits / requests.length }
}

/** Of all who have a blob, the one to keep it: the first by rendezvous hash. */
function keeperOf(blob: number, holders: Iterable<number>): number {
  let [keeper, most] = [-1, -1]
  for (const holder of holders) {
    let hash = Math.imul((blob + 1) ^ Math.imul(holder + 1, 0x9e3779b9), 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35) >>> 0
    if (hash > most) [keeper, most] = [holder, hash]
  }
  return keeper
}
