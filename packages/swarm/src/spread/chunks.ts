import type { ByteRange } from '@shoal/oci/byte-range'
import type { ChunkRun } from './spread-message.ts'
import { type Tuning, tuning } from './tuning.ts'

type ChunkTuning = Pick<Tuning, 'chunks' | 'fewChunks' | 'leastChunk' | 'largestChunk'>

/** Blobs up to this size are one chunk, in bytes. */
export const wholeUpTo = 256 * 1024

/** How large the chunks of a blob of `size` bytes are, in bytes: a power of 2, or all of it. */
export function chunkSizeOf(size: number, options: ChunkTuning = tuning): number {
  const { chunks, fewChunks, leastChunk, largestChunk } = options
  if (size <= wholeUpTo) return Math.max(size, 1)
  const least = size <= fewChunks * leastChunk ? leastChunk : 2 * leastChunk
  return Math.min(Math.max(2 ** Math.round(Math.log2(size / chunks)), least), largestChunk)
}

/** Whether a blob may be cut so: whoever says so must not make others keep account of millions of chunks. */
export function isChunkSize(size: number, chunk: number): boolean {
  if (size <= wholeUpTo) return chunk === Math.max(size, 1)
  return chunk >= 64 * 1024 && chunk <= 4 * 1024 * 1024 && Number.isInteger(Math.log2(chunk))
}

/** A blob as it is cut into chunks of one size, the last one apart. */
export class Chunks {
  readonly size: number
  /** Of each, in bytes. */
  readonly chunk: number
  readonly count: number

  constructor(size: number, chunk: number) {
    this.size = size
    this.chunk = chunk
    this.count = Math.max(1, Math.ceil(size / chunk))
  }

  rangeOf(index: number): ByteRange {
    const start = index * this.chunk
    return { start, end: Math.min(start + this.chunk, this.size) }
  }

  /** Whether these are chunks of this blob. */
  holds(runs: readonly ChunkRun[]): boolean {
    return runs.every(([start, end]) => start >= 0 && start < end && end <= this.count)
  }
}

/** Some of the chunks of a blob. */
export class ChunkSet {
  /** One byte for each chunk. */
  readonly #bits: Uint8Array
  #total = 0

  constructor(count: number, runs: Iterable<ChunkRun> = []) {
    this.#bits = new Uint8Array(count)
    for (const [start, end] of runs) for (let i = start; i < end; i++) this.add(i)
  }

  /** Of all chunks of the blob. */
  get length(): number {
    return this.#bits.length
  }

  get total(): number {
    return this.#total
  }

  get full(): boolean {
    return this.#total === this.#bits.length
  }

  has(index: number): boolean {
    return this.#bits[index] === 1
  }

  /** @returns whether it was not there */
  add(index: number): boolean {
    if (index >= this.#bits.length || this.#bits[index] === 1) return false
    this.#bits[index] = 1
    this.#total++
    return true
  }

  /** @returns whether it was there */
  delete(index: number): boolean {
    if (this.#bits[index] !== 1) return false
    this.#bits[index] = 0
    this.#total--
    return true
  }

  clear(): void {
    this.#bits.fill(0)
    this.#total = 0
  }

  *[Symbol.iterator](): IterableIterator<number> {
    if (this.#total > 0) for (let i = 0; i < this.#bits.length; i++) if (this.#bits[i] === 1) yield i
  }

  get runs(): ChunkRun[] {
    return runsOf(this)
  }

  /** One bit for each chunk, the first one the lowest of the first byte. */
  get bits(): Uint8Array {
    const bits = new Uint8Array(Math.ceil(this.#bits.length / 8))
    for (const index of this) bits[index >> 3]! |= 1 << (index & 7)
    return bits
  }

  /** Those of {@link bits} that are not in here. */
  *lackingOf(bits: Uint8Array): IterableIterator<number> {
    const most = Math.min(8 * bits.length, this.#bits.length)
    for (let index = 0; index < most; index++)
      if (this.#bits[index] === 0 && (bits[index >> 3]! >> (index & 7)) & 1) yield index
  }
}

/** @param chunks their numbers, in order */
export function runsOf(chunks: Iterable<number>): ChunkRun[] {
  const runs: [number, number][] = []
  for (const index of chunks) {
    const last = runs.at(-1)
    if (last && last[1] === index) last[1] = index + 1
    else runs.push([index, index + 1])
  }
  return runs
}
