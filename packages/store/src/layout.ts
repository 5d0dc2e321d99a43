import { dirname, join } from 'node:path'
import { algorithmOf, type Digest, type DigestAlgorithm, hexOf } from '@shoal/oci/digest'
import { type Disk, isAbsent } from './disk.ts'

const algorithms: readonly DigestAlgorithm[] = ['sha256', 'sha512']

/**
 * Where things are in the data folder: an OCI image layout (OCI image-spec 1.1, image-layout.md), and beside it
 * `ingest/` for what is still arriving, `index/` for Level, and `quarantine/` once something has rotten.
 */
export class Layout {
  readonly root: string
  readonly #disk: Disk

  private constructor(root: string, disk: Disk) {
    this.root = root
    this.#disk = disk
  }

  /** Makes the folders that are missing. */
  static async open(root: string, disk: Disk): Promise<Layout> {
    const layout = new Layout(root, disk)
    // What was pulled with credentials is nobody else's.
    await disk.makeFolder(dirname(root))
    await disk.makeFolder(root, 0o700)
    for (const algorithm of algorithms) await disk.makeFolder(layout.blobFolder(algorithm))
    await disk.makeFolder(layout.ingestFolder)
    const marker = join(root, 'oci-layout')
    if ((await disk.sizeOf(marker)) === undefined)
      await disk.replaceFile(marker, `${JSON.stringify({ imageLayoutVersion: '1.0.0' })}\n`)
    return layout
  }

  get indexFile(): string {
    return join(this.root, 'index.json')
  }

  get indexFolder(): string {
    return join(this.root, 'index')
  }

  get ingestFolder(): string {
    return join(this.root, 'ingest')
  }

  blobFolder(algorithm: DigestAlgorithm): string {
    return join(this.root, 'blobs', algorithm)
  }

  blob(digest: Digest): string {
    return join(this.blobFolder(algorithmOf(digest)), hexOf(digest))
  }

  /** The bytes of a blob that is still arriving. */
  part(digest: Digest): string {
    return join(this.ingestFolder, `${algorithmOf(digest)}-${hexOf(digest)}.part`)
  }

  /** What a part file is known to hold; see docs/storage.md. */
  partState(digest: Digest): string {
    return join(this.ingestFolder, `${algorithmOf(digest)}-${hexOf(digest)}.json`)
  }

  get quarantineFolder(): string {
    return join(this.root, 'quarantine')
  }

  /** Where the file of a blob goes whose bytes are no longer those of its digest. */
  quarantined(digest: Digest): string {
    return join(this.quarantineFolder, `${algorithmOf(digest)}-${hexOf(digest)}`)
  }

  /**
   * Moves a blob's file to quarantine, over one that is there from before, so that it stays there after power loss.
   * Who has it open reads on. If it cannot be moved it is removed: it must not keep its name.
   * @returns whether it is in quarantine; false also if there was no file
   */
  async quarantine(digest: Digest): Promise<boolean> {
    const [from, to] = [this.blob(digest), this.quarantined(digest)]
    try {
      await this.#disk.makeFolder(dirname(to))
      await this.#disk.rename(from, to)
    } catch (error) {
      if (!isAbsent(error)) await this.#disk.remove(from)
      return false
    }
    for (const folder of [this.root, dirname(to), dirname(from)]) await this.#disk.syncFolder(folder)
    return true
  }

  /** The digests that blob files are named after. */
  async blobs(): Promise<Digest[]> {
    const found: Digest[] = []
    for (const algorithm of algorithms) {
      const length = algorithm === 'sha256' ? 64 : 128
      for (const name of await this.#disk.list(this.blobFolder(algorithm)))
        if (name.length === length && /^[0-9a-f]+$/.test(name)) found.push(`${algorithm}:${name}` as Digest)
    }
    return found
  }
}
