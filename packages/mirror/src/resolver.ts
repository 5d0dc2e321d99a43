import { setTimeout as sleep } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import type { Descriptor } from '@shoal/oci/manifest'
import { formatName, type Name } from '@shoal/oci/name'
import { SpecError } from '@shoal/oci/spec-error'
import { abortable } from '@shoal/store/abortable'
import type { DiskError } from '@shoal/store/disk-error'
import type { Listing } from '@shoal/store/index'
import type { Sighting } from '@shoal/store/refs'
import { type Origin, type Source, SourceError, type Want } from '@shoal/store/source'
import type { HeldBlob, HeldManifest, Store } from '@shoal/store/store'
import type { Transfer } from '@shoal/store/transfer'
import type { Endpoint, Tagged } from '@shoal/upstream/endpoint'
import type { Registry } from '@shoal/upstream/registry'
import type { Provenance } from './cache-status.ts'
import { notFound } from './client-rules.ts'
import { Filling, NowhereError } from './filling.ts'

/** How long a source that gave wrong bytes is not asked for the same digest, in ms. */
const distrustFor = 10 * 60_000

/** How long a client whose image is held waits to hear whether its tag has moved, in ms. */
const checkTime = 1000

/** How long the authority may take to say what a tag is, if it is asked first, in ms. */
const authorityTime = 2000

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
  /** Whether only what is held may be answered with. */
  readonly cachedOnly: boolean
  /** In ms since the epoch. */
  readonly now: () => number
  readonly random: () => number
  readonly events: ResolverEvents
}

export type FoundManifest = HeldManifest & { readonly digest: Digest; readonly provenance: Provenance }

export type FoundDescriptor = Descriptor & { readonly provenance: Provenance }

export type FoundBlob = { readonly size: number; readonly provenance: Provenance } & (
  | { readonly held: HeldBlob }
  | { readonly transfer: Transfer; readonly interest: Disposable }
)

export type FoundListing = Listing & { readonly provenance: Provenance }

/** Finds what clients ask for: in the store, else by walking the sources in their order, for each digest anew. */
export class Resolver {
  readonly #options: ResolverOptions
  readonly #fillings = new Map<Digest, Filling>()
  readonly #running = new Set<Promise<unknown>>()
  readonly #tagChecks = new Map<string, TagQuestion>()
  /** Sources that gave wrong bytes, as `label digest`, and until when they are not asked for them. */
  readonly #distrusted = new Map<string, number>()
  readonly #abort = new AbortController()

  constructor(options: ResolverOptions) {
    this.#options = options
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
    const { sighting, stale } = await this.#tag(name, tag)
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

  /** What a HEAD of a manifest is answered with; nothing is fetched. @throws SpecError MANIFEST_UNKNOWN */
  async describe(name: Name, digest: Digest): Promise<FoundDescriptor> {
    const held = await this.#options.store.manifest(digest)
    if (held) return { ...described(held, digest), provenance: { kind: 'local' } }
    const failures: Failure[] = []
    for (const endpoint of this.#endpoints(name)) {
      const tagged = await this.#attempt(endpoint, failures, signal => endpoint.head(name, digest, signal))
      if (tagged) return { ...tagged.descriptor, digest, provenance: { kind: 'upstream', host: endpoint.label } }
    }
    throw notFound('MANIFEST_UNKNOWN', new NowhereError(failures))
  }

  /** The same by tag. @throws SpecError MANIFEST_UNKNOWN */
  async describeTag(name: Name, tag: string): Promise<FoundDescriptor> {
    const { sighting, stale } = await this.#tag(name, tag)
    const { descriptor, from } = sighting
    if (stale) return { ...descriptor, provenance: { kind: 'stale' } }
    const held = this.#options.store.sizeOf(descriptor.digest) !== undefined
    if (!held && this.#options.cachedOnly) throw notFound('MANIFEST_UNKNOWN', new NowhereError([]))
    return { ...descriptor, provenance: held ? { kind: 'local' } : { kind: 'upstream', host: from } }
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
  async blobSize(name: Name, digest: Digest): Promise<{ size: number; provenance: Provenance }> {
    const { store } = this.#options
    const size = store.sizeOf(digest)
    if (size !== undefined) return { size, provenance: { kind: 'local' } }
    const expected = store.expectedSizeOf(digest)
    const failures: Failure[] = []
    for (const endpoint of this.#endpoints(name)) {
      const found = await this.#attempt(endpoint, failures, async signal => {
        const size = await endpoint.sizeOf(name, digest, signal)
        if (size === null || size === (expected ?? size)) return size
        throw new SourceError('broken', `${endpoint.label} has ${size} bytes for ${digest}, not ${expected}`)
      })
      if (typeof found === 'number') return { size: found, provenance: { kind: 'upstream', host: endpoint.label } }
    }
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
    const asked = this.#track(this.#askListing(name, pathAndQuery, key))
    const { found, failures }: ListingCheck = kept ? await this.#soon(name, asked, { failures: [] }) : await asked
    if (found) return found
    // A plain "no such thing" of the authority is an answer too.
    if (kept && (failures.length === 0 || failures[0]?.error)) return { ...kept, provenance: { kind: 'stale' } }
    throw notFound('NAME_UNKNOWN', new NowhereError(failures))
  }

  async #askListing(name: Name, pathAndQuery: string, key: string): Promise<ListingCheck> {
    const { store, now, events } = this.#options
    const failures: Failure[] = []
    for (const endpoint of [...this.#endpoints(name)].reverse()) {
      const answer = await this.#attempt(endpoint, failures, signal => endpoint.listing(name, pathAndQuery, signal))
      if (!answer) continue
      const listing = { ...answer, at: now() }
      const kept = store.index.setListing(key, listing)
      await kept.catch(error => events.failed('keeping a listing', error))
      return { found: { ...listing, provenance: { kind: 'upstream', host: endpoint.label } }, failures }
    }
    return { failures }
  }

  /** How often the registry of a name has answered so far, as a sign of life. */
  answersFor(name: Name): number {
    return this.#registry(name)?.answers ?? 0
  }

  /** Ends what is under way; transfers keep what they have. */
  async close(): Promise<void> {
    const reason = new SourceError('revoked', 'shoal is stopping')
    this.#abort.abort(reason)
    for (const filling of this.#fillings.values()) filling.stop(reason)
    while (this.#running.size > 0) await Promise.allSettled(this.#running)
  }

  #registry(name: Name): Registry | undefined {
    return this.#options.registries.get(name.registry)
  }

  /** Those that a request for content may go to. */
  #endpoints(name: Name): readonly Endpoint[] {
    return this.#options.cachedOnly ? [] : (this.#registry(name)?.endpoints ?? [])
  }

  #want(name: Name, digest: Digest, kind: Want['kind']): Want {
    const size = this.#options.store.expectedSizeOf(digest)
    return { name, digest, kind, ...(size !== undefined && size > 0 && { size }) }
  }

  /** Joins the transfer of a blob, or begins it. */
  async #transfer(want: Want, signal: AbortSignal): Promise<Transfer> {
    const { store, random, events, now } = this.#options
    for (let current: Transfer | undefined; (current = store.transfer(want.digest)); ) {
      if (current.open && current.whole) return current
      await abortable(current.settled, signal)
    }
    this.#abort.signal.throwIfAborted()
    const transfer = store.begin(want.digest)
    const trusted = (source: Source) => (this.#distrusted.get(`${source.label} ${want.digest}`) ?? 0) <= now()
    const filling = new Filling({
      store,
      transfer,
      want,
      sources: this.#endpoints(want.name).filter(trusted),
      random,
      onWrong: source => {
        // Of the last there is no other to turn to: it is asked again whenever a client does.
        if (source !== this.#registry(want.name)?.authority)
          this.#distrusted.set(`${source.label} ${want.digest}`, now() + distrustFor)
        events.wrongDigest(source.label, want.digest)
      },
      onUnstored: error => events.unstored(error),
      onFailure: (source, error) => {
        if (error instanceof SourceError) events.sourceFailed(source.label, want.digest, error)
      },
    })
    void transfer.settled.then(({ stored }) => stored && events.stored())
    this.#fillings.set(want.digest, filling)
    void this.#track(
      filling.run().finally(() => {
        this.#fillings.delete(want.digest)
        for (const [key, until] of this.#distrusted) if (until <= now()) this.#distrusted.delete(key)
      }),
    )
    return transfer
  }

  /** Fetches a manifest into the store. @throws SpecError MANIFEST_UNKNOWN */
  async #bring(name: Name, digest: Digest, signal: AbortSignal): Promise<Origin | undefined> {
    const { store } = this.#options
    const transfer = await this.#transfer(this.#want(name, digest, 'manifest'), signal)
    using _interest = transfer.hold()
    const filling = this.#fillings.get(digest)
    const settled = await abortable(transfer.settled, signal)
    if (settled.error) {
      if (settled.error instanceof NowhereError) throw notFound('MANIFEST_UNKNOWN', settled.error)
      throw settled.error
    }
    const { origin } = transfer
    const held = origin && (await store.manifest(digest))
    // Who joined a transfer for another name has not learned how it is to be had under this one.
    if (origin && filling?.isFor(name)) {
      const { events } = this.#options
      const noted = store.visibilities.note(name, digest, origin.visibility, held?.manifest)
      await noted.catch(error => events.failed('noting who may have it', error))
    }
    return origin
  }

  /** What a tag is, as far as can be told now. @throws SpecError MANIFEST_UNKNOWN */
  async #tag(name: Name, tag: string): Promise<{ sighting: Sighting; stale: boolean }> {
    const { store, tags, now } = this.#options
    const seen = store.refs.seen(name, tag)
    const fresh = seen && Math.abs(now() - seen.at) < tags.ttl
    const { sighting, failures } = fresh
      ? { sighting: seen, failures: [] }
      : await this.#check(name, tag)[store.refs.held(name, tag) ? 'soon' : 'answer']
    const held = store.refs.held(name, tag)
    if (sighting && (!held || !this.#outOfReach(name, sighting))) return { sighting, stale: false }
    if (held) return { sighting: held, stale: true }
    throw notFound('MANIFEST_UNKNOWN', new NowhereError(failures))
  }

  /**
   * What a question brings, if that is soon, and something else if not. The question goes on: it finds out when a
   * registry that was silent answers again.
   */
  async #soon<T>(name: Name, question: Promise<T>, otherwise: T): Promise<T> {
    const ended = new AbortController()
    const { authority } = this.#options.tags
    const patience = authority === 'before' ? authorityTime + checkTime : checkTime
    const time = this.#registry(name)?.silent ? 0 : patience
    try {
      return await Promise.race([question, sleep(time, otherwise, { signal: ended.signal })])
    } finally {
      ended.abort()
    }
  }

  /** Asks what a tag is; many who want to know share one question. */
  #check(name: Name, tag: string): TagQuestion {
    const key = `${formatName(name)}:${tag}`
    let check = this.#tagChecks.get(key)
    if (!check) {
      const answer = this.#track(this.#checkTag(name, tag).finally(() => this.#tagChecks.delete(key)))
      // Who joins a question waits for the rest of its time only.
      const soon = this.#soon(name, answer, { failures: [] })
      soon.catch(() => {})
      check = { answer, soon }
      this.#tagChecks.set(key, check)
    }
    return check
  }

  /**
   * Whether the content of a tag is not held, and cannot be had now because its registry limits the rate: then the
   * HEAD must not promise what the GET would be refused.
   */
  #outOfReach(name: Name, { descriptor, from }: Sighting): boolean {
    const authority = this.#registry(name)?.authority
    if (!authority || from !== authority.label || this.#options.store.sizeOf(descriptor.digest) !== undefined)
      return false
    const { state, rateLimit } = authority.state
    const { now } = this.#options
    const spent = rateLimit?.remaining === 0 && now() - rateLimit.at < (rateLimit.window ?? 0) * 1000
    return state === 'limited' || spent
  }

  /** Asks the endpoints by HEAD what a tag is, and notes the answer. */
  async #checkTag(name: Name, tag: string): Promise<TagCheck> {
    const { store, tags, events } = this.#options
    const failures: Failure[] = []
    const registry = this.#registry(name)
    if (!registry) return { failures }
    const { authority } = registry
    const ask = (endpoint: Endpoint, signal = this.#abort.signal): Promise<Tagged | null> =>
      this.#attempt(endpoint, failures, signal => endpoint.head(name, tag, signal), signal)
    let answers: readonly Endpoint[] = registry.endpoints
    if (tags.authority === 'before') {
      const tagged = await ask(authority, AbortSignal.any([this.#abort.signal, AbortSignal.timeout(authorityTime)]))
      if (tagged) return { sighting: this.#see(name, tag, tagged, authority), failures }
      // That there is no such tag is an answer, too.
      answers = failures[0]?.error ? registry.endpoints.slice(0, -1) : []
    }
    for (const endpoint of answers) {
      const tagged = await ask(endpoint)
      if (!tagged) continue
      if (tags.authority === 'after' && endpoint !== authority) {
        this.#track(this.#askAuthority(name, tag, authority)).catch(error => events.failed(`checking ${tag}`, error))
        // What the authority has said holds until it says something else: the tags of a mirror lag.
        const known = store.refs.seen(name, tag)
        if (known?.from === authority.label && known.descriptor.digest !== tagged.descriptor.digest)
          return { sighting: known, failures }
      }
      return { sighting: this.#see(name, tag, tagged, endpoint), failures }
    }
    // A plain 404 of the authority, and nobody else knows better: the tag is gone. Whatever else went wrong is no answer.
    if (failures.some(({ source, error }) => source === authority.label && !error)) store.refs.remove(name, tag)
    return { failures }
  }

  async #askAuthority(name: Name, tag: string, authority: Endpoint): Promise<void> {
    const failures: Failure[] = []
    const tagged = await this.#attempt(authority, failures, signal => authority.head(name, tag, signal))
    if (tagged) this.#see(name, tag, tagged, authority)
    else if (failures.every(({ error }) => !error)) this.#options.store.refs.remove(name, tag)
  }

  #see(name: Name, tag: string, { descriptor, visibility }: Tagged, { label }: Endpoint): Sighting {
    const sighting = { descriptor, visibility, from: label, at: this.#options.now() }
    this.#options.store.refs.see(name, tag, sighting)
    return sighting
  }

  /** Asks one endpoint; what goes wrong is noted, and null. */
  async #attempt<T>(
    endpoint: Endpoint,
    failures: Failure[],
    ask: (signal: AbortSignal) => Promise<T | null>,
    signal = this.#abort.signal,
  ): Promise<T | null> {
    try {
      const answer = await ask(signal)
      if (answer === null) failures.push({ source: endpoint.label, error: undefined })
      return answer
    } catch (thrown) {
      this.#abort.signal.throwIfAborted()
      const error = signal.aborted ? new SourceError('timeout', `${endpoint.label} did not answer in time`) : thrown
      if (!(error instanceof SourceError)) throw error
      this.#options.events.sourceFailed(endpoint.label, 'a question', error)
      failures.push({ source: endpoint.label, error })
      return null
    }
  }

  /** Has {@link close} wait for it. */
  #track<T>(promise: Promise<T>): Promise<T> {
    const done: Promise<void> = promise.then(
      () => void this.#running.delete(done),
      () => void this.#running.delete(done),
    )
    this.#running.add(done)
    return promise
  }
}

/** No sighting if nobody could say, or the authority says that there is no such tag. */
type TagCheck = { readonly sighting?: Sighting; readonly failures: readonly Failure[] }

/** `soon` gives up waiting after a while. */
type TagQuestion = { readonly answer: Promise<TagCheck>; readonly soon: Promise<TagCheck> }

/** Nothing found if nobody could say, or there is no such thing. */
type ListingCheck = { readonly found?: FoundListing; readonly failures: readonly Failure[] }

type Failure = NowhereError['failures'][number]

function provenanceOf(origin: Origin | undefined): Provenance {
  if (!origin) return { kind: 'local' }
  return origin.kind === 'peer' ? { kind: 'peer' } : { kind: 'upstream', host: origin.host }
}

function described({ bytes, manifest }: HeldManifest, digest: Digest): Descriptor {
  return { mediaType: manifest.mediaType, digest, size: bytes.length }
}
