import type { Digest } from '@shoal/oci/digest'
import { childrenOf, type Descriptor, type Manifest } from '@shoal/oci/manifest'
import { formatName, type Name, parseName } from '@shoal/oci/name'
import type { Row } from '@shoal/retention/popularity'
import { Level } from 'level'
import type { Sighting } from './refs.ts'

/** What is known of a stored blob. `size` in bytes; `mediaType` if it is a manifest: the type it is served with. */
export type BlobRecord = { readonly size: number; readonly mediaType?: string }

/** A registry's answer that is kept for when the registry is out of reach. `at` in ms since the epoch. */
export type Listing = {
  readonly body: string
  readonly link?: string
  readonly filters?: string
  readonly at: number
}

/** How often images were pulled on a machine, and when that was heard of last (ms since the epoch). */
export type Popular = { readonly at: number; readonly rows: readonly Row[] }

type IndexErrorCode = 'LOCKED' | 'INDEX_CLOSED' | 'INDEX_BROKEN'

/**
 * Thrown when the index cannot be opened: `LOCKED` by another process, `INDEX_CLOSED` to this one (permissions, a full
 * disk), `INDEX_BROKEN` if what is there cannot be read.
 */
export class IndexError extends Error {
  readonly code: IndexErrorCode

  constructor(code: IndexErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** How many listings are kept at least, and how often the oldest beyond that go. */
const mostListings = 500
const listingsBetweenPrunes = 50

/** How many tags are remembered whose image is not held any more. */
const mostRemembered = 2000

/** In characters. */
const longestListing = 1024 * 1024

/** Stands for the size of a digest that manifests give different sizes for. */
const contested = -1

/**
 * What can be computed again, or done without: sizes, manifests' links, whose content a digest is, answers kept for
 * offline, how often images were pulled. In Level; its lock also keeps a second daemon out of the data folder.
 */
export class Index {
  readonly #level: Level<string, unknown>
  readonly #blobs: ReturnType<typeof sublevel<BlobRecord>>
  readonly #manifests: ReturnType<typeof sublevel<Manifest>>
  readonly #sizes: ReturnType<typeof sublevel<number>>
  readonly #owners: ReturnType<typeof sublevel<Standing>>
  readonly #listings: ReturnType<typeof sublevel<Listing>>
  readonly #remembered: ReturnType<typeof sublevel<Sighting>>
  readonly #popularity: ReturnType<typeof sublevel<Popular>>

  #listingsAdded = 0

  private constructor(level: Level<string, unknown>) {
    this.#level = level
    this.#blobs = sublevel<BlobRecord>(level, 'blobs')
    this.#manifests = sublevel<Manifest>(level, 'manifests')
    this.#sizes = sublevel<number>(level, 'sizes')
    this.#owners = sublevel<Standing>(level, 'owners')
    this.#listings = sublevel<Listing>(level, 'listings')
    this.#remembered = sublevel<Sighting>(level, 'remembered')
    this.#popularity = sublevel<Popular>(level, 'popularity')
  }

  /** @throws IndexError */
  static async open(folder: string): Promise<Index> {
    const level = new Level<string, unknown>(folder, { valueEncoding: 'json' })
    try {
      await level.open()
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined
      if (cause instanceof Error && 'code' in cause && cause.code === 'LEVEL_LOCKED')
        throw new IndexError('LOCKED', `${folder} is open in another process`, { cause })
      const reason = cause instanceof Error ? cause.message : String(error)
      const code = /permission|denied|read-only|no space|too many open/i.test(reason) ? 'INDEX_CLOSED' : 'INDEX_BROKEN'
      throw new IndexError(code, `${folder} cannot be opened: ${reason}`, { cause: error })
    }
    const index = new Index(level)
    // Each opens by itself, and until then could not be read at once.
    for (const part of [index.#blobs, index.#manifests, index.#sizes, index.#owners]) await part.open()
    for (const part of [index.#listings, index.#remembered, index.#popularity]) await part.open()
    return index
  }

  close(): Promise<void> {
    return this.#level.close()
  }

  /** Every blob, in the order of digests. */
  async blobs(): Promise<[Digest, BlobRecord][]> {
    const found: [Digest, BlobRecord][] = []
    const iterator = this.#blobs.iterator()
    try {
      for (let batch: [string, BlobRecord][]; (batch = await iterator.nextv(10_000)).length > 0; )
        for (const [digest, record] of batch) found.push([digest as Digest, record])
    } finally {
      await iterator.close()
    }
    return found
  }

  /** Records a blob; if it is a manifest, also what it points to, and the sizes that it gives. */
  async addBlob(digest: Digest, size: number, manifest: Manifest | undefined): Promise<BlobRecord> {
    const record = manifest ? { size, mediaType: manifest.mediaType } : { size }
    const batch = this.#level.batch().put(digest, record, { sublevel: this.#blobs })
    if (manifest) {
      batch.put(digest, manifest, { sublevel: this.#manifests })
      for (const [child, size] of this.#agreedSizes(childrenOf(manifest)))
        batch.put(child, size, { sublevel: this.#sizes })
    }
    await batch.write()
    return record
  }

  async removeBlob(digest: Digest): Promise<void> {
    await this.#level.batch().del(digest, { sublevel: this.#blobs }).del(digest, { sublevel: this.#manifests }).write()
  }

  /** The same, and whose it was: it is gone for good, as far as is known. */
  async forgetBlob(digest: Digest): Promise<void> {
    const owners = await this.ownersOf(digest)
    const batch = this.#level.batch()
    for (const sublevel of [this.#blobs, this.#manifests, this.#sizes]) batch.del(digest, { sublevel })
    for (const { name } of owners) batch.del(ownerKey(name, digest), { sublevel: this.#owners })
    await batch.write()
  }

  /** Every manifest that is held, with what it points to; some at a time. */
  async *manifests(): AsyncGenerator<[Digest, Manifest][]> {
    const iterator = this.#manifests.iterator()
    try {
      for (let batch: [string, Manifest][]; (batch = await iterator.nextv(200)).length > 0; )
        yield batch.map(([digest, manifest]) => [digest as Digest, manifest])
    } finally {
      await iterator.close()
    }
  }

  /** A manifest that is held, without its bytes. */
  manifest(digest: Digest): Manifest | undefined {
    return this.#manifests.getSync(digest)
  }

  /** The size in bytes that the manifests here give for a digest; undefined if they don't agree. */
  sizeOf(digest: Digest): number | undefined {
    const size = this.#sizes.getSync(digest)
    return size === contested ? undefined : size
  }

  standing(name: Name, digest: Digest): Standing | undefined {
    return this.#owners.getSync(ownerKey(name, digest))
  }

  /** The names that a digest is known to be of, and how it stands under each. */
  async ownersOf(digest: Digest): Promise<{ name: Name; standing: Standing }[]> {
    const owners: { name: Name; standing: Standing }[] = []
    // The character after "@" ends the range.
    const iterator = this.#owners.iterator({ gte: `${digest}@`, lt: `${digest}A` })
    try {
      for (let batch: [string, Standing][]; (batch = await iterator.nextv(1000)).length > 0; )
        for (const [key, standing] of batch) {
          const slash = key.indexOf('/')
          owners.push({ name: parseName(key.slice(digest.length + 1, slash), key.slice(slash + 1)), standing })
        }
    } finally {
      await iterator.close()
    }
    return owners
  }

  /** Every digest that is known to be of a name, with the registry of that and how it stands there; some at a time. */
  async *owned(): AsyncGenerator<{ digest: string; registry: string; standing: Standing }[]> {
    const iterator = this.#owners.iterator()
    try {
      for (let batch: [string, Standing][]; (batch = await iterator.nextv(1000)).length > 0; )
        yield batch.map(([key, standing]) => {
          const at = key.indexOf('@')
          return { digest: key.slice(0, at), registry: key.slice(at + 1, key.indexOf('/', at)), standing }
        })
    } finally {
      await iterator.close()
    }
  }

  async setStanding(name: Name, digests: readonly Digest[], standing: Standing): Promise<void> {
    await this.#owners.batch(digests.map(digest => ({ type: 'put', key: ownerKey(name, digest), value: standing })))
  }

  /** Anybody can write a manifest that gives a wrong size for the layer of another's image. */
  #agreedSizes(descriptors: readonly Descriptor[]): Map<Digest, number> {
    const agreed = new Map<Digest, number>()
    for (const { digest, size } of descriptors) {
      const known = agreed.get(digest) ?? this.#sizes.getSync(digest) ?? size
      if (size >= 0) agreed.set(digest, known === size ? size : contested)
    }
    return agreed
  }

  /** What tags were seen to be whose image is not held any more, by their whole reference. The oldest go. */
  async remembered(): Promise<Map<string, Sighting>> {
    const all: [string, Sighting][] = []
    for await (const entry of this.#remembered.iterator()) all.push(entry)
    all.sort(([, a], [, b]) => b.at - a.at)
    for (const [reference] of all.splice(mostRemembered)) await this.#remembered.del(reference)
    return new Map(all)
  }

  async remember(reference: string, sighting: Sighting): Promise<void> {
    await this.#remembered.put(reference, sighting)
  }

  async forget(reference: string): Promise<void> {
    await this.#remembered.del(reference)
  }

  /** What was kept of the pulls on this machine, or on another one. */
  popularity(machine: string): Promise<Popular | undefined> {
    return this.#popularity.get(machine)
  }

  /** The machines that something is kept of. */
  popularMachines(): Promise<string[]> {
    return this.#popularity.keys().all()
  }

  /** @param popular undefined to forget it */
  async setPopularity(machine: string, popular: Popular | undefined): Promise<void> {
    if (popular) await this.#popularity.put(machine, popular)
    else await this.#popularity.del(machine)
  }

  listing(key: string): Promise<Listing | undefined> {
    return this.#listings.get(key)
  }

  /** Keeps the last {@link mostListings} or so; one that is longer than {@link longestListing} is not kept. */
  async setListing(key: string, listing: Listing): Promise<void> {
    if (listing.body.length > longestListing) return
    await this.#listings.put(key, listing)
    if (++this.#listingsAdded % listingsBetweenPrunes !== 0) return
    const ages: { key: string; at: number }[] = []
    for await (const [each, { at }] of this.#listings.iterator()) ages.push({ key: each, at })
    const excess = ages.sort((a, b) => a.at - b.at).slice(0, Math.max(ages.length - mostListings, 0))
    await this.#listings.batch(excess.map(({ key }) => ({ type: 'del', key })))
  }
}

/** Whether content may be known to other machines: `public` if it was to be had without credentials. */
export type Visibility = 'public' | 'private'

/** The same, as it is kept: `given` if it is only known that a peer had it, or a manifest that a peer gave points to it. */
export type Standing = Visibility | 'given'

/** The digest comes first: what is asked for is all the names of one. */
function ownerKey(name: Name, digest: Digest): string {
  return `${digest}@${formatName(name)}`
}

function sublevel<Value>(level: Level<string, unknown>, name: string) {
  return level.sublevel<string, Value>(name, { valueEncoding: 'json' })
}
