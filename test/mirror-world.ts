import { Resolver, type ResolverOptions } from '@shoal/mirror/resolver'
import type { PeerTags } from '@shoal/mirror/tags'
import type { ByteRange } from '@shoal/oci/byte-range'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { formatName, type Name, parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import type { JointDownloads } from '@shoal/store/joint'
import type { Sighting } from '@shoal/store/refs'
import { SharedBlobs } from '@shoal/store/sharing'
import { type Offer, type RangeWriter, type Source, SourceError, type Want } from '@shoal/store/source'
import { Store } from '@shoal/store/store'
import { type ScriptedImage, ScriptedRegistry, type ScriptedRegistryOptions } from './scripted-registry.ts'
import { until } from './shoal-process.ts'
import { WatchedDisk } from './watched-disk.ts'

export const never = new AbortController().signal
export const name = parseName('docker.io', 'team/app')

/** Peers, as a test plays them, who are asked for content and tags. */
export class ScriptedPeers {
  readonly content = new Map<Digest, Buffer>()
  /** Of digests that they have announced, and then give nothing of. */
  readonly empty = new Set<Digest>()
  readonly fresh = new Map<string, Sighting>()
  readonly last = new Map<string, Sighting>()
  /** `kind what` of all that they were asked: whatever is here has left the machine. */
  readonly heard: string[] = []
  /** What they were asked to get together; they go on by themselves. */
  readonly joined: Digest[] = []
  readonly downloads: JointDownloads = { join: ({ digest }) => void this.joined.push(digest) }
  readonly source = this.#source('source')
  readonly lastResort = this.#source('lastResort')
  readonly tags: PeerTags = {
    fresh: async (name, tag) => this.#sighting('fresh', this.fresh, name, tag),
    last: async (name, tag) => this.#sighting('last', this.last, name, tag),
  }

  put(...blobs: Buffer[]): void {
    for (const blob of blobs) this.content.set(digestOf(blob), blob)
  }

  #sighting(kind: string, from: Map<string, Sighting>, name: Name, tag: string): Sighting | undefined {
    const key = `${formatName(name)}:${tag}`
    this.heard.push(`${kind} ${key}`)
    return from.get(key)
  }

  #source(kind: string): Source {
    return {
      label: 'peers',
      kind: 'peer',
      find: async ({ digest }: Want) => {
        this.heard.push(`${kind} ${digest}`)
        const bytes = this.content.get(digest)
        return bytes ? offerOf(bytes, this.empty.has(digest)) : null
      },
    }
  }
}

function offerOf(bytes: Buffer, empty: boolean): Offer {
  return {
    origin: { kind: 'peer', host: 'desk', visibility: 'public' },
    size: bytes.length,
    mediaType: mediaTypes.ociManifest,
    ranges: () => new RangeSet([{ start: 0, end: bytes.length }]),
    onGrow: () => ({ [Symbol.dispose]: () => {} }),
    fetch: async ({ start, end }: ByteRange, into: RangeWriter) => {
      if (empty) throw new SourceError('denied', 'the peer gives nothing')
      await into.write(bytes.subarray(start, end))
    },
    close: () => {},
  }
}

export type MirrorWorldOptions = ScriptedRegistryOptions &
  Partial<Pick<ResolverOptions, 'cachedOnly' | 'tags'>> & {
    /** Whether there are peers. @default true */
    readonly peers?: boolean
  }

/** A store and its resolver, one registry, and peers. Time stands still unless it is moved. */
export class MirrorWorld implements AsyncDisposable {
  time = 1_700_000_000_000
  readonly peers = new ScriptedPeers()
  readonly remote: ScriptedRegistry
  readonly failures: string[] = []
  /** How long is slept, in ms, and what ends it. */
  readonly sleeping: { readonly ms: number; readonly wake: () => void }[] = []
  store!: Store
  sharing!: SharedBlobs
  resolver!: Resolver
  readonly #disk: WatchedDisk
  readonly #options: MirrorWorldOptions

  private constructor(disk: WatchedDisk, remote: ScriptedRegistry, options: MirrorWorldOptions) {
    this.#disk = disk
    this.remote = remote
    this.#options = options
  }

  static async open(options: MirrorWorldOptions = {}): Promise<MirrorWorld> {
    const world = new MirrorWorld(await WatchedDisk.open(), await ScriptedRegistry.open(options), options)
    await world.#start()
    return world
  }

  async #start(): Promise<void> {
    const { peers = true, cachedOnly = false, tags = { ttl: 5000, authority: 'after' } } = this.#options
    const { registry } = this.remote
    const fail = (what: string, error: unknown) => this.failures.push(`${what}: ${error}`)
    this.store = await Store.open({
      folder: this.#disk.folder,
      disk: this.#disk,
      onWarning: text => fail('store', text),
    })
    this.sharing = new SharedBlobs({
      store: this.store,
      mayShare: host => host === registry.host && registry.shared,
      onWarning: text => fail('sharing', text),
    })
    await this.sharing.ready
    this.resolver = new Resolver({
      store: this.store,
      registries: new Map([[registry.host, registry]]),
      tags,
      cachedOnly,
      ...(peers && { peers: this.peers, peerTags: this.peers.tags }),
      now: () => this.time,
      random: () => 0.5,
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          this.sleeping.push({ ms, wake: resolve })
          signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        }),
      events: {
        wrongDigest: () => {},
        sourceFailed: () => {},
        unstored: error => fail('unstored', error),
        stored: () => {},
        failed: fail,
      },
    })
  }

  async restart(): Promise<void> {
    await this.#stop()
    await this.#start()
  }

  /** Pulls an image by tag, as a client does. */
  async pull(of: Name, tag = 'latest'): Promise<void> {
    const { digest, manifest } = await this.resolver.taggedManifest(of, tag, never)
    const parts = [...(manifest.config ? [manifest.config] : []), ...manifest.layers]
    for (const part of parts) await this.pullBlob(of, part.digest)
    if (!(await this.store.manifest(digest))) throw new Error('it is not held')
  }

  async pullBlob(of: Name, digest: Digest): Promise<void> {
    const found = await this.resolver.blob(of, digest, never)
    if ('held' in found) found.held.close()
    else {
      const { stored, error } = await found.transfer.settled
      found.interest[Symbol.dispose]()
      if (!stored) throw error ?? new Error('it is not stored')
    }
  }

  /** Waits until so much of an image is shared. */
  async sharesOf(image: ScriptedImage, parts: readonly string[]): Promise<void> {
    await this.store.visibilities.settled()
    await until(
      () => (String(this.shared(image)) === String(parts) ? true : undefined),
      () => `it shares ${this.shared(image)}, and asked ${this.remote.asked.join(', ')}`,
    )
  }

  /** What of an image is shared now. */
  shared({ digest, config, layer }: ScriptedImage): string[] {
    const parts = { manifest: digest, config: digestOf(config), layer: digestOf(layer) }
    return Object.entries(parts)
      .filter(([, digest]) => this.sharing.has(digest))
      .map(([title]) => title)
  }

  async #stop(): Promise<void> {
    await this.resolver.close()
    this.sharing[Symbol.dispose]()
    await this.store.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop()
    await this.remote[Symbol.asyncDispose]()
    await this.#disk[Symbol.asyncDispose]()
  }
}
