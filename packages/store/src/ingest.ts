import { dirname } from 'node:path'
import type { ByteRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import { manifestLimit } from '@shoal/oci/manifest'
import { RangeSet } from '@shoal/oci/range-set'
import type { Disk, DiskFile } from './disk.ts'
import { DiskError } from './disk-error.ts'
import { type Hasher, hasherOf, sharedBuffer } from './hash-thread.ts'
import type { Layout } from './layout.ts'
import { Ledger } from './ledger.ts'
import { readWhole } from './reader.ts'
import type { Giver } from './source.ts'

const readSize = 512 * 1024

/** How many bytes are written between two notes of what a part file holds. */
const noteEvery = 64 * 1024 * 1024

/** How many bytes may wait in the page cache for the disk: all at the end would keep the client waiting. */
const syncEvery = 32 * 1024 * 1024

/** A blob on its way into the store: a part file, which ranges of it are there, and a hash that follows the first gap. */
export class Ingest {
  readonly digest: Digest
  /** In bytes. */
  readonly size: number
  /** What the part file holds, and from whom. Nothing of it is verified before {@link verify}. */
  readonly ledger: Ledger
  /** Bytes that an earlier run of the daemon left, so that a wrong digest need not be the fault of who gave the rest. */
  readonly resumed: number
  readonly #disk: Disk
  readonly #layout: Layout
  readonly #file: DiskFile
  readonly #hasher: Hasher
  #hashed = 0
  #noted: number
  #written = 0
  /** Bytes on their way from the page cache to the disk; one sync at a time. */
  #syncing: Promise<void> | undefined
  /** Whether there may be a note. */
  #hasNote: boolean
  /** The last note being written; one at a time. */
  #noting: Promise<void> = Promise.resolve()
  /** Reads under way, which the file must stay open for. */
  readonly #reading = new Set<Promise<number>>()
  #closing = false
  #catchingUp: Promise<void> | undefined
  #failure: DiskError | undefined

  private constructor(disk: Disk, layout: Layout, file: DiskFile, digest: Digest, size: number, ledger: Ledger) {
    this.#disk = disk
    this.#layout = layout
    this.#file = file
    this.#hasher = hasherOf(digest, size)
    this.digest = digest
    this.size = size
    this.ledger = ledger
    this.resumed = this.have.total
    this.#noted = this.resumed
    this.#hasNote = this.resumed > 0
  }

  /**
   * Opens the blob's part file, and goes on from what {@link park} left if that was for the same size.
   * @throws DiskError
   */
  static async open(disk: Disk, layout: Layout, digest: Digest, size: number): Promise<Ingest> {
    try {
      const ledger = await parked(disk, layout, digest, size)
      // A note that is kept stays true: what is there only grows.
      if (ledger.have.total === 0)
        for (const path of [layout.partState(digest), layout.part(digest)]) await disk.remove(path)
      const ingest = new Ingest(disk, layout, await disk.open(layout.part(digest), 'create'), digest, size, ledger)
      ingest.#catchUp()
      return ingest
    } catch (error) {
      throw DiskError.from(error)
    }
  }

  get have(): RangeSet {
    return this.ledger.have
  }

  get complete(): boolean {
    return this.have.covers({ start: 0, end: this.size })
  }

  read(buffer: Uint8Array, length: number, position: number): Promise<number> {
    const reading = this.#file.read(buffer, length, position)
    const done = () => void this.#reading.delete(reading)
    this.#reading.add(reading)
    reading.then(done, done)
    return reading
  }

  /**
   * Adds bytes at a position; they may be read once it resolves. `bytes` must stay as they are until then.
   * @throws DiskError
   */
  async write(bytes: Uint8Array, position: number, giver?: Giver): Promise<void> {
    if (this.#failure) throw this.#failure
    const working = [this.#file.write(bytes, position)]
    // Hashing here, from memory and while the disk writes, saves reading it all again.
    if (!this.#catchingUp && position === this.#hashed) {
      working.push(this.#hasher.update(bytes))
      this.#hashed += bytes.length
    }
    try {
      await Promise.all(working)
    } catch (error) {
      // The bytes are others' again only when nobody works with them any more.
      await Promise.allSettled(working)
      // The hash may be ahead of the file now.
      this.#failure = DiskError.from(error)
      throw this.#failure
    }
    this.ledger.add({ start: position, end: position + bytes.length }, giver)
    this.#catchUp()
    this.#written += bytes.length
    if (this.#written >= syncEvery && !this.#syncing) this.#sync()
    if (this.have.total - this.#noted >= noteEvery) {
      this.#noted = this.have.total
      // Without the note only a kill costs more.
      await this.#note().catch(() => {})
    }
  }

  /** Whether the whole blob has the digest. Only once {@link complete}, and only once. @throws DiskError */
  async verify(): Promise<boolean> {
    await this.#catchingUp
    if (this.#failure) throw this.#failure
    return this.#hashed === this.size && (await this.#hasher.matches())
  }

  /** Gives the verified blob its name, so that it is there for good, power loss included. @throws DiskError */
  async commit(): Promise<void> {
    const path = this.#layout.blob(this.digest)
    await this.#syncing
    try {
      if (this.#failure) throw this.#failure
      await this.#file.sync()
    } catch (error) {
      // What could not be written would look as if it was, from the page cache: it must not be taken up again.
      await this.discard().catch(() => {})
      throw DiskError.from(error)
    }
    try {
      await this.#disk.rename(this.#layout.part(this.digest), path)
      await this.#disk.syncFolder(dirname(path))
      await this.#noting
      if (this.#hasNote) await this.#disk.remove(this.#layout.partState(this.digest))
    } catch (error) {
      throw DiskError.from(error)
    }
  }

  /** All of it, if it is small. Only once it is verified. */
  async bytes(): Promise<Buffer | undefined> {
    return this.size > manifestLimit ? undefined : readWhole(this)
  }

  /** Keeps what is there for a later {@link open}. The file stays readable until {@link close}. */
  async park(): Promise<void> {
    // A disk that refused bytes is likely full: then they take up room for nothing.
    await (this.have.total === 0 || this.#failure ? this.discard() : this.#note())
  }

  /** Throws away what is there. */
  async discard(): Promise<void> {
    await this.#noting
    await this.#disk.remove(this.#layout.partState(this.digest))
    await this.#disk.remove(this.#layout.part(this.digest))
  }

  async close(): Promise<void> {
    this.#closing = true
    await this.#catchingUp
    await this.#syncing
    this.#hasher.close()
    while (this.#reading.size > 0) await Promise.allSettled(this.#reading)
    await this.#file.close()
  }

  #sync(): void {
    this.#written = 0
    this.#syncing = this.#file
      .sync()
      .catch(error => {
        // The system tells of it once: a later sync would succeed, over bytes that are lost.
        this.#failure = DiskError.from(error)
      })
      .finally(() => {
        this.#syncing = undefined
      })
  }

  /** Notes which ranges are there. After power loss the note may say more than there is: then the digest tells. */
  #note(): Promise<void> {
    this.#hasNote = true
    const note = this.#noting.then(() => {
      const { have, unproven } = this.ledger
      const state = { version: 1, size: this.size, ranges: have, ...(unproven.total > 0 && { unproven }) }
      return this.#disk.replaceFile(this.#layout.partState(this.digest), JSON.stringify(state))
    })
    this.#noting = note.catch(() => {})
    return note
  }

  /** Hashes what was written ahead of the hash, from the file. */
  #catchUp(): void {
    if (this.#catchingUp || this.#failure || this.have.reach(this.#hashed) === this.#hashed) return
    const run = async () => {
      const buffer = sharedBuffer(readSize)
      try {
        for (let end: number; !this.#closing && (end = this.have.reach(this.#hashed)) > this.#hashed; ) {
          const count = await this.#file.read(buffer, Math.min(readSize, end - this.#hashed), this.#hashed)
          if (count === 0) throw new Error(`${this.#file.path} is shorter than what was written to it`)
          await this.#hasher.update(buffer.subarray(0, count))
          this.#hashed += count
        }
      } catch (error) {
        this.#failure = DiskError.from(error)
      }
      // In the same turn as the last look at what is there, so that no write falls between the two.
      this.#catchingUp = undefined
    }
    this.#catchingUp = run()
  }
}

/** What an earlier run left; nothing if it does not say so plainly. */
async function parked(disk: Disk, layout: Layout, digest: Digest, size: number): Promise<Ledger> {
  try {
    const state: unknown = JSON.parse((await disk.readFile(layout.partState(digest))).toString())
    const length = (await disk.sizeOf(layout.part(digest))) ?? 0
    if (typeof state !== 'object' || state === null || !('version' in state) || state.version !== 1) return new Ledger()
    if (!('size' in state) || state.size !== size || !('ranges' in state)) return new Ledger()
    const have = rangesIn(state.ranges, Math.min(size, length))
    const unproven = rangesIn('unproven' in state ? state.unproven : [], size)
    return have && unproven ? new Ledger(have, unproven) : new Ledger()
  } catch {
    return new Ledger()
  }
}

/** The ranges in a note; undefined if they make no sense. */
function rangesIn(noted: unknown, most: number): RangeSet | undefined {
  if (!Array.isArray(noted)) return undefined
  const ranges = noted.map(([start, end]): ByteRange => ({ start, end }))
  const whole = Number.isSafeInteger
  const sound = ranges.every(({ start, end }) => whole(start) && whole(end) && start >= 0 && start < end && end <= most)
  return sound ? new RangeSet(ranges) : undefined
}
