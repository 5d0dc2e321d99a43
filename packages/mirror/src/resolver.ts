import { setTimeout as nodeSleep } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import type { Descriptor } from '@shoal/oci/manifest'
import { formatName, type Name, NameError, parseFullName } from '@shoal/oci/name'
import { SpecError } from '@shoal/oci/spec-error'
import { abortable } from '@shoal/store/abortable'
import { DiskError } from '@shoal/store/disk-error'
import type { Listing } from '@shoal/store/index'
import type { JointDownloads } from '@shoal/store/joint'
import type { Sighting } from '@shoal/store/refs'
import { type Offer, type Origin, type Source, SourceError, type Want } from '@shoal/store/source'
import type { HeldBlob, HeldManifest, Store } from '@shoal/store/store'
import type { Transfer } from '@shoal/store/transfer'
import type { Endpoint } from '@shoal/upstream/endpoint'
import type { Registry } from '@shoal/upstream/registry'
import type { Provenance } from './cache-status.ts'
import { notFound } from './client-rules.ts'
import { Filling, NowhereError } from './filling.ts'
import { Publicity } from './publicity.ts'
import { type Failure, Questions } from './questions.ts'
import { Rates } from './rates.ts'
import { isOfPeer, type PeerTags, Tags } from './tags.ts'
import type { Pace } from './tap.ts'

/** How long a source that gave wrong bytes is not asked for the same digest, in ms. */
const distrustFor = 10 * 60_000

/** How long peers who were slow or silent have until a manifest is asked for that would count, in ms. */
const sparingTime = 2000

/** Writes to an index and the like that a request does not wait for may fail; nothing is lost by it. */
export type ResolverEvents = {
  /** A source gave bytes that do not have the digest. */
  wrongDigest(source: string, digest: Digest): void
  /** A source could not be asked, or stopped giving. */
  sourceFailed(source: string, what: string, error: SourceError): void
  /** The disk takes no more: what is asked for passes through, and is not stored. */
  unstored(error: DiskError): void
  /** Something has been stored. */
  stored(): void
  /** Something of Shoal's own failed that no client waits for. */
  failed(what: string, error: unknown): void
}

export type ResolverOptions = {
  readonly store: Store
  readonly registries: ReadonlyMap<string, Registry>
  /** How long a tag is believed, in ms, and when the authority is asked. */
  readonly tags: { readonly ttl: number; readonly authority: 'after' | 'before' | 'never' }
  /** Whether only what is held, here or by a peer, may be answered with. */
  readonly cachedOnly: boolean
  /** Peers as sources of content: before the endpoints are asked, and when those have not given it. */
  readonly peers?: { readonly source: Source; readonly lastResort: Source; readonly downloads?: JointDownloads }
  readonly peerTags?: PeerTags
  /** In ms since the epoch. */
  readonly now: () => number
  readonly random: () => number
  /** Has all downloads together keep to a rate. @default none */
  readonly pace?: Pace
  /** Resolves after so many ms; rejects when it is aborted. @default Node's timer, which keeps no process alive */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>
  readonly events: ResolverEvents
}

export type FoundManifest = HeldManifest & { readonly digest: Digest; readonly provenance: Provenance }

export type FoundDescriptor = Descriptor & { readonly provenance: Provenance }

export type FoundBlob = { readonly size: number; readonly provenance: Provenance } & (
  | { readonly held: HeldBlob }
  | { readonly transfer: Transfer; readonly interest: Disposable }
)

export type FoundListing = Listing & { readonly provenance: Provenance }

/** How something was fetched that no client asked for; `refused`: there is no room for it. */
export type Prefetched = 'held' | 'refused' | 'failed'

type TransferOptions = {
  /** @default all who may be asked, in order */
  readonly sources?: readonly Source[]
  /** Told of who gave bytes of a download shared with others. */
  readonly onShared?: (origin: Origin) => void
  /** Has it take its time as long as nobody waits for it. */
  readonly ahead?: Pace
}

/** Finds what clients ask for: in the store, else by walking the sources in their order, for each digest anew. */
export class Resolver {
  readonly #options: ResolverOptions
  readonly #fillings = new Map<Digest, Filling>()
  readonly #questions: Questions
  readonly #publicity: Publicity
  readonly #tags: Tags
  /** Sources that gave wrong bytes, as `label digest`, and until when they are not asked for them. */
  readonly #distrusted = new Map<string, number>()
  readonly #rates = new Rates()
  /** How often peers were heard of who are getting what is wanted here. */
  #signsOfLife = 0

  constructor(options: ResolverOptions) {
    this.#options = options
    const { store, registries, tags, peerTags, now, random, events } = options
    const { sleep = (ms, signal) => nodeSleep(ms, undefined, { ref: false, signal }) } = options
    const onFailure = (what: string, error: unknown) => events.failed(what, error)
    const questions = new Questions((source, error) => events.sourceFailed(source, 'a question', error))
    const publicity = new Publicity({ store, registries, questions, now, random, sleep, onFailure })
    this.#questions = questions
    this.#publicity = publicity
    this.#tags = new Tags({
      store,
      registries,
      policy: tags,
      peers: peerTags,
      bring: (name, digest) => this.#brings(name, digest),
      bringFromPeers: async (name, digest) => {
        const peers = this.#peers(name)
        return peers !== undefined && (await this.#brings(name, digest, peers))
      },
      questions,
      publicity,
      now,
      onFailure,
    })
  }

  /** Whether content of a registry may be asked for. */
  mirrors(registry: string): boolean {
    return this.#options.registries.has(registry)
  }

  /** A manifest by digest that can be had without waiting. */
  hotManifest(digest: Digest): FoundManifest | undefined {
    const hot = this.#options.store.hotManifest(digest)
    return hot && { ...hot, digest, provenance: { kind: 'local' } }
  }

  /** A manifest by digest. @throws SpecError MANIFEST_UNKNOWN */
  async manifest(name: Name, digest: Digest, signal: AbortSignal): Promise<FoundManifest> {
    const { store } = this.#options
    const held = await store.manifest(digest)
    if (held) return { ...held, digest, provenance: { kind: 'local' } }
    const origin = await this.#bring(name, digest, signal)
    const fetched = await store.manifest(digest)
    if (!fetched) throw new SpecError('MANIFEST_UNKNOWN', `${digest} is not a manifest`)
    return { ...fetched, digest, provenance: provenanceOf(origin) }
  }

  /** A manifest by tag. @throws SpecError MANIFEST_UNKNOWN */
  async taggedManifest(name: Name, tag: string, signal: AbortSignal): Promise<FoundManifest> {
    const { store, cachedOnly } = this.#options
    const { sighting, stale } = await this.#tags.find(name, tag)
    try {
      const found = await this.manifest(name, sighting.descriptor.digest, signal)
      return stale ? { ...found, provenance: { kind: 'stale' } } : found
    } catch (error) {
      // The tag has moved, and its new content is not to be had now: what was held is better than nothing.
      const known = store.refs.held(name, tag)
      const held = known && known !== sighting && (await store.manifest(known.descriptor.digest))
      if (!held || !(error instanceof SpecError) || cachedOnly) throw error
      return { ...held, digest: known.descriptor.digest, provenance: { kind: 'stale' } }
    }
  }

  /**
   * What a HEAD of a manifest is answered with. Nothing is fetched, but from peers if no endpoint could say.
   * @throws SpecError MANIFEST_UNKNOWN
   */
  async describe(name: Name, digest: Digest, signal: AbortSignal): Promise<FoundDescriptor> {
    const { store } = this.#options
    const held = await store.manifest(digest)
    if (held) return { ...described(held, digest), provenance: { kind: 'local' } }
    const failures: Failure[] = []
    for (const endpoint of this.#endpoints(name)) {
      const tagged = await this.#questions.ask(endpoint, failures, signal => endpoint.head(name, digest, signal))
      if (tagged) return { ...tagged.descriptor, digest, provenance: { kind: 'upstream', host: endpoint.label } }
    }
    const peers = this.#peers(name)
    if (!peers) throw notFound('MANIFEST_UNKNOWN', new NowhereError(failures))
    const origin = await this.#bring(name, digest, signal, peers).catch(error => {
      throw error instanceof SpecError ? notFound('MANIFEST_UNKNOWN', new NowhereError(failures)) : error
    })
    const fetched = await store.manifest(digest)
    if (!fetched) throw new SpecError('MANIFEST_UNKNOWN', `${digest} is not a manifest`)
    return { ...described(fetched, digest), provenance: provenanceOf(origin) }
  }

  /** The same by tag. @throws SpecError MANIFEST_UNKNOWN */
  async describeTag(name: Name, tag: string, signal: AbortSignal): Promise<FoundDescriptor> {
    const { sighting, stale } = await this.#tags.find(name, tag)
    const { descriptor, from } = sighting
    if (stale) return { ...descriptor, provenance: { kind: 'stale' } }
    const held = this.#options.store.sizeOf(descriptor.digest) !== undefined
    if (held) return { ...descriptor, provenance: { kind: 'local' } }
    // What a peer knows of may be what no endpoint gives.
    if (this.#options.cachedOnly) return this.describe(name, descriptor.digest, signal)
    return { ...descriptor, provenance: isOfPeer(sighting) ? { kind: 'peer' } : { kind: 'upstream', host: from } }
  }

  /** A blob: one that is held, or one that arrives. @throws SpecError BLOB_UNKNOWN */
  async blob(name: Name, digest: Digest, signal: AbortSignal): Promise<FoundBlob> {
    const { store } = this.#options
    const held = await store.open(digest)
    // Nobody would close it.
    if (signal.aborted) held?.close()
    signal.throwIfAborted()
    if (held) return { held, size: held.size, provenance: { kind: 'local' } }
    const transfer = await this.#transfer(this.#want(name, digest, 'blob'), signal)
    const interest = transfer.hold()
    try {
      const size = await abortable(transfer.sized, signal)
      return { transfer, interest, size, provenance: provenanceOf(transfer.origin) }
    } catch (error) {
      interest[Symbol.dispose]()
      if (error instanceof NowhereError) throw notFound('BLOB_UNKNOWN', error)
      throw error
    }
  }

  /** What a HEAD of a blob is answered with; nothing is fetched. @throws SpecError BLOB_UNKNOWN */
  async blobSize(name: Name, digest: Digest, signal: AbortSignal): Promise<{ size: number; provenance: Provenance }> {
    const { store } = this.#options
    const size = store.sizeOf(digest)
    if (size !== undefined) return { size, provenance: { kind: 'local' } }
    const expected = store.expectedSizeOf(digest)
    const failures: Failure[] = []
    for (const endpoint of this.#endpoints(name)) {
      const found = await this.#questions.ask(endpoint, failures, async signal => {
        const size = await endpoint.sizeOf(name, digest, signal)
        if (size === null || size === (expected ?? size)) return size
        throw new SourceError('broken', `${endpoint.label} has ${size} bytes for ${digest}, not ${expected}`)
      })
      if (typeof found === 'number') return { size: found, provenance: { kind: 'upstream', host: endpoint.label } }
    }
    const found = await this.#sizeAtPeers(this.#want(name, digest, 'blob'), failures, signal)
    if (found !== undefined) return { size: found, provenance: { kind: 'peer' } }
    throw notFound('BLOB_UNKNOWN', new NowhereError(failures))
  }

  /**
   * `tags/list` or `referrers`. The authority is asked first: a mirror knows only some. The answer is kept for when
   * nobody can be reached.
   * @throws SpecError NAME_UNKNOWN
   */
  async listing(name: Name, pathAndQuery: string): Promise<FoundListing> {
    const key = `${formatName(name)}/${pathAndQuery}`
    const kept = await this.#options.store.index.listing(key)
    const asked = this.#questions.track(this.#askListing(name, pathAndQuery, key))
    const { found, failures }: ListingCheck = kept ? await this.#tags.soon(name, asked, { failures: [] }) : await asked
    if (found) return found
    // A plain "no such thing" of the authority is an answer too.
    if (kept && (failures.length === 0 || failures[0]?.error)) return { ...kept, provenance: { kind: 'stale' } }
    throw notFound('NAME_UNKNOWN', new NowhereError(failures))
  }

  async #askListing(name: Name, pathAndQuery: string, key: string): Promise<ListingCheck> {
    const { store, now, events } = this.#options
    const failures: Failure[] = []
    for (const endpoint of [...this.#endpoints(name)].reverse()) {
      const answer = await this.#questions.ask(endpoint, failures, signal =>
        endpoint.listing(name, pathAndQuery, signal),
      )
      if (!answer) continue
      const listing = { ...answer, at: now() }
      const kept = store.index.setListing(key, listing)
      await kept.catch(error => events.failed('keeping a listing', error))
      return { found: { ...listing, provenance: { kind: 'upstream', host: endpoint.label } }, failures }
    }
    return { failures }
  }

  /**
   * Looks what a tag is now for a peer that has no way to the registry itself, if this machine has, and everybody may know.
   * @param name `registry/repository`, as the peer asks
   */
  async checkTag(name: string, tag: string): Promise<void> {
    try {
      const parsed = parseFullName(name)
      if (this.#downloads(parsed) && this.#hasLine(parsed)) await this.#tags.find(parsed, tag)
    } catch (error) {
      if (!(error instanceof NameError || error instanceof SpecError)) throw error
    }
  }

  /**
   * Fetches something for a peer that has no way to the registry itself, if this machine has, and everybody may have it.
   * Resolves when that is over, however.
   */
  async errand(want: Want): Promise<void> {
    const { store, events } = this.#options
    const { name, digest, kind } = want
    if (!this.#downloads(name) || !this.#hasLine(name)) return
    // What is left of a limit is for this machine's own clients.
    if (kind === 'manifest' && !this.#endpoints(name).every(isAmple)) return
    if (store.sizeOf(digest) !== undefined || store.transfer(digest)) return
    const { signal } = this.#questions
    try {
      if (kind === 'manifest') await this.#bring(name, digest, signal)
      else {
        const transfer = await this.#transfer(want, signal)
        using _interest = transfer.hold()
        await transfer.settled
      }
    } catch (error) {
      if (!(error instanceof SpecError) && !signal.aborted) events.failed('fetching something for a peer', error)
    }
  }

  /** Whether a registry may be asked for what no client waits for: it answers, and what it gives is not running out. */
  canSpare(name: Name): boolean {
    const registry = this.#registry(name)
    if (!registry || !this.#hasLine(name)) return false
    return registry.authority.state.state === 'closed' && registry.endpoints.every(isAmple)
  }

  /**
   * Asks upstream what a tag is now, whatever was seen lately, and notes the answer.
   * @returns undefined if there is no such tag, or nobody could say
   */
  look(name: Name, tag: string): Promise<Sighting | undefined> {
    return this.#tags.look(name, tag)
  }

  /** What a registry was measured to give to clients, in bytes/s; undefined if it has not given anything large yet. */
  rateOf(name: Name): number | undefined {
    const rates = this.#endpoints(name).map(({ label }) => this.#rates.of(label) ?? 0)
    return Math.max(0, ...rates) || undefined
  }

  /**
   * Fetches something before a client asks for it, from peers or upstream.
   * @param pace has it wait, as long as no client wants the same
   * @param signal ends the waiting; what has begun goes on
   * @returns whether it is held; `refused` if there is no room for it, or what has it is worth more
   * @throws the reason of `signal`
   */
  async prefetch(name: Name, digest: Digest, kind: Want['kind'], pace: Pace, signal: AbortSignal): Promise<Prefetched> {
    const { store } = this.#options
    try {
      if (kind === 'manifest') await this.#bring(name, digest, signal)
      else {
        const transfer = await this.#transfer(this.#want(name, digest, kind), signal, { ahead: pace })
        const { error } = await abortable(transfer.settled, signal)
        if (error instanceof DiskError) return 'refused'
        if (error) return 'failed'
      }
      return store.sizeOf(digest) === undefined ? 'refused' : 'held'
    } catch (error) {
      if (error instanceof SpecError) return 'failed'
      throw error
    }
  }

  /** How often the registry of a name has answered so far, or peers in its place, as a sign of life. */
  answersFor(name: Name): number {
    return (this.#registry(name)?.answers ?? 0) + this.#tags.peerAnswers + this.#signsOfLife
  }

  /** Ends what is under way; transfers keep what they have. */
  async close(): Promise<void> {
    const reason = new SourceError('revoked', 'shoal is stopping')
    this.#questions.abort(reason)
    for (const filling of this.#fillings.values()) filling.stop(reason)
    await this.#questions.ended()
  }

  #registry(name: Name): Registry | undefined {
    return this.#options.registries.get(name.registry)
  }

  /** Those that a request for content may go to. */
  #endpoints(name: Name): readonly Endpoint[] {
    return this.#options.cachedOnly ? [] : (this.#registry(name)?.endpoints ?? [])
  }

  /**
   * Who is asked for content, in order. Of what may not be shared, peers need not even know the digest. Where an endpoint
   * that counts manifests has few left, all peers come before it.
   */
  #sources(name: Name, kind: Want['kind']): readonly Source[] {
    const { peers } = this.#options
    const endpoints = this.#endpoints(name)
    if (!peers || !this.#registry(name)?.shared) return endpoints
    const { source, lastResort } = peers
    const sparing = kind === 'manifest' ? endpoints.findIndex(({ allowance }) => allowance !== 'ample') : -1
    if (sparing < 0) return [source, ...endpoints, lastResort]
    const slow = hurriedSource(lastResort, sparingTime)
    return [source, ...endpoints.slice(0, sparing), slow, ...endpoints.slice(sparing), lastResort]
  }

  /** Peers alone, if they may be asked. */
  #peers(name: Name): readonly Source[] | undefined {
    const { peers } = this.#options
    return peers && this.#registry(name)?.shared ? [peers.source, peers.lastResort] : undefined
  }

  /**
   * Machines that want the same, if they may know what this one wants: with credentials, it may be something private,
   * unless it is known to be public.
   */
  #downloads(name: Name): JointDownloads | undefined {
    const { peers, store } = this.#options
    const registry = this.#registry(name)
    if (!registry?.shared || (registry.credentialed && !store.refs.isPublic(name))) return undefined
    return peers?.downloads
  }

  /** Whether upstream may be asked, and has answered last time. */
  #hasLine(name: Name): boolean {
    return this.#endpoints(name).length > 0 && !this.#registry(name)?.silent
  }

  /** The size in bytes that peers say a blob has. */
  async #sizeAtPeers(want: Want, failures: Failure[], signal: AbortSignal): Promise<number | undefined> {
    for (const source of this.#peers(want.name) ?? []) {
      try {
        const offer = await source.find(want, AbortSignal.any([signal, this.#questions.signal]))
        offer?.close()
        if (offer?.size !== undefined && offer.size === (want.size ?? offer.size)) return offer.size
      } catch (error) {
        signal.throwIfAborted()
        this.#questions.signal.throwIfAborted()
        if (!(error instanceof SourceError)) throw error
        failures.push({ source: source.label, error, kind: 'peer' })
      }
    }
    return undefined
  }

  #want(name: Name, digest: Digest, kind: Want['kind']): Want {
    const size = this.#options.store.expectedSizeOf(digest)
    return { name, digest, kind, ...(size !== undefined && size > 0 && { size }) }
  }

  /** Joins the transfer of a blob, or begins it. */
  async #transfer(
    want: Want,
    signal: AbortSignal,
    { sources = this.#sources(want.name, want.kind), onShared, ahead }: TransferOptions = {},
  ): Promise<Transfer> {
    const { store, random, events, now } = this.#options
    // Others would have to wait for what takes its time.
    const downloads = ahead ? undefined : this.#downloads(want.name)
    for (let current: Transfer | undefined; (current = store.transfer(want.digest)); ) {
      if (current.open && current.whole) return current
      await abortable(current.settled, signal)
    }
    this.#questions.signal.throwIfAborted()
    const transfer = store.begin(want.digest)
    const pace = ahead ? patientPace(transfer, this.#options.pace, ahead) : this.#options.pace
    const trusted = (source: Source) => (this.#distrusted.get(`${source.label} ${want.digest}`) ?? 0) <= now()
    const filling: Filling = new Filling({
      store,
      transfer,
      want,
      sources: sources.filter(trusted),
      random,
      // What is held up says nothing of how fast an upstream is.
      rates: ahead ? new Rates() : this.#rates,
      ...(pace && { pace }),
      ...(downloads && {
        joint: { downloads, line: () => this.#hasLine(want.name), onAlive: () => void this.#signsOfLife++ },
      }),
      ...(onShared && { onShared }),
      onWrong: source => {
        // Of the last there is no other to turn to: it is asked again whenever a client does. Peers are many.
        if (
          this.#registry(want.name)
            ?.endpoints.slice(0, -1)
            .some(({ label }) => label === source.label)
        )
          this.#distrusted.set(`${source.label} ${want.digest}`, now() + distrustFor)
        events.wrongDigest(source.label, want.digest)
      },
      onUnstored: error => {
        if (ahead && transfer.deserted) filling.stop(error)
        else events.unstored(error)
      },
      onFailure: (source, error) => {
        if (error instanceof SourceError) events.sourceFailed(source.label, want.digest, error)
      },
    })
    void transfer.settled.then(({ stored }) => stored && events.stored())
    this.#fillings.set(want.digest, filling)
    void this.#questions.track(
      filling.run().finally(() => {
        this.#fillings.delete(want.digest)
        for (const [key, until] of this.#distrusted) if (until <= now()) this.#distrusted.delete(key)
      }),
    )
    return transfer
  }

  /** Fetches a manifest into the store, for nobody in particular. @returns whether it is there */
  async #brings(name: Name, digest: Digest, sources?: readonly Source[]): Promise<boolean> {
    try {
      await this.#bring(name, digest, this.#questions.signal, sources)
      return true
    } catch (error) {
      this.#questions.signal.throwIfAborted()
      if (error instanceof SpecError) return false
      throw error
    }
  }

  /** Fetches a manifest into the store. @throws SpecError MANIFEST_UNKNOWN */
  async #bring(
    name: Name,
    digest: Digest,
    signal: AbortSignal,
    sources = this.#sources(name, 'manifest'),
  ): Promise<Origin | undefined> {
    const { store, events } = this.#options
    const givers: Origin[] = []
    const watched = sources.map(source => watchedSource(source, origin => givers.push(origin)))
    const onShared = (origin: Origin) => void givers.push(origin)
    const want = this.#want(name, digest, 'manifest')
    const transfer = await this.#transfer(want, signal, { sources: watched, onShared })
    using _interest = transfer.hold()
    const settled = await abortable(transfer.settled, signal)
    if (settled.error) {
      if (settled.error instanceof NowhereError) throw notFound('MANIFEST_UNKNOWN', settled.error)
      throw settled.error
    }
    // Who joined another's transfer has not learned how it is to be had; under the name of that, the other notes it.
    if (givers.length > 0) {
      const held = await store.manifest(digest)
      const noted = this.#publicity.brought(name, digest, givers, held?.manifest)
      await noted.catch(error => events.failed('noting who may have it', error))
    }
    return transfer.origin
  }
}

/** Whether an endpoint is not near the end of its limit. */
function isAmple({ allowance }: Endpoint): boolean {
  return allowance === 'ample'
}

/** Has a transfer keep to one pace, and to another as well as long as nobody waits for it. */
function patientPace(transfer: Transfer, pace: Pace | undefined, ahead: Pace): Pace {
  return bytes => {
    const turns = [pace?.(bytes), transfer.deserted ? ahead(bytes) : undefined].filter(turn => turn !== undefined)
    return turns.length > 0 ? Promise.all(turns).then(() => {}) : undefined
  }
}

/** A source that has so long to find something, in ms. */
function hurriedSource(source: Source, ms: number): Source {
  return {
    label: source.label,
    ...(source.kind !== undefined && { kind: source.kind }),
    find: async (want, signal) => {
      const late = new AbortController()
      const timer = setTimeout(() => late.abort(new SourceError('timeout', `${source.label} take too long`)), ms)
      try {
        return await source.find(want, AbortSignal.any([signal, late.signal]))
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

/**
 * A source of which it is told who was asked for bytes. The first to offer content need not be who gives it: a peer could
 * offer a manifest that it only knows the digest of, and leave it to an endpoint that is asked with credentials.
 */
function watchedSource(source: Source, onGiver: (origin: Origin) => void): Source {
  return {
    label: source.label,
    ...(source.kind !== undefined && { kind: source.kind }),
    find: async (want, signal) => {
      const offer = await source.find(want, signal)
      return offer && watchedOffer(offer, onGiver)
    },
  }
}

function watchedOffer(offer: Offer, onGiver: (origin: Origin) => void): Offer {
  return {
    origin: offer.origin,
    ...(offer.giver && { giver: offer.giver }),
    ...(offer.size !== undefined && { size: offer.size }),
    ...(offer.mediaType !== undefined && { mediaType: offer.mediaType }),
    ranges: () => offer.ranges(),
    onGrow: grown => offer.onGrow(grown),
    fetch: (range, into, signal) => {
      onGiver(offer.origin)
      return offer.fetch(range, into, signal)
    },
    close: () => offer.close(),
  }
}

/** Nothing found if nobody could say, or there is no such thing. */
type ListingCheck = { readonly found?: FoundListing; readonly failures: readonly Failure[] }

function provenanceOf(origin: Origin | undefined): Provenance {
  if (!origin) return { kind: 'local' }
  return origin.kind === 'peer' ? { kind: 'peer' } : { kind: 'upstream', host: origin.host }
}

function described({ bytes, manifest }: HeldManifest, digest: Digest): Descriptor {
  return { mediaType: manifest.mediaType, digest, size: bytes.length }
}
