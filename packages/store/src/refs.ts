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

/** An image that is to stay, by the reference that it was pinned by. `at` in ms since the epoch. */
export type Pin = { readonly reference: string; readonly descriptor: Descriptor; readonly at: number }

/** Annotations of the entries in `index.json`; docs/storage.md. */
const annotations = {
  reference: 'org.opencontainers.image.ref.name',
  seenAt: 'dev.shoal.seen.at',
  seenFrom: 'dev.shoal.seen.from',
  visibility: 'dev.shoal.visibility',
  pinned: 'dev.shoal.pinned',
  pinnedAt: 'dev.shoal.pinned.at',
} as const

type Entry = Descriptor & { readonly annotations?: Readonly<Record<string, string>> }

/** How long a change may wait for others before it is written, in ms. */
const writeDelay = 1000

export type RefsOptions = {
  /** Of `index.json`. */
  readonly path: string
  readonly disk: Disk
  /** Whether the store has a manifest. */
  readonly holds: (digest: Digest) => boolean
  /** Told of an unreadable file, and of a write that failed. */
  readonly onError: (error: Error) => void
  /** Told of a tag that is forgotten, by its whole reference. */
  readonly onRemoved: (reference: string) => void
}

/**
 * Tags, and what they were last seen to be. `index.json` is the truth for them: it lists those whose manifest is held.
 * What is newer, but not held yet, is only remembered, so that a tag never points at content that is not here.
 */
export class Refs {
  readonly #path: string
  readonly #disk: Disk
  readonly #holds: (digest: Digest) => boolean
  readonly #onError: (error: Error) => void
  readonly #onRemoved: (reference: string) => void
  /** The last sighting of each tag. */
  readonly #seen = new Map<string, Sighting>()
  /** The last sighting of each tag whose manifest is held. */
  readonly #held = new Map<string, Sighting>()
  readonly #pins = new Map<string, Pin>()
  /** Entries that others wrote; they are kept as they are. */
  #foreign: unknown[] = []
  /** As of the last change of these. */
  #kept: ReadonlySet<Digest> | undefined
  #timer: NodeJS.Timeout | undefined
  /** Whether there is something that is not written. */
  #changed = false
  /** Why the last writing failed. */
  #failure: Error | undefined
  #writing: Promise<void> = Promise.resolve()

  private constructor({ path, disk, holds, onError, onRemoved }: RefsOptions) {
    this.#path = path
    this.#disk = disk
    this.#holds = holds
    this.#onError = onError
    this.#onRemoved = onRemoved
  }

  /** Reads `index.json`, and sets one aside that cannot be read. */
  static async open(options: RefsOptions): Promise<Refs> {
    const { path, disk, onError } = options
    const refs = new Refs(options)
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
    if (this.#seen.delete(key)) this.#onRemoved(key)
    if (this.#held.delete(key)) this.#change()
  }

  /** What a tag was seen to be before its image went, by its whole reference; what is known better stays. */
  remember(reference: string, sighting: Sighting): void {
    if ((this.#seen.get(reference)?.at ?? Number.NEGATIVE_INFINITY) < sighting.at) this.#seen.set(reference, sighting)
  }

  /** What a tag was last seen to be, and what of it is held, by its whole reference. */
  digestsOf(reference: string): readonly Digest[] {
    const seen = this.#seen.get(reference)?.descriptor.digest
    const held = this.#held.get(reference)?.descriptor.digest
    return [...(seen ? [seen] : []), ...(held && held !== seen ? [held] : [])]
  }

  /** The tags that are a manifest which is held, by their whole references. */
  sightingsOf(digest: Digest): [reference: string, sighting: Sighting][] {
    return [...this.#held].filter(([, { descriptor }]) => descriptor.digest === digest)
  }

  /** The same of all manifests that are held and have one. */
  tagsByDigest(): Map<Digest, string[]> {
    const tags = new Map<Digest, string[]>()
    for (const [reference, { descriptor }] of this.#held) {
      const known = tags.get(descriptor.digest)
      if (known) known.push(reference)
      else tags.set(descriptor.digest, [reference])
    }
    return tags
  }

  /** What is to stay, by reference. */
  get pins(): readonly Pin[] {
    return [...this.#pins.values()].sort((a, b) => (a.reference < b.reference ? -1 : 1))
  }

  /** The digests of what is to stay: what is pinned, and what others have written entries for. */
  get kept(): ReadonlySet<Digest> {
    this.#kept ??= new Set([
      ...this.pins.map(({ descriptor }) => descriptor.digest),
      ...this.#foreign.flatMap(entry => digestIn(entry) ?? []),
    ])
    return this.#kept
  }

  /** Has an image stay; survives power loss once it resolves. @throws if it cannot be written */
  async pin(pin: Pin): Promise<void> {
    this.#pins.set(pin.reference, pin)
    this.#kept = undefined
    await this.#writeNow()
  }

  /** @returns whether it was pinned; see {@link pin} */
  async unpin(reference: string): Promise<boolean> {
    if (!this.#pins.delete(reference)) return false
    this.#kept = undefined
    await this.#writeNow()
    return true
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

  async #writeNow(): Promise<void> {
    this.#changed = true
    await this.flush()
    if (this.#failure) throw this.#failure
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
      const pin = pinOf(entry)
      if (pin) this.#pins.set(pin.reference, pin)
      else if (!tag) this.#foreign.push(entry)
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
    this.#failure = undefined
    try {
      await this.#disk.replaceFile(this.#path, this.#document())
    } catch (error) {
      this.#changed = true
      this.#failure = error instanceof Error ? error : new Error(String(error))
      this.#onError(this.#failure)
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
    const pins = this.pins.map(({ reference, descriptor, at }): Entry => {
      const { mediaType, digest, size } = descriptor
      const notes = { [annotations.pinned]: reference, [annotations.pinnedAt]: new Date(at).toISOString() }
      return { mediaType, digest, size, annotations: notes }
    })
    const index = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [...entries, ...pins, ...this.#foreign],
    }
    return `${JSON.stringify(index, null, 1)}\n`
  }
}

/** What an entry is of that others wrote. */
function digestIn(entry: unknown): Digest | undefined {
  const digest: unknown = typeof entry === 'object' && entry !== null && 'digest' in entry ? entry.digest : undefined
  return typeof digest === 'string' && isDigest(digest) ? digest : undefined
}

/** Whether a reference with a tag, as {@link formatReference} writes it, is one of a repository. */
function isTagOf(reference: string, name: Name): boolean {
  const repository = formatName(name)
  return reference.startsWith(repository) && reference[repository.length] === ':'
}

/** An entry that has annotations, of an image that can be held. */
function readEntry(
  entry: unknown,
): { readonly descriptor: Descriptor; readonly note: Readonly<Record<string, unknown>> } | undefined {
  if (typeof entry !== 'object' || entry === null || !('annotations' in entry)) return undefined
  const { mediaType, digest, size, annotations: notes } = entry as Partial<Record<keyof Entry, unknown>>
  if (typeof notes !== 'object' || notes === null || typeof size !== 'number') return undefined
  if (typeof mediaType !== 'string' || typeof digest !== 'string' || !isDigest(digest)) return undefined
  return { descriptor: { mediaType, digest, size }, note: notes as Readonly<Record<string, unknown>> }
}

/** The tag that an entry of `index.json` stands for, if it is one that Shoal wrote. */
function tagOf(entry: unknown): Tag | undefined {
  const { descriptor, note = {} } = readEntry(entry) ?? {}
  const [reference, seenAt, from] = [note[annotations.reference], note[annotations.seenAt], note[annotations.seenFrom]]
  const at = typeof seenAt === 'string' ? Date.parse(seenAt) : Number.NaN
  if (!descriptor || typeof reference !== 'string' || typeof from !== 'string' || Number.isNaN(at)) return undefined
  try {
    const { name, tag } = parseReference(reference)
    const visibility = note[annotations.visibility] === 'public' ? 'public' : 'private'
    return tag === undefined ? undefined : { name, tag, sighting: { descriptor, at, from, visibility } }
  } catch {
    return undefined
  }
}

/** The pin that it stands for. */
function pinOf(entry: unknown): Pin | undefined {
  const { descriptor, note = {} } = readEntry(entry) ?? {}
  const [reference, pinnedAt] = [note[annotations.pinned], note[annotations.pinnedAt]]
  const at = typeof pinnedAt === 'string' ? Date.parse(pinnedAt) : Number.NaN
  if (!descriptor || typeof reference !== 'string' || Number.isNaN(at)) return undefined
  return { reference, descriptor, at }
}
