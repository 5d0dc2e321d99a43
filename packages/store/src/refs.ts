import type { Digest } from '@shoal/oci/digest'
import { isDigest } from '@shoal/oci/digest'
import type { Descriptor } from '@shoal/oci/manifest'
import { formatName, type Name } from '@shoal/oci/name'
import { formatReference, parseReference } from '@shoal/oci/reference'
import type { Disk } from './disk.ts'
import type { Visibility } from './index.ts'

/** What a tag was seen to be: of which content, when (ms since the epoch), and which host said so. */
export type Sighting = {
  readonly descriptor: Descriptor
  readonly at: number
  readonly from: string
  readonly visibility: Visibility
}

/** A tag as it stands in `index.json`. */
export type Tag = { readonly name: Name; readonly tag: string; readonly sighting: Sighting }

/** Annotations of the entries in `index.json`; docs/storage.md. */
const annotations = {
  reference: 'org.opencontainers.image.ref.name',
  seenAt: 'dev.shoal.seen.at',
  seenFrom: 'dev.shoal.seen.from',
  visibility: 'dev.shoal.visibility',
} as const

type Entry = Descriptor & { readonly annotations?: Readonly<Record<string, string>> }

/** How long a change may wait for others before it is written, in ms. */
const writeDelay = 1000

/**
 * Tags, and what they were last seen to be. `index.json` is the truth for them: it lists those whose manifest is held.
 * What is newer, but not held yet, is only remembered, so that a tag never points at content that is not here.
 */
export class Refs {
  readonly #path: string
  readonly #disk: Disk
  readonly #holds: (digest: Digest) => boolean
  readonly #onError: (error: Error) => void
  /** The last sighting of each tag. */
  readonly #seen = new Map<string, Sighting>()
  /** The last sighting of each tag whose manifest is held. */
  readonly #held = new Map<string, Sighting>()
  /** Entries that others wrote; they are kept as they are. */
  #foreign: unknown[] = []
  #timer: NodeJS.Timeout | undefined
  /** Whether there is something that is not written. */
  #changed = false
  #writing: Promise<void> = Promise.resolve()

  private constructor(path: string, disk: Disk, holds: (digest: Digest) => boolean, onError: (error: Error) => void) {
    this.#path = path
    this.#disk = disk
    this.#holds = holds
    this.#onError = onError
  }

  /**
   * Reads `index.json`, and sets one aside that cannot be read.
   * @param holds whether the store has a manifest
   * @param onError told of an unreadable file, and of a write that failed
   */
  static async open(
    path: string,
    disk: Disk,
    holds: (digest: Digest) => boolean,
    onError: (error: Error) => void,
  ): Promise<Refs> {
    const refs = new Refs(path, disk, holds, onError)
    if ((await disk.sizeOf(path)) === undefined) refs.#change()
    else {
      try {
        refs.#load(JSON.parse((await disk.readFile(path)).toString()))
      } catch (cause) {
        const aside = `${path}.unreadable`
        await disk.rename(path, aside)
        onError(new Error(`${path} cannot be read, so no tag is known; it was moved to ${aside}`, { cause }))
        refs.#change()
      }
    }
    await refs.flush()
    return refs
  }

  /** What the tag was last seen to be. */
  seen(name: Name, tag: string): Sighting | undefined {
    return this.#seen.get(formatReference({ name, tag }))
  }

  /** The newest of what the tag was seen to be whose manifest is held. */
  held(name: Name, tag: string): Sighting | undefined {
    return this.#held.get(formatReference({ name, tag }))
  }

  see(name: Name, tag: string, sighting: Sighting): void {
    const key = formatReference({ name, tag })
    this.#seen.set(key, sighting)
    if (this.#holds(sighting.descriptor.digest)) this.#hold(key, sighting)
  }

  /** Tells that the store now holds a manifest: tags that were seen to be it hold. */
  stored(digest: Digest): void {
    for (const [key, sighting] of this.#seen) if (sighting.descriptor.digest === digest) this.#hold(key, sighting)
  }

  /** Tells that the store no longer has a manifest: no tag of `index.json` may point to it. */
  dropped(digest: Digest): void {
    for (const [key, sighting] of this.#held)
      if (sighting.descriptor.digest === digest) {
        this.#held.delete(key)
        this.#change()
      }
  }

  /** Tells that a manifest is public under a name: so are the tags of that name that were seen to be it. */
  published(name: Name, digest: Digest): void {
    for (const [key, sighting] of this.#seen)
      if (sighting.visibility === 'private' && sighting.descriptor.digest === digest && isTagOf(key, name))
        this.#seen.set(key, { ...sighting, visibility: 'public' })
    for (const [key, sighting] of this.#held)
      if (sighting.visibility === 'private' && sighting.descriptor.digest === digest && isTagOf(key, name))
        this.#hold(key, { ...sighting, visibility: 'public' })
  }

  /** Whether a tag of a repository is known to be public. */
  isPublic(name: Name): boolean {
    for (const [key, { visibility }] of this.#seen) if (visibility === 'public' && isTagOf(key, name)) return true
    return false
  }

  /** Forgets a tag. Its content stays. */
  remove(name: Name, tag: string): void {
    const key = formatReference({ name, tag })
    this.#seen.delete(key)
    if (this.#held.delete(key)) this.#change()
  }

  /** The tags whose manifest is held, by name. */
  list(): Tag[] {
    return [...this.#held]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([key, sighting]) => {
        const { name, tag } = parseReference(key)
        return tag === undefined ? [] : [{ name, tag, sighting }]
      })
  }

  /** Writes what has changed, so that it survives power loss. What fails is written with the next change or flush. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    await this.#writing
  }

  #hold(key: string, sighting: Sighting): void {
    const before = this.#held.get(key)
    if (
      before?.descriptor.digest === sighting.descriptor.digest &&
      before.at === sighting.at &&
      before.visibility === sighting.visibility
    )
      return
    this.#held.set(key, sighting)
    this.#change()
  }

  #change(): void {
    this.#changed = true
    this.#timer ??= setTimeout(() => void this.flush(), writeDelay)
  }

  #load(document: unknown): void {
    if (typeof document !== 'object' || document === null || !('manifests' in document)) throw new Error('no index')
    if (!Array.isArray(document.manifests)) throw new Error('no list of manifests')
    for (const entry of document.manifests) {
      const tag = tagOf(entry)
      if (!tag) this.#foreign.push(entry)
      else if (this.#holds(tag.sighting.descriptor.digest)) {
        const key = formatReference({ name: tag.name, tag: tag.tag })
        this.#held.set(key, tag.sighting)
        this.#seen.set(key, tag.sighting)
      }
    }
  }

  /** Never rejects. */
  async #write(): Promise<void> {
    if (!this.#changed) return
    this.#changed = false
    try {
      await this.#disk.replaceFile(this.#path, this.#document())
    } catch (error) {
      this.#changed = true
      this.#onError(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #document(): string {
    const entries = [...this.#held].map(([reference, { descriptor, at, from, visibility }]): Entry => {
      return {
        mediaType: descriptor.mediaType,
        digest: descriptor.digest,
        size: descriptor.size,
        annotations: {
          [annotations.reference]: reference,
          [annotations.seenAt]: new Date(at).toISOString(),
          [annotations.seenFrom]: from,
          [annotations.visibility]: visibility,
        },
      }
    })
    const index = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [...entries, ...this.#foreign],
    }
    return `${JSON.stringify(index, null, 1)}\n`
  }
}

/** Whether a reference with a tag, as {@link formatReference} writes it, is one of a repository. */
function isTagOf(reference: string, name: Name): boolean {
  const repository = formatName(name)
  return reference.startsWith(repository) && reference[repository.length] === ':'
}

/** The tag that an entry of `index.json` stands for, if it is one that Shoal wrote. */
function tagOf(entry: unknown): Tag | undefined {
  if (typeof entry !== 'object' || entry === null || !('annotations' in entry)) return undefined
  const { mediaType, digest, size, annotations: notes } = entry as Partial<Record<keyof Entry, unknown>>
  if (typeof notes !== 'object' || notes === null) return undefined
  const note = notes as Readonly<Record<string, unknown>>
  const [reference, seenAt, from] = [note[annotations.reference], note[annotations.seenAt], note[annotations.seenFrom]]
  const at = typeof seenAt === 'string' ? Date.parse(seenAt) : Number.NaN
  if (typeof reference !== 'string' || typeof from !== 'string' || Number.isNaN(at)) return undefined
  if (typeof mediaType !== 'string' || typeof digest !== 'string' || !isDigest(digest)) return undefined
  if (typeof size !== 'number') return undefined
  try {
    const { name, tag } = parseReference(reference)
    const visibility = note[annotations.visibility] === 'public' ? 'public' : 'private'
    return tag === undefined
      ? undefined
      : { name, tag, sighting: { descriptor: { mediaType, digest, size }, at, from, visibility } }
  } catch {
    return undefined
  }
}
