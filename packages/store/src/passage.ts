import type { ByteRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import type { RangeSet } from '@shoal/oci/range-set'
import { type Hasher, hasherOf, sharedBuffer } from './hash-thread.ts'
import type { Ingest } from './ingest.ts'
import { Ledger } from './ledger.ts'
import { readWhole } from './reader.ts'
import type { Giver } from './source.ts'

/** How far what arrives may be ahead of the slowest reader, in bytes: a whole manifest, at least. */
const windowSize = 8 * 1024 * 1024

/** How long who does not read may hold the others back, in ms; then it is passed by, and its response breaks off. */
const patience = 30_000

const readSize = 512 * 1024

/**
 * A blob that passes through without being stored, because the disk takes no more: verified like one that is, but kept
 * in memory, and only until those who read it now have had it.
 */
export class Passage {
  readonly digest: Digest
  /** In bytes. */
  readonly size: number
  /** Bytes that an earlier run of the daemon left. */
  readonly resumed: number
  readonly #hasher: Hasher
  /** Has the bytes before {@link #stored}, in its part file. */
  readonly #ingest: Ingest | undefined
  #stored = 0
  #ledger = new Ledger()
  /** What is still here, in order. */
  #pieces: { readonly start: number; readonly bytes: Buffer }[] = []
  /** The bytes of these, and whether others have been here before. */
  #held = 0
  #forgot = false
  /** Who is still before this byte is waited for no longer. */
  #passed = 0
  /** The next byte to come. */
  #end = 0
  #room = Promise.withResolvers<void>()

  readonly #needed: () => readonly ByteRange[]

  private constructor(digest: Digest, size: number, ingest: Ingest | undefined, needed: () => readonly ByteRange[]) {
    this.#needed = needed
    this.digest = digest
    this.size = size
    this.resumed = ingest?.resumed ?? 0
    this.#ingest = ingest
    this.#hasher = hasherOf(digest, size)
  }

  /**
   * @param ingest what the disk took before: its bytes count, and are read from there, up to the first gap, or up to the
   *   first that nobody may read before the end, if more is to come until then than there is memory for
   * @param needed what is still to be read
   */
  static async open(
    digest: Digest,
    size: number,
    ingest: Ingest | undefined,
    needed: () => readonly ByteRange[],
  ): Promise<Passage> {
    const passage = new Passage(digest, size, ingest, needed)
    try {
      if (ingest) await passage.#takeOver(ingest)
      return passage
    } catch (error) {
      passage.#hasher.close()
      throw error
    }
  }

  /** What has been here, and from whom. */
  get ledger(): Ledger {
    return this.#ledger
  }

  get have(): RangeSet {
    return this.#ledger.have
  }

  /** Whether bytes may come that nobody may read before the end: all that comes until then must stay in memory. */
  get takesUnproven(): boolean {
    return this.size - this.#stored <= windowSize
  }

  get complete(): boolean {
    return this.#end === this.size
  }

  /** Whether all of it can still be read from the first byte on. */
  get whole(): boolean {
    return !this.#forgot
  }

  async read(buffer: Uint8Array, length: number, position: number): Promise<number> {
    if (position < this.#stored) return this.#ingest!.read(buffer, Math.min(length, this.#stored - position), position)
    const piece = this.#pieces.find(({ start, bytes }) => start <= position && position < start + bytes.length)
    if (!piece) return 0
    const from = position - piece.start
    const count = Math.min(length, piece.bytes.length - from)
    buffer.set(piece.bytes.subarray(from, from + count))
    return count
  }

  /** Adds the next bytes; resolves when there is room for more. */
  async write(bytes: Uint8Array, position: number, giver?: Giver): Promise<void> {
    if (position !== this.#end) throw new Error(`the byte at ${this.#end} comes next, not that at ${position}`)
    const piece = { start: position, bytes: sharedBuffer(bytes.length) }
    piece.bytes.set(bytes)
    this.#pieces.push(piece)
    this.#end += bytes.length
    this.#held += bytes.length
    this.#ledger.add({ start: position, end: this.#end }, giver)
    await this.#hasher.update(piece.bytes)
    if (this.#held > windowSize) this.trim()
    while (this.#held > windowSize) {
      const timer = setTimeout(() => this.#passBy(), patience)
      await this.#room.promise
      clearTimeout(timer)
    }
  }

  /** Forgets what nobody needs any more. */
  trim(): void {
    this.#keep(this.#needed().filter(({ start }) => start >= this.#passed))
  }

  /** Waits no longer for those who stand far behind. */
  #passBy(): void {
    this.#passed = this.#end - windowSize / 2
    this.trim()
  }

  #keep(needed: readonly ByteRange[]): void {
    const kept = this.#pieces.filter(({ start, bytes }) =>
      needed.some(range => range.start < start + bytes.length && start < range.end),
    )
    if (kept.length === this.#pieces.length) return
    this.#pieces = kept
    this.#held = kept.reduce((sum, { bytes }) => sum + bytes.length, 0)
    this.#forgot = true
    this.#room.resolve()
    this.#room = Promise.withResolvers()
  }

  /** Whether all of it has the digest. Only once {@link complete}, and only once. */
  verify(): Promise<boolean> {
    return this.#hasher.matches()
  }

  /** All of it, if it is small and nobody has read it yet. */
  async bytes(): Promise<Buffer | undefined> {
    return this.#forgot || this.size > windowSize ? undefined : readWhole(this)
  }

  async park(): Promise<void> {
    await this.discard()
  }

  async discard(): Promise<void> {
    this.#keep([])
  }

  async close(): Promise<void> {
    this.#hasher.close()
    await this.#ingest?.close()
  }

  async #takeOver(ingest: Ingest): Promise<void> {
    const reach = ingest.have.reach(0)
    const end = this.size - reach <= windowSize ? reach : ingest.ledger.readable(0)
    const buffer = sharedBuffer(readSize)
    for (let position = 0, count: number; position < end; position += count) {
      count = await ingest.read(buffer, Math.min(readSize, end - position), position)
      if (count === 0) throw new Error(`the part file of ${this.digest} is shorter than what was written to it`)
      await this.#hasher.update(buffer.subarray(0, count))
    }
    this.#ledger = ingest.ledger.until(end)
    this.#stored = this.#end = end
    // Without its name: the next transfer may want it while the last reader of this one is still here.
    await ingest.discard().catch(() => {})
  }
}
