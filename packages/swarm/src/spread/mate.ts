import { ChunkSet } from './chunks.ts'
import type { HashBatch } from './spread-message.ts'

/** Another machine that takes part in the spread of a blob, as far as it is heard of. */
export type Mate = {
  readonly id: string
  /** When it was first heard of, in ms. */
  readonly since: number
  /** Whether it has been told all there was, once. */
  told: boolean
  /** How many of the chunks that are here it knows of, in the order in which they came, and what else it was told. */
  informed: number
  toldOf: { readonly claims: boolean; readonly handing: boolean }
  /** Whether it has said something itself. */
  heard: boolean
  readonly has: ChunkSet
  /** Whether it says that it gives. */
  gives: boolean
  /** Whether it gave what it should not have. */
  shunned: boolean
  /** Times in a row that nothing came of asking it. */
  failures: number
  /** Whether what it has can be had, as far as is known: all of the above. */
  counts: boolean
  /** What it says that it is to fetch. */
  claim: ChunkSet
  epoch: number
  /** When it was last heard of as one who fetches, in ms. */
  claimAt: number
  /** Whether it gives only what it hands on. */
  handing: boolean
  /** Whether this machine gets a chunk from it now, apart from those that it hands on. */
  pulling: boolean
  /** Chunks that it hands on to this machine and that are on their way. */
  incoming: number
  /** How many times as long as the least it is left alone, having been busy each time of late; 1 at first. */
  refused: number
  /** Until when it is not asked, in ms. */
  busyUntil: number
  /** Chunks that it was handed and has not passed on yet, and how long that takes it, in ms: 0 if that is not known. */
  handed: number
  pace: number
  /** How many batches of hashes it has been told of those that are kept, and which it has told itself. */
  batches: number
  readonly knows: Set<HashBatch>
}

/** One that has been heard of just now, and has said nothing. @param count of the blob's chunks */
export function newMate(id: string, now: number, count: number): Mate {
  return {
    id,
    since: now,
    told: false,
    informed: 0,
    toldOf: { claims: false, handing: false },
    heard: false,
    has: new ChunkSet(count),
    gives: false,
    shunned: false,
    failures: 0,
    counts: false,
    claim: new ChunkSet(count),
    epoch: 0,
    claimAt: 0,
    handing: false,
    pulling: false,
    incoming: 0,
    refused: 1,
    busyUntil: 0,
    handed: 0,
    pace: 0,
    batches: 0,
    knows: new Set(),
  }
}
