import { randomBytes } from 'node:crypto'
import { type Digest, digestFrom } from '@shoal/oci/digest'
import { prefixesOf } from '@shoal/swarm/digest-prefix'
import { Holdings } from '@shoal/swarm/holdings'

/**
 * `node --expose-gc lookup-process.ts holdings|map distinct|same`: 100 peers of 10,000 blobs, no two of them sharing one
 * or all having the same, and what it takes to look some up. Writes {@link Lookup} as JSON.
 */

export type Lookup = {
  /** Of a blob that is held, in µs. */
  readonly hit: number
  /** Of a blob that nobody holds, in µs. */
  readonly miss: number
  /** In MB. */
  readonly memory: number
  /** To take all that a peer announces, in ms. */
  readonly add: number
  /** To forget a peer, in ms. */
  readonly forget: number
}

const peers = 100
const blobsOfPeer = 10_000
const lookups = 100_000

/** What both can do. */
type Table = {
  add(peer: string, digests: readonly Digest[]): void
  forget(peer: string): void
  holdersOf(digest: Digest): readonly string[]
}

function holdings(): Table {
  const holdings = new Holdings({ random: Math.random, onFull: () => {} })
  return {
    add: (peer, digests) => holdings.add(peer, prefixesOf(digests)),
    forget: peer => holdings.forget(peer),
    holdersOf: digest => holdings.holdersOf(digest),
  }
}

/** As one would write it without a second thought. */
function map(): Table {
  const holders = new Map<string, Set<string>>()
  const keyOf = (digest: Digest) => digest.slice(7, 23)
  return {
    add(peer, digests) {
      for (const digest of digests) {
        const key = keyOf(digest)
        const known = holders.get(key)
        if (known) known.add(peer)
        else holders.set(key, new Set([peer]))
      }
    },
    forget(peer) {
      for (const [key, set] of holders) if (set.delete(peer) && set.size === 0) holders.delete(key)
    },
    holdersOf: digest => [...(holders.get(keyOf(digest)) ?? [])],
  }
}

/** In MB, after all garbage is gone. */
function memory(): number {
  globalThis.gc?.()
  globalThis.gc?.()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return (heapUsed + arrayBuffers) / 1e6
}

/** Digests made anew each time from one seed: kept as texts, they would be what is measured. */
const random = randomBytes(8 * peers * blobsOfPeer)
function digestAt(index: number): Digest {
  return digestFrom('sha256', random.toString('hex', 8 * index, 8 * index + 8).padEnd(64, '0'))
}

/** @returns µs a lookup */
function time(table: Table, digests: readonly Digest[], expected: number): number {
  let found = 0
  const begin = performance.now()
  for (const digest of digests) found += table.holdersOf(digest).length
  const took = performance.now() - begin
  if (found !== expected * digests.length) throw new Error(`${found} holders were found`)
  return (took * 1000) / digests.length
}

function measure(table: Table, same: boolean): Lookup {
  const before = memory()
  let add = 0
  for (let peer = 0; peer < peers; peer++) {
    const first = same ? 0 : peer * blobsOfPeer
    const digests = Array.from({ length: blobsOfPeer }, (_, index) => digestAt(first + index))
    const begin = performance.now()
    table.add(`peer ${peer}`, digests)
    add += (performance.now() - begin) / peers
  }
  const used = memory() - before
  const blobs = same ? blobsOfPeer : peers * blobsOfPeer
  const held = Array.from({ length: lookups }, () => digestAt(Math.floor(Math.random() * blobs)))
  const unheld = Array.from({ length: lookups }, () => digestFrom('sha256', randomBytes(32).toString('hex')))
  // Once to warm up.
  let [hit, miss] = [0, 0]
  for (let round = 0; round < 2; round++) {
    hit = time(table, held, same ? peers : 1)
    miss = time(table, unheld, 0)
  }
  const begin = performance.now()
  table.forget('peer 50')
  return { hit, miss, memory: used, add, forget: performance.now() - begin }
}

const [kind, overlap] = process.argv.slice(2)
console.log(JSON.stringify(measure(kind === 'map' ? map() : holdings(), overlap === 'same')))
