import { join } from 'node:path'
import type { ByteRange } from '@shoal/oci/byte-range'
import { algorithmOf, type Digest, DigestHasher, digestOf } from '@shoal/oci/digest'
import { type Manifest, ManifestError, manifestLimit, parseManifest } from '@shoal/oci/manifest'
import { type Disk, type DiskFile, isAbsent, nodeDisk } from './disk.ts'
import { type BlobRecord, Index, IndexError } from './index.ts'
import { Ingest } from './ingest.ts'
import { Layout } from './layout.ts'
import type { Reader } from './reader.ts'
import { Refs } from './refs.ts'
import { Transfer } from './transfer.ts'
import { Visibilities } from './visibility.ts'

/** Manifests that are kept in memory, in bytes. */
const manifestMemory = 32 * 1024 * 1024

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

export type StoreOptions = {
  readonly folder: string
  /** @default the real disk */
  readonly disk?: Disk
  /** Told of what went wrong but did not stop the store. */
  readonly onWarning: (message: string) => void
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
  readonly #manifests = new Map<Digest, HeldManifest>()
  readonly #onWarning: (message: string) => void
  #manifestBytes = 0
  #bytes = 0

  private constructor(
    { disk = nodeDisk, onWarning }: StoreOptions,
    { layout, index, refs, blobs }: { layout: Layout; index: Index; refs: Refs; blobs: Map<Digest, BlobRecord> },
  ) {
    this.#disk = disk
    this.#layout = layout
    this.#blobs = blobs
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
      await removeLooseParts(layout, disk)
      const refs = await Refs.open(
        layout.indexFile,
        disk,
        digest => blobs.has(digest),
        error => onWarning(error.message),
      )
      return new Store(options, { layout, index, refs, blobs })
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

  /** Opens a blob that is held; undefined if it is not, or no longer as it should be. */
  async open(digest: Digest): Promise<HeldBlob | undefined> {
    const record = this.#blobs.get(digest)
    if (!record) return undefined
    let file: DiskFile
    try {
      file = await this.#disk.open(this.#layout.blob(digest), 'read')
    } catch (error) {
      if (!isAbsent(error)) throw error
      await this.#drop(digest, 'is gone from the data folder')
      return undefined
    }
    try {
      if ((await file.size()) === record.size) return new OpenBlob(digest, record.size, file, this.#inspection(digest))
    } catch (error) {
      await file.close()
      throw error
    }
    await file.close()
    await this.#drop(digest, 'has another length than when it was stored')
    return undefined
  }

  /** What the first whole reading of a blob is to find out; undefined if its bytes are known to be sound. */
  #inspection(digest: Digest): Inspection | undefined {
    if (this.#sound.has(digest)) return undefined
    return {
      sound: () => void this.#sound.add(digest),
      rotten: () => this.#drop(digest, 'no longer has the bytes that were stored'),
    }
  }

  /** A manifest that is held; undefined if it is not, or is no manifest. */
  async manifest(digest: Digest): Promise<HeldManifest | undefined> {
    const hot = this.#manifests.get(digest)
    if (hot) {
      this.#manifests.delete(digest)
      this.#manifests.set(digest, hot)
      return hot
    }
    const record = this.#blobs.get(digest)
    if (!record || record.size > manifestLimit) return undefined
    const blob = await this.open(digest)
    if (!blob) return undefined
    try {
      const bytes = await readAll(blob)
      const held = { bytes, manifest: parseManifest(bytes, record.mediaType) }
      // It may have come as a blob, for all that was known then.
      if (record.mediaType === undefined)
        this.#blobs.set(digest, await this.index.addBlob(digest, record.size, held.manifest))
      this.#remember(digest, held)
      return held
    } catch (error) {
      if (error instanceof ManifestError || error instanceof RottenError) return undefined
      throw error
    } finally {
      blob.close()
    }
  }

  /** The transfer of a blob that is under way. */
  transfer(digest: Digest): Transfer | undefined {
    return this.#transfers.get(digest)
  }

  /** Begins the transfer of a blob. There must be none. */
  begin(digest: Digest): Transfer {
    const transfer = new Transfer(digest, size => Ingest.open(this.#disk, this.#layout, digest, size))
    this.#transfers.set(digest, transfer)
    void transfer.settled.then(() => this.#transfers.delete(digest))
    return transfer
  }

  /**
   * Checks a complete transfer; if its digest matches, the blob is held from here on.
   * @param contentType what the registry called it, if it is a manifest
   */
  async verify(transfer: Transfer, contentType?: string): Promise<{ matches: boolean; resumed: boolean }> {
    const { digest, size } = transfer
    return transfer.verify(async () => {
      await this.#add(digest, size!, contentType)
    })
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
    await this.refs.flush()
    await this.index.close()
  }

  async #add(digest: Digest, size: number, contentType: string | undefined): Promise<void> {
    let manifest: Manifest | undefined
    if (contentType !== undefined && size <= manifestLimit) {
      const bytes = await this.#disk.readFile(this.#layout.blob(digest))
      manifest = manifestIn(bytes, contentType)
      if (manifest) this.#remember(digest, { bytes, manifest })
    }
    this.#sound.add(digest)
    if (!this.#blobs.has(digest)) this.#bytes += size
    this.#blobs.set(digest, await this.index.addBlob(digest, size, manifest))
    this.refs.stored(digest)
  }

  async #drop(digest: Digest, why: string): Promise<void> {
    const record = this.#blobs.get(digest)
    if (!record) return
    // The file first: as long as the blob counts as held, nobody stores it anew under the same name.
    await this.#disk.remove(this.#layout.blob(digest))
    if (this.#blobs.get(digest) !== record) return
    this.#onWarning(`${digest} ${why}; it will be fetched again`)
    this.#blobs.delete(digest)
    this.#bytes -= record.size
    this.#manifestBytes -= this.#manifests.get(digest)?.bytes.length ?? 0
    this.#manifests.delete(digest)
    this.refs.dropped(digest)
    await this.index.removeBlob(digest)
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

/** Thrown by the reader of a blob whose bytes are no longer what was stored. */
class RottenError extends Error {
  readonly code = 'ROTTEN'
}

type Inspection = { sound(): void; rotten(): Promise<void> }

/**
 * An open file, and who reads it; the last one closes it. Disks rot: a reader that reads the whole hashes it on the way,
 * if that was not done since the store was opened, and does not give the end of it before it is known to match.
 */
class OpenBlob implements HeldBlob {
  readonly digest: Digest
  readonly size: number
  readonly #file: DiskFile
  readonly #inspection: Inspection | undefined
  #users = 1

  constructor(digest: Digest, size: number, file: DiskFile, inspection: Inspection | undefined) {
    this.digest = digest
    this.size = size
    this.#file = file
    this.#inspection = inspection
  }

  read({ start, end }: ByteRange): Reader {
    this.#users++
    let position = start
    let cancelled = false
    const inspection = start === 0 && end === this.size ? this.#inspection : undefined
    const hasher = inspection && new DigestHasher(this.digest)
    return {
      read: async buffer => {
        if (cancelled) throw new Error('the reader was cancelled')
        if (position === end) return 0
        const count = await this.#file.read(buffer, Math.min(buffer.length, end - position), position)
        if (count === 0) throw new Error(`${this.#file.path} became shorter while it was read`)
        position += count
        hasher?.update(buffer.subarray(0, count))
        if (hasher && position === end) {
          if (!hasher.matches()) {
            await inspection.rotten()
            throw new RottenError(`${this.#file.path} no longer has the bytes that were stored`)
          }
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

  close(): void {
    if (--this.#users === 0) this.#file.close().catch(() => {})
  }
}

async function readAll(blob: HeldBlob): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(blob.size)
  const reader = blob.read({ start: 0, end: blob.size })
  try {
    for (let filled = 0, count: number; (count = await reader.read(bytes.subarray(filled))) > 0; ) filled += count
    return bytes
  } finally {
    reader.close()
  }
}

/** Opens the index, and reads which blobs it knows. */
async function openIndex(
  layout: Layout,
  disk: Disk,
  onWarning: (message: string) => void,
): Promise<{ index: Index; known: Map<Digest, BlobRecord> }> {
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

async function readIndex({ indexFolder }: Layout): Promise<{ index: Index; known: Map<Digest, BlobRecord> }> {
  const index = await Index.open(indexFolder)
  try {
    return { index, known: new Map(await index.blobs()) }
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
    await disk.remove(layout.blob(digest))
  }
  for (const digest of known.keys()) if (!found.has(digest)) await index.removeBlob(digest)
  return found
}

/**
 * Adds a blob file to the index: its size, and what it points to if it looks like a manifest. One that is small enough
 * to be a manifest is removed if it is not what its name says.
 */
async function examine(layout: Layout, disk: Disk, index: Index, digest: Digest): Promise<BlobRecord | undefined> {
  const path = layout.blob(digest)
  const size = await disk.sizeOf(path)
  if (size === undefined) return undefined
  if (size > manifestLimit) return index.addBlob(digest, size, undefined)
  const bytes = await disk.readFile(path)
  if (digestOf(bytes, algorithmOf(digest)) === digest) return index.addBlob(digest, size, manifestIn(bytes))
  await disk.remove(path)
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

/** Removes parts that nothing is known of, and files that a replacement left when it was cut off. */
async function removeLooseParts(layout: Layout, disk: Disk): Promise<void> {
  const names = await disk.list(layout.ingestFolder)
  const present = new Set(names)
  for (const name of names) {
    const loose = name.endsWith('.part')
      ? !present.has(name.replace(/part$/, 'json'))
      : name.endsWith('.new') || !present.has(name.replace(/json$/, 'part'))
    if (loose) await disk.remove(join(layout.ingestFolder, name))
  }
}
