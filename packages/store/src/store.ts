import { dirname, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { ByteRange } from '@shoal/oci/byte-range'
import { algorithmOf, type Digest, DigestHasher, digestOf } from '@shoal/oci/digest'
import { type Manifest, ManifestError, manifestLimit, parseManifest } from '@shoal/oci/manifest'
import { type Disk, type DiskFile, isAbsent, nodeDisk } from './disk.ts'
import { DiskError } from './disk-error.ts'
import { type BlobRecord, Index, IndexError } from './index.ts'
import { Ingest } from './ingest.ts'
import { Layout } from './layout.ts'
import { fill, type Reader } from './reader.ts'
import { Refs, type Sighting } from './refs.ts'
import { NoRoomError, type Room } from './room.ts'
import { Transfer, type Verdict } from './transfer.ts'
import { Visibilities } from './visibility.ts'
import { WrongParts } from './wrong-parts.ts'

/** Manifests that are kept in memory, in bytes. */
const manifestMemory = 32 * 1024 * 1024

/** How often it is tried to store a manifest that has only passed through, in ms. */
const keepEvery = 2000

/** Thrown when the store cannot be opened: `LOCKED` if another daemon has it, `UNUSABLE` for the rest. */
export class StoreError extends Error {
  readonly code: 'LOCKED' | 'UNUSABLE'

  constructor(code: 'LOCKED' | 'UNUSABLE', message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** A blob that is held: an open file. */
export interface HeldBlob {
  readonly digest: Digest
  readonly size: number
  read(range: ByteRange): Reader
  /** Must be called; readers go on until they are closed too. */
  close(): void
}

export type HeldManifest = { readonly bytes: Buffer; readonly manifest: Manifest }

/**
 * A blob that was held, and is no longer as it was stored: its file is gone, has another length, has other bytes, or the
 * disk cannot read it.
 */
export type Loss = {
  readonly problem: 'missing' | 'length' | 'bytes' | 'unreadable'
  /** Whether the file is in quarantine. */
  readonly quarantined: boolean
}

export type StoreOptions = {
  readonly folder: string
  /** @default the real disk */
  readonly disk?: Disk
  /** Told of what went wrong but did not stop the store. */
  readonly onWarning: (message: string) => void
}

/** What was found in the data folder. */
type Opened = {
  readonly layout: Layout
  readonly index: Index
  readonly refs: Refs
  readonly blobs: Map<Digest, BlobRecord>
  readonly parked: Map<Digest, number>
}

/** Content on disk, what tags were seen to be, and what is arriving. */
export class Store {
  readonly refs: Refs
  readonly visibilities: Visibilities
  readonly index: Index
  readonly #disk: Disk
  readonly #layout: Layout
  readonly #blobs: Map<Digest, BlobRecord>
  readonly #transfers = new Map<Digest, Transfer>()
  /** Blobs whose bytes were seen to match since the store was opened. */
  readonly #sound = new Set<Digest>()
  /** Open files of the blobs that are held. */
  readonly #opened = new Set<OpenBlob>()
  /** Files that are being moved to quarantine. */
  readonly #moving = new Map<Digest, Promise<boolean>>()
  /** Files that are being removed. */
  readonly #leaving = new Map<Digest, Promise<void>>()
  /** Transfers that have ended and are still being read. */
  readonly #lingering = new Set<Transfer>()
  /** What transfers have left to go on from: the length of the file in bytes. The oldest first. */
  readonly #parked: Map<Digest, number>
  #room: Room | undefined
  /** When it was tried last to store something that has only passed through, in ms. */
  #keptAt = Number.NEGATIVE_INFINITY
  readonly #manifests = new Map<Digest, HeldManifest>()
  readonly #wrongParts = new WrongParts()
  readonly #listeners = new Set<{ changed(digest: Digest, change: 'stored' | 'dropped'): void }>()
  readonly #onWarning: (message: string) => void
  #manifestBytes = 0
  #bytes = 0
  #rechecks = 0

  private constructor({ disk = nodeDisk, onWarning }: StoreOptions, { layout, index, refs, blobs, parked }: Opened) {
    this.#disk = disk
    this.#layout = layout
    this.#blobs = blobs
    this.#parked = parked
    this.#onWarning = onWarning
    this.index = index
    this.refs = refs
    this.visibilities = new Visibilities(index)
    for (const { size } of blobs.values()) this.#bytes += size
  }

  /**
   * Opens the data folder, made if it is missing. Files in `blobs/` are the truth: what the index lacks is added, what
   * it has in excess is dropped, and an index that cannot be read is made anew.
   * @throws StoreError
   */
  static async open(options: StoreOptions): Promise<Store> {
    const { folder, disk = nodeDisk, onWarning } = options
    let index: Index | undefined
    try {
      const layout = await Layout.open(folder, disk)
      const opened = await openIndex(layout, disk, onWarning)
      index = opened.index
      const blobs = await reconcile(layout, disk, index, opened.known)
      const parked = await parkedParts(layout, disk, blobs)
      const { index: known } = opened
      const refs = await Refs.open({
        path: layout.indexFile,
        disk,
        holds: digest => blobs.has(digest),
        onError: error => onWarning(error.message),
        onRemoved: reference => void known.forget(reference).catch(() => {}),
      })
      for (const [reference, sighting] of opened.remembered) refs.remember(reference, sighting)
      return new Store(options, { layout, index, refs, blobs, parked })
    } catch (error) {
      await index?.close()
      if (error instanceof IndexError && error.code === 'LOCKED')
        throw new StoreError('LOCKED', `the data folder ${folder} is in use by another shoal daemon`, { cause: error })
      const reason = error instanceof Error ? error.message : String(error)
      throw new StoreError('UNUSABLE', `the data folder ${folder} cannot be used: ${reason}`, { cause: error })
    }
  }

  /** Blobs held, and their bytes in all. */
  get held(): { blobs: number; bytes: number } {
    return { blobs: this.#blobs.size, bytes: this.#bytes }
  }

  /** The size in bytes of a blob that is held. */
  sizeOf(digest: Digest): number | undefined {
    return this.#blobs.get(digest)?.size
  }

  /** The size in bytes that a blob has or will have, if a manifest here tells it. */
  expectedSizeOf(digest: Digest): number | undefined {
    return this.sizeOf(digest) ?? this.index.sizeOf(digest)
  }

  /** The digests of what is held, in no order; also if that changes meanwhile. */
  digests(): Iterable<Digest> {
    return this.#blobs.keys()
  }

  /** Every blob that is held now, and what is known of it. */
  get blobs(): readonly (readonly [Digest, BlobRecord])[] {
    return [...this.#blobs]
  }

  /** What transfers have left to go on from, the oldest first: bytes of the disk that each takes up at most. */
  get parked(): ReadonlyMap<Digest, number> {
    return this.#parked
  }

  /** What is being read, or arrives. */
  get inUse(): ReadonlySet<Digest> {
    const inUse = new Set(this.#transfers.keys())
    for (const { digest } of this.#opened) inUse.add(digest)
    for (const transfer of this.#lingering) {
      if (transfer.deserted) this.#lingering.delete(transfer)
      else inUse.add(transfer.digest)
    }
    return inUse
  }

  /** Has somebody see to it that there is room for what arrives. */
  keepRoom(room: Room): void {
    this.#room = room
  }

  /** Whether something is being read for others than {@link recheck}, or arrives. */
  get busy(): boolean {
    return this.#transfers.size > 0 || this.#opened.size > this.#rechecks
  }

  /** Opens a blob that is held; undefined if it is not, or no longer as it should be. */
  async open(digest: Digest): Promise<HeldBlob | undefined> {
    const opened = await this.#open(digest)
    return opened instanceof OpenBlob ? opened : undefined
  }

  /**
   * Reads the whole of a blob that is held, also if its bytes were seen to match before. If they don't, it is dropped,
   * and who is reading it is broken off.
   * @param buffer takes one piece after another
   * @param next is told how many bytes each piece had, and may wait before the next
   * @returns what is wrong with the blob; undefined if it is sound, or not held any more
   */
  async recheck(digest: Digest, buffer: Uint8Array, next: (count: number) => Promise<void>): Promise<Loss | undefined> {
    this.#rechecks++
    try {
      const opened = await this.#open(digest, true)
      if (!(opened instanceof OpenBlob)) return opened
      const reader = opened.read({ start: 0, end: opened.size })
      try {
        for (let count: number; (count = await reader.read(buffer)) > 0; ) await next(count)
      } catch (error) {
        if (error instanceof RottenError) return error.loss
        if (!isUnreadable(error) || !this.#opened.has(opened)) throw error
        return await this.#drop(digest, 'unreadable')
      } finally {
        reader.close()
        opened.close()
      }
    } finally {
      this.#rechecks--
    }
    await this.#reindex(digest)
    return undefined
  }

  /** @param again whether the first whole reading is to be an inspection in any case */
  async #open(digest: Digest, again = false): Promise<OpenBlob | Loss | undefined> {
    const record = this.#blobs.get(digest)
    if (!record) return undefined
    let file: DiskFile
    try {
      file = await this.#disk.open(this.#layout.blob(digest), 'read')
    } catch (error) {
      if (!isAbsent(error)) throw error
      return this.#drop(digest, 'missing')
    }
    const opened: OpenBlob = new OpenBlob(digest, record.size, file, {
      // What has been dropped meanwhile tells nothing of what is held now.
      sound: () => this.#opened.has(opened) && this.#sound.add(digest),
      rotten: async () => (this.#opened.has(opened) ? this.#drop(digest, 'bytes') : undefined),
      closed: () => this.#opened.delete(opened),
      due: again || !this.#sound.has(digest),
    })
    this.#opened.add(opened)
    let size: number
    try {
      size = await file.size()
    } catch (error) {
      opened.close()
      throw error
    }
    if (size === record.size) return opened
    opened.close()
    return this.#drop(digest, 'length')
  }

  /** A manifest that is in memory; one that is held may not be. */
  hotManifest(digest: Digest): HeldManifest | undefined {
    const hot = this.#manifests.get(digest)
    if (!hot) return undefined
    this.#manifests.delete(digest)
    this.#manifests.set(digest, hot)
    if (!this.#blobs.has(digest)) void this.#keep(digest, hot)
    return hot
  }

  /** Stores a manifest that has only passed through: there may be room for it by now. */
  async #keep(digest: Digest, { bytes, manifest }: HeldManifest): Promise<void> {
    if (this.#transfers.has(digest) || performance.now() - this.#keptAt < keepEvery) return
    this.#keptAt = performance.now()
    const transfer = this.begin(digest)
    try {
      await transfer.begin(bytes.length)
      transfer.offered(undefined)
      const lease = transfer.lease({ start: 0, end: bytes.length })
      await lease.write(bytes)
      await lease.close()
      await this.verify(transfer, manifest.mediaType)
    } catch (error) {
      await transfer.park(error instanceof Error ? error : new Error(String(error))).catch(() => {})
    }
  }

  /** A manifest that is held; undefined if it is not, or is no manifest. */
  async manifest(digest: Digest): Promise<HeldManifest | undefined> {
    const hot = this.hotManifest(digest)
    if (hot) return hot
    const record = this.#blobs.get(digest)
    if (!record || record.size > manifestLimit) return undefined
    const blob = await this.open(digest)
    if (!blob) return undefined
    try {
      const bytes = await readAll(blob)
      const held = { bytes, manifest: parseManifest(bytes, record.mediaType) }
      // It may have come as a blob, for all that was known then.
      if (record.mediaType === undefined) {
        await this.#relearn(digest, record.size, held.manifest)
      }
      this.#remember(digest, held)
      return held
    } catch (error) {
      if (error instanceof ManifestError || error instanceof RottenError) return undefined
      throw error
    } finally {
      blob.close()
    }
  }

  /** Calls `changed` when a blob has been stored, or turns out to be a manifest, or is held no longer. */
  onChange(changed: (digest: Digest, change: 'stored' | 'dropped') => void): Disposable {
    // One that is given twice is called twice, and each can be disposed of by itself.
    const listener = { changed }
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /** The transfer of a blob that is under way. */
  transfer(digest: Digest): Transfer | undefined {
    return this.#transfers.get(digest)
  }

  /** Begins the transfer of a blob. There must be none. */
  begin(digest: Digest): Transfer {
    const transfer = new Transfer(digest, async size => {
      // Nothing of what is removed now may be taken for what is about to arrive.
      await this.#leaving.get(digest)
      await this.#makeRoom(digest, size)
      this.#parked.delete(digest)
      return Ingest.open(this.#disk, this.#layout, digest, size)
    })
    this.#transfers.set(digest, transfer)
    void transfer.settled.then(({ stored }) => {
      this.#transfers.delete(digest)
      for (const other of this.#lingering) if (other.deserted) this.#lingering.delete(other)
      if (!transfer.deserted) this.#lingering.add(transfer)
      if (!stored) void this.#lookForPart(digest)
    })
    return transfer
  }

  /**
   * Checks a complete transfer; if its digest matches, the blob is held from here on, and whoever gave other bytes before
   * is told soon. Of what only passes through, a manifest is remembered for a while.
   * @param contentType what the registry called it, if it is a manifest
   */
  async verify(transfer: Transfer, contentType?: string): Promise<Verdict> {
    const { digest, size } = transfer
    const verdict = await transfer.verify({
      admits: async () => {
        const admitted = this.#room?.admits(digest, size!, contentType === undefined ? 'blob' : 'manifest') ?? true
        return (await this.#unless('making room failed', Promise.resolve(admitted))) ?? false
      },
      onStored: () => this.#add(digest, size!, contentType),
      onPassed: async passing => {
        const bytes = contentType === undefined ? undefined : await passing.bytes()
        const manifest = bytes && manifestIn(bytes, contentType)
        if (bytes && manifest) this.#remember(digest, { bytes, manifest })
      },
    })
    if (verdict.matches)
      for (const part of transfer.takeWrongParts()) this.#wrongParts.compare(part, () => this.open(digest))
    return verdict
  }

  /**
   * Removes blobs that are held and that nobody uses, one after another: after power loss, what comes first is not there
   * without what comes later. What tags were seen to be that go is remembered.
   * @returns those that were removed
   */
  async evict(digests: readonly Digest[]): Promise<readonly Digest[]> {
    const evicted: Digest[] = []
    let unsynced: string | undefined
    for (const digest of digests) {
      const record = this.#blobs.get(digest)
      if (!record) continue
      const path = this.#layout.blob(digest)
      // What needs it has gone before, for good.
      if (unsynced !== undefined) await this.#disk.syncFolder(unsynced)
      unsynced = record.mediaType === undefined ? undefined : dirname(path)
      for (const [reference, sighting] of this.refs.sightingsOf(digest))
        await this.#unless('a tag is not remembered', this.index.remember(reference, sighting))
      // It may be wanted again by now, or be on its way.
      if (this.#blobs.get(digest) !== record || this.#moving.has(digest) || this.inUse.has(digest)) break
      if (this.refs.kept.has(digest)) break
      this.#forget(digest, record)
      try {
        await this.#leave(digest, async () => {
          await this.#disk.remove(path)
          await this.#unless('the index cannot be written', this.visibilities.forget(digest))
        })
      } catch (error) {
        this.#onWarning(`${path} cannot be removed: ${error instanceof Error ? error.message : String(error)}`)
        this.#blobs.set(digest, record)
        this.#bytes += record.size
        this.refs.stored(digest)
        this.#tell(digest, 'stored')
        break
      }
      evicted.push(digest)
    }
    if (unsynced !== undefined) await this.#disk.syncFolder(unsynced)
    return evicted
  }

  /** Removes what a transfer has left to go on from. */
  async evictParked(digest: Digest): Promise<void> {
    if (this.#transfers.has(digest) || !this.#parked.delete(digest)) return
    await this.#leave(digest, async () => {
      await this.#disk.remove(this.#layout.partState(digest))
      await this.#disk.remove(this.#layout.part(digest))
    })
  }

  /** Removes the files in quarantine. */
  async emptyQuarantine(): Promise<void> {
    const folder = this.#layout.quarantineFolder
    for (const name of await this.#disk.list(folder)) await this.#disk.remove(join(folder, name))
  }

  /** What is arriving now. */
  get transfers(): readonly Transfer[] {
    return [...this.#transfers.values()]
  }

  /** Bytes in all and free on the disk of the data folder. */
  space(): Promise<{ total: number; free: number }> {
    return this.#disk.space(this.#layout.root)
  }

  /** Writes what is still to be written. Transfers must have been parked. */
  async close(): Promise<void> {
    await this.#wrongParts.close()
    await this.refs.flush()
    await this.visibilities.settled()
    await this.index.close()
  }

  async #add(digest: Digest, size: number, contentType: string | undefined): Promise<void> {
    let manifest: Manifest | undefined
    if (contentType !== undefined && size <= manifestLimit) {
      const bytes = await this.#disk.readFile(this.#layout.blob(digest)).catch(error => {
        throw DiskError.from(error)
      })
      manifest = manifestIn(bytes, contentType)
      if (manifest) this.#remember(digest, { bytes, manifest })
    }
    this.#sound.add(digest)
    if (!this.#blobs.has(digest)) this.#bytes += size
    this.#blobs.set(digest, await this.#record(digest, size, manifest))
    this.refs.stored(digest)
    if (manifest) this.#learned(digest, manifest)
    this.#tell(digest, 'stored')
  }

  #tell(digest: Digest, change: 'stored' | 'dropped'): void {
    for (const listener of this.#listeners) listener.changed(digest, change)
  }

  /** Has what a manifest points to share its lot. Nobody waits for it: until then it counts as private. */
  #learned(digest: Digest, manifest: Manifest): void {
    this.visibilities.learned(digest, manifest).catch(error => {
      this.#onWarning(`${digest} is not shared: ${error instanceof Error ? error.message : String(error)}`)
    })
  }

  async #record(digest: Digest, size: number, manifest: Manifest | undefined): Promise<BlobRecord> {
    try {
      return await this.index.addBlob(digest, size, manifest)
    } catch (error) {
      // The file is there: at the next start the index learns of it.
      this.#onWarning(`the index cannot be written: ${error instanceof Error ? error.message : String(error)}`)
      return manifest ? { size, mediaType: manifest.mediaType } : { size }
    }
  }

  /** Drops a blob that is no longer as it was stored; undefined if somebody else did meanwhile. */
  async #drop(digest: Digest, problem: Loss['problem']): Promise<Loss | undefined> {
    // One at a time: a second move could take away what was stored anew.
    for (let other: Promise<boolean> | undefined; (other = this.#moving.get(digest)); ) await other.catch(() => {})
    const record = this.#blobs.get(digest)
    if (!record) return undefined
    // The file first: as long as the blob counts as held, nobody stores it anew under the same name.
    const moving = problem === 'missing' ? Promise.resolve(false) : this.#layout.quarantine(digest)
    this.#moving.set(digest, moving)
    let loss: Loss
    try {
      loss = { problem, quarantined: await moving }
    } finally {
      this.#moving.delete(digest)
    }
    if (this.#blobs.get(digest) !== record) return undefined
    const where = loss.quarantined ? ', and its file is in quarantine' : ''
    this.#onWarning(`${digest} ${problems[problem]}; it will be fetched again${where}`)
    for (const opened of this.#opened) {
      if (opened.digest !== digest) continue
      this.#opened.delete(opened)
      // A file without a name is still the one that was stored.
      if (problem !== 'missing') opened.fail(loss)
    }
    this.#forget(digest, record)
    await this.index.removeBlob(digest)
    return loss
  }

  /** Holds a blob no longer. */
  #forget(digest: Digest, record: BlobRecord): void {
    this.#blobs.delete(digest)
    this.#sound.delete(digest)
    this.#bytes -= record.size
    this.#manifestBytes -= this.#manifests.get(digest)?.bytes.length ?? 0
    this.#manifests.delete(digest)
    this.refs.dropped(digest)
    this.#tell(digest, 'dropped')
  }

  /** @throws NoRoomError; without what else goes wrong there can be a pull all the same */
  async #makeRoom(digest: Digest, size: number): Promise<void> {
    try {
      await this.#room?.make(digest, size)
    } catch (error) {
      if (error instanceof NoRoomError) throw error
      this.#onWarning(`making room failed: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  /** What fails that can be done without is told. */
  async #unless<T>(problem: string, done: Promise<T>): Promise<T | undefined> {
    try {
      return await done
    } catch (error) {
      this.#onWarning(`${problem}: ${error instanceof Error ? error.message : String(error)}`)
      return undefined
    }
  }

  /** Removes files of a digest; whoever wants to make new ones waits. */
  async #leave(digest: Digest, remove: () => Promise<void>): Promise<void> {
    const leaving = remove()
    this.#leaving.set(
      digest,
      leaving.catch(() => {}),
    )
    try {
      await leaving
    } finally {
      this.#leaving.delete(digest)
    }
  }

  /** Notes what a transfer that has ended left in its part file. */
  async #lookForPart(digest: Digest): Promise<void> {
    const size = await this.#disk.sizeOf(this.#layout.part(digest)).catch(() => undefined)
    if (size !== undefined && !this.#transfers.has(digest) && !this.#blobs.has(digest)) this.#parked.set(digest, size)
  }

  /** Puts right what the index has of a manifest, if that is not what its bytes say. */
  async #reindex(digest: Digest): Promise<void> {
    if (this.#blobs.get(digest)?.mediaType === undefined) return
    const held = await this.manifest(digest)
    const record = this.#blobs.get(digest)
    if (!held || !record) return
    const { manifest } = held
    if (record.mediaType === manifest.mediaType && isDeepStrictEqual(this.index.manifest(digest), manifest)) return
    this.#onWarning(`the index had something else of ${digest} than what it says; it has been put right`)
    await this.#relearn(digest, record.size, manifest)
  }

  /** Notes what a manifest says that is held as something else. */
  async #relearn(digest: Digest, size: number, manifest: Manifest): Promise<void> {
    this.#blobs.set(digest, await this.index.addBlob(digest, size, manifest))
    this.#learned(digest, manifest)
    this.#tell(digest, 'stored')
  }

  #remember(digest: Digest, held: HeldManifest): void {
    if (this.#manifests.has(digest)) return
    this.#manifests.set(digest, held)
    this.#manifestBytes += held.bytes.length
    for (const [oldest, { bytes }] of this.#manifests) {
      if (this.#manifestBytes <= manifestMemory) break
      this.#manifests.delete(oldest)
      this.#manifestBytes -= bytes.length
    }
  }
}

/** What is wrong, for the log. */
const problems: Record<Loss['problem'], string> = {
  missing: 'is gone from the data folder',
  length: 'has another length than when it was stored',
  bytes: 'no longer has the bytes that were stored',
  unreadable: 'cannot be read from the disk',
}

/** Whether the disk says that it cannot read its own. */
const isUnreadable = (error: unknown) => error instanceof Error && 'code' in error && error.code === 'EIO'

/** Thrown by the reader of a blob whose bytes are no longer what was stored. */
class RottenError extends Error {
  readonly code = 'ROTTEN'
  /** Undefined if somebody else found out before. */
  readonly loss: Loss | undefined

  constructor(message: string, loss: Loss | undefined) {
    super(message)
    this.loss = loss
  }
}

/** Who hears how the reading of an open file goes. */
type Inspection = {
  /** Whether a whole reading is to be hashed. */
  readonly due: boolean
  sound(): void
  rotten(): Promise<Loss | undefined>
  closed(): void
}

/**
 * An open file, and who reads it; the last one closes it. Disks rot: a reader that reads the whole hashes it on the way,
 * if that was not done since the store was opened, and does not give the end of it before it is known to match.
 */
class OpenBlob implements HeldBlob {
  readonly digest: Digest
  readonly size: number
  readonly #file: DiskFile
  readonly #inspection: Inspection
  #users = 1
  #loss: Loss | undefined

  constructor(digest: Digest, size: number, file: DiskFile, inspection: Inspection) {
    this.digest = digest
    this.size = size
    this.#file = file
    this.#inspection = inspection
  }

  read({ start, end }: ByteRange): Reader {
    this.#users++
    let position = start
    let cancelled = false
    const inspection = this.#inspection
    const hasher = inspection.due && start === 0 && end === this.size ? new DigestHasher(this.digest) : undefined
    const rotten = (loss: Loss | undefined) =>
      new RottenError(`${this.#file.path} no longer has the bytes that were stored`, loss)
    return {
      read: async buffer => {
        if (cancelled) throw new Error('the reader was cancelled')
        if (position === end) return 0
        const count = await this.#file.read(buffer, Math.min(buffer.length, end - position), position)
        if (this.#loss) throw rotten(this.#loss)
        if (count === 0) throw new Error(`${this.#file.path} became shorter while it was read`)
        position += count
        hasher?.update(buffer.subarray(0, count))
        if (hasher && position === end) {
          if (!hasher.matches()) throw rotten(await inspection.rotten())
          inspection.sound()
        }
        return count
      },
      cancel: () => {
        cancelled = true
      },
      close: () => this.close(),
    }
  }

  /** Breaks off who reads it. */
  fail(loss: Loss): void {
    this.#loss = loss
  }

  close(): void {
    if (--this.#users > 0) return
    this.#inspection.closed()
    this.#file.close().catch(() => {})
  }
}

async function readAll(blob: HeldBlob): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(blob.size)
  const reader = blob.read({ start: 0, end: blob.size })
  try {
    await fill(bytes, reader)
    return bytes
  } finally {
    reader.close()
  }
}

/** The index, which blobs it knows, and what tags were seen to be of images that have gone. */
type ReadIndex = {
  readonly index: Index
  readonly known: Map<Digest, BlobRecord>
  readonly remembered: ReadonlyMap<string, Sighting>
}

async function openIndex(layout: Layout, disk: Disk, onWarning: (message: string) => void): Promise<ReadIndex> {
  try {
    return await readIndex(layout)
  } catch (error) {
    if (!(error instanceof IndexError) || error.code !== 'INDEX_BROKEN') throw error
    for (const name of await disk.list(layout.indexFolder)) await disk.remove(join(layout.indexFolder, name))
    const anew = await readIndex(layout)
    onWarning(`${layout.indexFolder} cannot be read; it is made anew from the blobs`)
    return anew
  }
}

async function readIndex({ indexFolder }: Layout): Promise<ReadIndex> {
  const index = await Index.open(indexFolder)
  try {
    return { index, known: new Map(await index.blobs()), remembered: await index.remembered() }
  } catch (cause) {
    await index.close()
    throw new IndexError('INDEX_BROKEN', `${indexFolder} cannot be read`, { cause })
  }
}

async function reconcile(
  layout: Layout,
  disk: Disk,
  index: Index,
  known: Map<Digest, BlobRecord>,
): Promise<Map<Digest, BlobRecord>> {
  const found = new Map<Digest, BlobRecord>()
  for (const digest of await layout.blobs()) {
    const record = known.get(digest) ?? (await examine(layout, disk, index, digest))
    if (record) found.set(digest, record)
  }
  for (const [digest, { size }] of found) {
    if (known.has(digest) || size === (index.sizeOf(digest) ?? size)) continue
    // Either the file was cut off, or a manifest lies.
    if (await isSound(disk, layout.blob(digest), digest)) continue
    found.delete(digest)
    await index.removeBlob(digest)
    await layout.quarantine(digest)
  }
  for (const digest of known.keys()) if (!found.has(digest)) await index.removeBlob(digest)
  return found
}

/**
 * Adds a blob file to the index: its size, and what it points to if it looks like a manifest. One that is small enough
 * to be a manifest goes to quarantine if it is not what its name says.
 */
async function examine(layout: Layout, disk: Disk, index: Index, digest: Digest): Promise<BlobRecord | undefined> {
  const path = layout.blob(digest)
  const size = await disk.sizeOf(path)
  if (size === undefined) return undefined
  if (size > manifestLimit) return index.addBlob(digest, size, undefined)
  const bytes = await disk.readFile(path)
  if (digestOf(bytes, algorithmOf(digest)) === digest) return index.addBlob(digest, size, manifestIn(bytes))
  await layout.quarantine(digest)
  return undefined
}

/** Whether a file has a digest. */
async function isSound(disk: Disk, path: string, digest: Digest): Promise<boolean> {
  const file = await disk.open(path, 'read')
  try {
    const hasher = new DigestHasher(digest)
    const buffer = Buffer.allocUnsafe(1024 * 1024)
    for (
      let position = 0, count: number;
      (count = await file.read(buffer, buffer.length, position)) > 0;
      position += count
    )
      hasher.update(buffer.subarray(0, count))
    return hasher.matches()
  } finally {
    await file.close()
  }
}

function manifestIn(bytes: Buffer, contentType?: string): Manifest | undefined {
  try {
    return parseManifest(bytes, contentType)
  } catch (error) {
    if (error instanceof ManifestError) return undefined
    throw error
  }
}

/**
 * The lengths in bytes of the parts that transfers can go on from. Removes parts of what is held, or that nothing is
 * known of, and files that a replacement left when it was cut off.
 */
async function parkedParts(
  layout: Layout,
  disk: Disk,
  blobs: ReadonlyMap<Digest, BlobRecord>,
): Promise<Map<Digest, number>> {
  const names = await disk.list(layout.ingestFolder)
  const present = new Set(names)
  const parked = new Map<Digest, number>()
  for (const name of names) {
    const loose = name.endsWith('.part')
      ? !present.has(name.replace(/part$/, 'json'))
      : name.endsWith('.new') || !present.has(name.replace(/json$/, 'part'))
    const digest = name.replace('-', ':').replace(/\.[a-z]+$/, '') as Digest
    const path = join(layout.ingestFolder, name)
    if (loose || blobs.has(digest)) await disk.remove(path)
    else if (name.endsWith('.part')) parked.set(digest, (await disk.sizeOf(path)) ?? 0)
  }
  return parked
}
