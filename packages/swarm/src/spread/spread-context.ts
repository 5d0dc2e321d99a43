import type { ByteRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import type { SpreadMessage } from './spread-message.ts'

/** How it went to get a chunk. */
export type ChunkAnswer = {
  /** What the other side can give now, one bit for each chunk, if it says so. */
  readonly has?: Uint8Array | undefined
} & (
  | {
      readonly kind: 'chunk'
      /** SHA-256 of its bytes, in hex. */
      readonly hash: string
      /** Adds it to what is there; `author` has said that this is its hash. `then` is called once it can be given to others. */
      keep(author: string, then: () => void): void
      drop(): void
    }
  /** `busy`: it gives too much already. `lacks`: it does not give this chunk. */
  | { readonly kind: 'busy' | 'lacks' | 'failed' }
)

/** What a machine needs of the world to take part: clock, chance and network. */
export interface SpreadContext {
  /** This machine's peer id. */
  readonly self: string
  /** In ms, never going back. */
  now(): number
  random(): number
  /** Calls `then` once, after so many ms, unless disposed of before. */
  after(ms: number, then: () => void): Disposable
  /** Who is connected and takes part in such things; without this machine. */
  members(): Iterable<string>
  /** Reaches the other side whole and in order, or not at all, as long as it is connected. */
  send(to: string, message: SpreadMessage): void
  /**
   * Asks a member for a chunk, and tells it what this machine has, one bit for each chunk. `done` is called once, later,
   * unless disposed of before.
   */
  get(from: string, digest: Digest, chunk: number, has: Uint8Array, done: (answer: ChunkAnswer) => void): Disposable
  sign(bytes: Uint8Array): Uint8Array
  /** Whether `author` has signed them. */
  verify(author: string, bytes: Uint8Array, signature: Uint8Array): boolean
  /** Whether a member has lied, as far as is known: what it has signed is worth nothing. */
  isBanned(member: string): boolean
  /** A member has certainly lied. */
  blame(member: string, reason: string): void
}

/** What one blob needs of this machine. */
export interface SpreadBlob {
  readonly digest: Digest
  /** In bytes. */
  readonly size: number
  /** Whether others may have it from here. */
  readonly gives: boolean
  /** Whether these bytes are there already, and right as far as is known here. */
  has(range: ByteRange): boolean
  /** Whether this machine can get it from elsewhere: from upstream, or from one who has all of it and takes no part. */
  line(): boolean
  /** Whether one who takes no part has all of it, and is likely to give it: no reason to have more fetch it from upstream. */
  held(): boolean
  /** The sources of this machine are to bring these chunks from now on, in order, and no others. */
  fetch(chunks: readonly (readonly [start: number, end: number])[]): void
  /** Hashes a chunk that the sources have brought: SHA-256 in hex. */
  hash(chunk: number, done: (hash: string) => void): void
}
