import type { Digest } from '@shoal/oci/digest'

/** Chunks `start` to `end` (not included), by their numbers. */
export type ChunkRun = readonly [start: number, end: number]

/** Hashes of consecutive chunks, from `first` on, and who says so. */
export type HashBatch = {
  readonly author: string
  readonly first: number
  /** SHA-256, in hex. */
  readonly hashes: readonly string[]
  readonly signature: Uint8Array
}

/** Asks the coordinator who is to fetch a blob, or those chunks of it that nobody has. */
export type Ask = {
  readonly t: 'ask'
  readonly digest: Digest
  /** To tell answers apart. */
  readonly n: number
  /** In bytes; 0 if it is not known. */
  readonly size: number
  /** Of a chunk, in bytes, if there is a spread that the asker takes part in. */
  readonly chunk: number
  /** The latest that it has heard of. */
  readonly epoch: number
  /** Chunks that nobody is known to have; empty: all, by one who has just come. */
  readonly want: readonly ChunkRun[]
  /** Whether it gives bytes to others. */
  readonly gives: boolean
  /** Whether it could get it from elsewhere. */
  readonly line: boolean
  /** `new`: just come; `lost`: nobody fetches those chunks; `starving`: who fetches is slower than it could be. */
  readonly why: 'new' | 'lost' | 'starving'
}

/** What one is to fetch from now on; nothing to join the others, or to stop. An answer to {@link Ask} unless `n` is 0. */
export type LeaseMessage = {
  readonly t: 'lease'
  readonly digest: Digest
  readonly n: number
  readonly size: number
  readonly chunk: number
  readonly epoch: number
  readonly fetch: readonly ChunkRun[]
  /** Some of those who take part, to get to know. */
  readonly members: readonly string[]
}

/** What one has, and is fetching. */
export type Have = {
  readonly t: 'have'
  readonly digest: Digest
  readonly size: number
  readonly chunk: number
  /** Whether it is the first one to this member: all that there is, not what is new. */
  readonly first: boolean
  readonly add: readonly ChunkRun[]
  readonly hashes: readonly HashBatch[]
  readonly gives: boolean
  readonly epoch: number
  /** What it is still to fetch, from sources that not everybody has to ask; none if it fetches nothing. */
  readonly claim: readonly ChunkRun[]
  /** Whether some of what it has fetched has not been handed on yet: it gives only what it hands on. */
  readonly handing: boolean
}

/** Fetch these from me: I have them first, and you are to pass them on. */
export type Hand = {
  readonly t: 'hand'
  readonly digest: Digest
  readonly chunks: readonly number[]
  readonly hashes: readonly HashBatch[]
}

/** It takes no part any more. */
export type Leave = { readonly t: 'leave'; readonly digest: Digest }

/** Why do you say that the chunk is what you gave? */
export type Why = { readonly t: 'why'; readonly digest: Digest; readonly number: number }

/** Since this was said of it. */
export type Because = {
  readonly t: 'because'
  readonly digest: Digest
  readonly number: number
  readonly hashes: readonly HashBatch[]
}

/** What peers say to each other about a blob that several want at once. */
export type SpreadMessage = Ask | LeaseMessage | Have | Hand | Leave | Why | Because
