import { setTimeout as nodeSleep } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import type { Descriptor, Manifest } from '@shoal/oci/manifest'
import { formatName, type Name } from '@shoal/oci/name'
import { readReference } from '@shoal/oci/reference'
import type { Sighting } from '@shoal/store/refs'
import type { Want } from '@shoal/store/source'
import type { Store } from '@shoal/store/store'
import { Budget } from './budget.ts'
import type { Resolver } from './resolver.ts'

/**
 * How long from one round to the next, in ms, at least, and at most twice that: images move a few times a day, and no
 * two machines should keep step.
 */
const period = 5 * 60_000

/** A tag that was seen so lately, in ms, is not asked for: clients see to it themselves. */
const seenLately = 10 * 60_000

/** Tags that are asked for in a round, each by one HEAD. */
const mostAsked = 50

/** How often an image must have been pulled lately: once may have been all. */
const leastPulls = 2

/** What it may take of what a registry was measured to give, and what if that is not known, in bytes/s: 8 Mbit/s. */
const shareOfLine = 0.25
const unmeasuredRate = 1e6

/** How long it may go faster than that after a rest, in s. */
const burst = 0.25

/** What it may fetch in a day, in bytes: a tenth of what the store has if nothing else is set. */
const mostADay = 5e9
const day = 24 * 3600

/** How often it is looked whether clients still wait for something, in ms. */
const patience = 1000

/** How often it is tried to get an image that fails. */
const mostTries = 3

/** A tag that had moved, and what it is now. `bytes` that came for it. */
export type Refreshed = { readonly image: string; readonly digest: Digest; readonly bytes: number }

export type RefresherOptions = {
  readonly store: Pick<Store, 'refs' | 'sizeOf' | 'manifest' | 'transfers'>
  readonly resolver: Pick<Resolver, 'canSpare' | 'look' | 'prefetch' | 'rateOf'>
  /** How often images were pulled lately in the whole office, by their whole references; the most pulled first. */
  readonly popular: () => Iterable<{ readonly image: string; readonly count: number }>
  /** Whether, of all machines that hold what a tag was, this is the one that sees to it. @param name `registry/repository` */
  readonly responsible: (name: string, digest: Digest) => boolean
  /** Why nothing is to be fetched now; undefined if it may be. */
  readonly resting: () => string | undefined
  /** In ms since the epoch. */
  readonly now: () => number
  /** From 0 to 1. */
  readonly random: () => number
  /** Resolves after so many ms; rejects when it is aborted. @default Node's timer, which keeps no process alive */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>
  readonly events: {
    /** Of a tag that has moved, all is held now that was held of it before. */
    refreshed(refreshed: Refreshed): void
    failed(what: string, error: unknown): void
  }
}

/** What is fetched of a tag that has moved: from which manifest, and to which. `over`: it is not tried any more. */
type Move = { readonly from: Digest; readonly to: Digest; tries: number; bytes: number; over: boolean }

/** `use` is told of bytes that have come, and tells how long to wait then, in ms. */
type Errand = { readonly name: Name; readonly from: Digest; readonly use: (bytes: number) => number }

type Tag = { readonly image: string; readonly name: Name; readonly tag: string; readonly held: Sighting }

/** `later`: it may not be fetched now. */
type Outcome = 'held' | 'refused' | 'failed' | 'later'

/**
 * Fetches what much-pulled tags have moved to before a client asks for it. It stays behind clients: one thing at a time,
 * when nothing else arrives, at a part of the line's rate, so much a day, and nothing of what a registry limits.
 */
export class Refresher implements AsyncDisposable {
  readonly #options: RefresherOptions
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  readonly #closing = new AbortController()
  readonly #running: Promise<void>
  readonly #today: Budget
  /** What has begun and is not done, by image. */
  readonly #moves = new Map<string, Move>()

  /** Begins with the first pause. */
  constructor(options: RefresherOptions) {
    this.#options = options
    const { sleep = (ms, signal) => nodeSleep(ms, undefined, { ref: false, signal }), now } = options
    this.#sleep = sleep
    this.#today = new Budget({ rate: mostADay / day, most: mostADay, now })
    this.#running = this.#run()
  }

  /** Asks for nothing more; what is on its way is the resolver's to end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('shoal is stopping'))
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      // It is only ever cut short by the end.
      await this.#pause(period * (1 + this.#options.random())).catch(() => {})
      await this.round()
    }
  }

  /** Looks once what has moved, and fetches it. Is due every few minutes; never rejects. */
  async round(): Promise<void> {
    const { resting, events } = this.#options
    for (const tag of this.#due()) {
      if (this.#closing.signal.aborted || resting() !== undefined) return
      try {
        await this.#refresh(tag)
      } catch (error) {
        if (this.#closing.signal.aborted) return
        events.failed(`refreshing ${tag.image}`, error)
      }
    }
  }

  /** The tags that are to be asked for. */
  #due(): readonly Tag[] {
    const { store, popular, responsible, now } = this.#options
    const due: Tag[] = []
    const images = new Set<string>()
    for (const { image, count } of popular()) {
      if (count < leastPulls || due.length === mostAsked) break
      images.add(image)
      const { name, tag, digest } = readReference(image) ?? {}
      if (!name || tag === undefined || digest !== undefined) continue
      const held = store.refs.held(name, tag)
      const seenAt = store.refs.seen(name, tag)?.at ?? 0
      const begun = this.#moves.get(image)
      if (!held || (Math.abs(now() - seenAt) < seenLately && (!begun || begun.over))) continue
      if (responsible(formatName(name), held.descriptor.digest)) due.push({ image, name, tag, held })
    }
    for (const image of this.#moves.keys()) if (!images.has(image)) this.#moves.delete(image)
    return due
  }

  async #refresh({ image, name, tag, held }: Tag): Promise<void> {
    const { resolver, events } = this.#options
    if (!resolver.canSpare(name)) return
    const seen = await resolver.look(name, tag)
    if (!seen) return
    const { descriptor } = seen
    const begun = this.#moves.get(image)
    if (begun?.over && begun.to === descriptor.digest) return
    const from = begun && !begun.over ? begun.from : held.descriptor.digest
    this.#moves.delete(image)
    if (from === descriptor.digest) return
    const same = begun?.to === descriptor.digest
    const move: Move = same ? begun : { from, to: descriptor.digest, tries: 0, bytes: 0, over: false }
    this.#moves.set(image, move)
    const outcome = await this.#bringImage(descriptor, this.#errand(name, move))
    if (outcome === 'later' || (outcome === 'failed' && ++move.tries < mostTries)) return
    // Asking again would be a pull each time that the registry counts.
    if (outcome === 'held') this.#moves.delete(image)
    else move.over = true
    const { to: digest, bytes } = move
    if (outcome === 'held' && bytes > 0) events.refreshed({ image, digest, bytes })
  }

  #errand(name: Name, move: Move): Errand {
    const { resolver, now } = this.#options
    const measured = resolver.rateOf(name)
    const rate = measured === undefined ? unmeasuredRate : measured * shareOfLine
    const line = new Budget({ rate, most: rate * burst, now })
    const use = (bytes: number) => {
      move.bytes += bytes
      this.#today.use(bytes)
      return line.use(bytes)
    }
    return { name, from: move.from, use }
  }

  /** Brings what a tag is now, as far as there was more than a manifest of what it was. */
  async #bringImage(descriptor: Descriptor, errand: Errand): Promise<Outcome> {
    const outcome = await this.#bring(descriptor, 'manifest', errand)
    if (outcome !== 'held') return outcome
    const manifest = await this.#manifest(descriptor.digest)
    if (!manifest) return 'failed'
    const used = await this.#usedPlaces(errand.from)
    if (manifest.manifests.length === 0) return used.size > 0 ? this.#bringParts(manifest, errand) : 'held'
    for (const [place, child] of placesOf(manifest)) {
      const outcome = used.has(place) ? await this.#bringChild(child, errand) : 'held'
      if (outcome !== 'held') return outcome
    }
    return 'held'
  }

  async #bringChild(descriptor: Descriptor, errand: Errand): Promise<Outcome> {
    const outcome = await this.#bring(descriptor, 'manifest', errand)
    if (outcome !== 'held') return outcome
    const manifest = await this.#manifest(descriptor.digest)
    return manifest ? this.#bringParts(manifest, errand) : 'failed'
  }

  async #bringParts({ config, layers }: Manifest, errand: Errand): Promise<Outcome> {
    for (const part of config ? [config, ...layers] : layers) {
      const outcome = await this.#bring(part, 'blob', errand)
      if (outcome !== 'held') return outcome
    }
    return 'held'
  }

  async #bring({ digest, size }: Descriptor, kind: Want['kind'], { name, use }: Errand): Promise<Outcome> {
    const { store, resolver, resting } = this.#options
    while (store.transfers.length > 0) await this.#pause(patience)
    if (store.sizeOf(digest) !== undefined) return 'held'
    if (resting() !== undefined || !resolver.canSpare(name) || this.#today.left < size) return 'later'
    if (kind === 'manifest') use(size)
    const pace = (bytes: number) => {
      const owed = use(bytes)
      // At the end all is let go.
      return owed > 0 ? this.#pause(owed).catch(() => {}) : undefined
    }
    return resolver.prefetch(name, digest, kind, pace, this.#closing.signal)
  }

  /** Where those stand in an image or index that some layers are held of: who only looks at an image gets none. */
  async #usedPlaces(digest: Digest): Promise<ReadonlySet<string>> {
    const used = new Set<string>()
    const manifest = await this.#manifest(digest)
    if (!manifest) return used
    if (manifest.manifests.length === 0 && this.#isUsed(manifest)) used.add('')
    for (const [place, child] of placesOf(manifest)) {
      const image = await this.#manifest(child.digest)
      if (image && this.#isUsed(image)) used.add(place)
    }
    return used
  }

  #isUsed({ layers }: Manifest): boolean {
    const { store } = this.#options
    return layers.length === 0 || layers.some(({ digest }) => store.sizeOf(digest) !== undefined)
  }

  async #manifest(digest: Digest): Promise<Manifest | undefined> {
    return (await this.#options.store.manifest(digest))?.manifest
  }

  /** @throws when all is to end */
  #pause(ms: number): Promise<void> {
    return this.#sleep(ms, this.#closing.signal)
  }
}

/**
 * Where each image stands in an index: for its platform, the how manyeth of several. Windows has one for each of its
 * versions. What is for no platform (attestations) is no image.
 */
function placesOf({ manifests }: Manifest): ReadonlyMap<string, Descriptor> {
  const places = new Map<string, Descriptor>()
  const counts = new Map<string, number>()
  for (const descriptor of manifests) {
    const { platform: of } = descriptor
    if (!of || of.os === 'unknown') continue
    const platform = `${of.os}/${of.architecture}/${of.variant ?? ''}`
    const count = counts.get(platform) ?? 0
    counts.set(platform, count + 1)
    places.set(`${platform} ${count}`, descriptor)
  }
  return places
}
