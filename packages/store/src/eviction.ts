import { setImmediate } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import type { Item } from '@shoal/retention/inventory'
import { type Victim, Victims } from '@shoal/retention/victims'
import type { Demand } from '@shoal/retention/worth'
import { NoRoomError, type Room } from './room.ts'
import { Stock } from './stock.ts'
import type { Store } from './store.ts'

/** A store that is too full for what arrives is emptied to this part of what it may have: not for each blob anew. */
const lowMark = 0.97

/** The same for the disk: so much more than must be free is made free, as a part of all of it. */
const freeMargin = 0.005
const mostMargin = 512 * 1024 * 1024

/** How often it is looked whether something else has filled the disk, in ms. */
const lookEvery = 10_000

/** How long is chosen without a break, in ms. */
const sliceTime = 2

/** Images that are looked up without a break. */
const imagesAtOnce = 500

/** How full the store is when it looks ahead, and how far, both as parts of what it may have. */
const scoutMark = 0.9
const scoutedPart = 0.05

/** How often it does so, in ms, and of how many blobs the copies are to be proved. */
const scoutEvery = 60_000
const mostScouted = 128

/** How long what no image needs may be of some that is about to come, in ms. */
const mayBeNeeded = 3_600_000

/** How long something that a peer wants counts as wanted, in ms, and how much. */
const wantedFor = 3_600_000
const wantedOnce: Demand = { own: 0, office: 1 }

/** Why something has to go. */
export type Cause = 'max_size' | 'min_free' | 'gc' | 'rm'

/** A blob that goes, or would, and the tags here that it is of. */
export type Evicted = Omit<Victim, 'id'> & { readonly digest: Digest; readonly images: readonly string[] }

/** Where other machines stand. */
export type Copies = {
  /** Machines other than this one that hold a blob, as far as they have proved it. */
  proved(digest: Digest): number
  /** As far as they say. */
  claimed(digest: Digest): number
  /** Whether, of all who hold it, this machine is the one to keep it. */
  keeps(digest: Digest): boolean
  /** Has those who say that they hold something prove it. */
  prove(blobs: readonly { readonly digest: Digest; readonly size: number }[]): Promise<void>
}

export type EvictionOptions = {
  readonly store: Store
  /** What `blobs/` and `ingest/` may have together, in bytes. */
  readonly maxBytes: number
  /** What is to be left free of the disk, in bytes. */
  readonly minFree: number
  /** How often images were pulled lately, by their whole references. */
  readonly demands: () => Iterable<{ readonly image: string } & Demand>
  readonly copies: Copies
  /** In ms since the epoch. */
  readonly now: () => number
  /** From 0 to 1. */
  readonly random: () => number
  readonly events: {
    evicted(blob: Evicted, cause: Cause): void
    /** Something that has arrived is not kept: all else is worth more, or nothing else may go. */
    refused(digest: Digest, why: 'worth' | 'stuck'): void
    failed(error: unknown): void
  }
}

/** What a collection has removed, or would: a blob, or what is left of a transfer, in bytes. */
export type Collected =
  | { readonly blob: Evicted }
  | { readonly parked: { readonly digest: Digest; readonly size: number } }

/** Bytes that are needed: with fewer than `least`, nothing is won. */
type Need = { readonly least: number; readonly best: number }

/**
 * Keeps the store under its size, and some of the disk free: what is worth least to this machine and the others goes,
 * images whole. What arrives is kept if it is worth more than what would have to go for it.
 */
export class Eviction implements Room, AsyncDisposable {
  readonly #options: EvictionOptions
  readonly #stock: Stock
  readonly #timer: NodeJS.Timeout
  /** Blobs that have begun to arrive, and their sizes in bytes. */
  readonly #begun = new Map<Digest, number>()
  /** Those that have arrived and are about to be stored. */
  readonly #admitted = new Map<Digest, number>()
  /** Those that were not kept, until what is held and needs them has gone, too. */
  readonly #refused = new Set<Digest>()
  /** What peers want, and until when, in ms since the epoch. */
  readonly #wanted = new Map<Digest, number>()
  /** How often what is held was pulled, as of the beginning of the change under way. */
  #demands: Promise<ReadonlyMap<string, Demand>> | undefined
  /** What must stay for the time being, as of the last look. */
  #busy: ReadonlySet<string> = new Set()
  /** The same of what is called what. */
  #tags: ReadonlyMap<string, readonly string[]> = new Map()
  /** The images of what is needed by a manifest that has gone, or would. */
  readonly #wasOf = new Map<string, readonly string[]>()
  /** One change at a time. */
  #last: Promise<unknown> = Promise.resolve()
  #scoutedAt = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(options: EvictionOptions) {
    this.#options = options
    const { store, now } = options
    this.#stock = new Stock(store, now)
    this.#stock.ready.catch(error => options.events.failed(error))
    store.keepRoom(this)
    this.#timer = setInterval(() => this.look().catch(error => options.events.failed(error)), lookEvery).unref()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    this.#stock[Symbol.dispose]()
    await this.#last
  }

  /** What `blobs/` and `ingest/` have, in bytes. */
  get bytes(): number {
    const { store } = this.#options
    return store.held.bytes + this.#parked + store.transfers.reduce((sum, { have }) => sum + have.total, 0)
  }

  /** A blob was read for somebody. */
  used(digest: Digest): void {
    this.#stock.used(digest)
  }

  /** A peer wants a blob that is fetched for it. */
  wanted(digest: Digest): void {
    const now = this.#options.now()
    for (const [each, until] of this.#wanted) if (until <= now) this.#wanted.delete(each)
    this.#wanted.set(digest, now + wantedFor)
  }

  async make(digest: Digest, size: number): Promise<void> {
    const { maxBytes, events } = this.#options
    if (size > maxBytes) {
      this.#refused.add(digest)
      throw new NoRoomError('blob', `${digest} has ${size} bytes, more than store.max_size, which is ${maxBytes}`)
    }
    this.#begun.set(digest, size)
    if ((await this.#lacking(digest)) > 0) {
      await this.#turn(async () => this.#freeDisk('or nothing', await this.#worthOf(digest, size), digest))
      const short = await this.#lacking(digest)
      if (short > 0) {
        this.#begun.delete(digest)
        this.#refused.add(digest)
        throw new NoRoomError('disk', `the disk would have ${short} bytes less free than store.min_free asks for`)
      }
    }
    const excess = (mark: number) => this.#used(digest) + this.#arriving - mark * maxBytes
    if (excess(1) <= 0) return
    const need = () => ({ least: excess(1), best: excess(lowMark) })
    const ahead = async () => this.#collect(need, 'max_size', await this.#worthOf(digest, size))
    // Nobody waits for it: until all has arrived there can be too much.
    this.#turn(ahead).catch(error => events.failed(error))
  }

  async admits(digest: Digest, size: number, kind: 'manifest' | 'blob'): Promise<boolean> {
    const { maxBytes, events } = this.#options
    const excess = () => this.#used(digest) + this.#soon + size - maxBytes
    const fits = () => {
      if (excess() > 0) return false
      this.#admitted.set(digest, size)
      return true
    }
    return (
      fits() ||
      this.#turn(async () => {
        if (fits()) return true
        // Without its manifest, what an image needs is worth nothing.
        const worth = kind === 'manifest' ? Number.POSITIVE_INFINITY : await this.#worthOf(digest, size)
        await this.#collect(() => ({ least: excess(), best: excess() }), 'max_size', worth)
        if (fits()) return true
        this.#refused.add(digest)
        events.refused(digest, (await this.#mayAnythingGo()) ? 'worth' : 'stuck')
        return false
      })
    )
  }

  /** Looks whether all is as it should be; is due every now and then. */
  async look(): Promise<void> {
    const { maxBytes, now } = this.#options
    await this.#turn(async () => {
      await this.#dropIncomplete()
      const excess = () => this.#used() + this.#soon - maxBytes
      await this.#collect(() => ({ least: 0, best: excess() }), 'max_size', Number.POSITIVE_INFINITY)
      if ((await this.#lacking()) > 0) await this.#freeDisk('as far as possible', Number.POSITIVE_INFINITY)
    })
    if (this.bytes < scoutMark * maxBytes || now() - this.#scoutedAt < scoutEvery) return
    this.#scoutedAt = now()
    await this.#scout()
  }

  /**
   * Removes at once what is to go: what transfers have left, what no image needs, and what is above the marks.
   * @param dry whether it is only told
   * @param tell ends it if it throws
   */
  collect(dry: boolean, tell: (collected: Collected) => void): Promise<void> {
    return this.#turn(async () => {
      const { store, maxBytes } = this.#options
      let freed = dry ? this.#parked : 0
      for (const [digest, size] of [...store.parked]) {
        if (!dry) await store.evictParked(digest)
        tell({ parked: { digest, size } })
      }
      const victims = await this.#choose()
      const remove = async (group: readonly Victim[]) => {
        for (const victim of group) if (dry) freed += victim.size
        const gone = dry ? group.map(victim => this.#evicted(victim)) : await this.#evict(group, 'gc')
        for (const blob of gone) tell({ blob })
      }
      for (const item of this.#unneeded()) await remove(victims.take(item) ?? [])
      const lacking = (await this.#lacking()) - freed
      const before = { bytes: this.bytes, freed }
      const over = () => {
        const since = dry ? freed - before.freed : before.bytes - this.bytes
        return Math.max(this.#used() + this.#soon - (dry ? freed : 0) - lowMark * maxBytes, lacking - since)
      }
      await this.#each(victims, over, remove)
    })
  }

  /** Removes a manifest that no other needs, and what only it needs; but not what is pinned or in use. */
  remove(manifest: Digest): Promise<readonly Evicted[]> {
    return this.#turn(async () => {
      const victims = await this.#choose()
      const { inventory } = this.#stock
      const removed: Evicted[] = []
      const removable = new Set<string>(inventory.parentsOf(manifest).size === 0 ? [manifest] : [])
      for (const id of removable) {
        const item = inventory.get(id)
        const parts = item?.parts?.ids ?? []
        const alone = parts.filter(part => [...inventory.parentsOf(part)].every(parent => removable.has(parent.id)))
        const evicted = await this.#evict((item && victims.take(item)) ?? [], 'rm')
        if (evicted.length > 0) for (const part of alone) removable.add(part)
        removed.push(...evicted)
      }
      return removed
    })
  }

  #turn<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      this.#demands = undefined
      return act()
    })
    this.#last = turn.catch(() => {})
    return turn
  }

  /** What is on the disk for good, in bytes, but for what is left of one blob that arrives. */
  #used(arriving?: Digest): number {
    const { store } = this.#options
    return store.held.bytes + this.#parked - (arriving === undefined ? 0 : (store.parked.get(arriving) ?? 0))
  }

  get #parked(): number {
    return this.#options.store.parked.values().reduce((sum, size) => sum + size, 0)
  }

  /** Bytes of all that arrives, when it will be there. */
  get #arriving(): number {
    const { store } = this.#options
    let bytes = 0
    for (const [digest, size] of this.#begun) {
      // The disk may have taken no more of it.
      if (store.transfer(digest)?.stores) bytes += size
      else this.#begun.delete(digest)
    }
    return bytes
  }

  /** Bytes of what is about to be stored. */
  get #soon(): number {
    const { store } = this.#options
    let bytes = 0
    for (const [digest, size] of this.#admitted) {
      if (store.transfer(digest) && store.sizeOf(digest) === undefined) bytes += size
      else this.#admitted.delete(digest)
    }
    return bytes
  }

  /** How many bytes of the disk too few will be free when all has arrived. */
  async #lacking(arriving?: Digest): Promise<number> {
    const { store, minFree } = this.#options
    const { free } = await store.space()
    const here = store.transfers.reduce((sum, { have }) => sum + have.total, 0)
    const left = arriving === undefined ? 0 : (store.parked.get(arriving) ?? 0)
    return minFree + Math.max(this.#arriving - here - left, 0) - free
  }

  async #freeDisk(how: 'or nothing' | 'as far as possible', below: number, arriving?: Digest): Promise<void> {
    const { store } = this.#options
    await store.emptyQuarantine()
    const { total } = await store.space()
    const lacking = await this.#lacking(arriving)
    const margin = Math.min(freeMargin * total, mostMargin)
    const before = this.bytes
    const need = () => {
      const left = lacking - (before - this.bytes)
      return { least: how === 'or nothing' ? left : 0, best: left + margin }
    }
    await this.#collect(need, 'min_free', below)
  }

  /** Removes what is worth less than `below`: nothing of that if it does not suffice. */
  async #collect(need: () => Need, cause: Cause, below: number): Promise<void> {
    const { store } = this.#options
    for (const digest of [...store.parked.keys()]) {
      if (need().best <= 0) return
      await store.evictParked(digest)
    }
    const { least, best } = need()
    if (best <= 0) return
    const chosen: (readonly Victim[])[] = []
    let bytes = 0
    await this.#each(
      await this.#choose(below),
      () => best - bytes,
      async group => {
        chosen.push(group)
        for (const { size } of group) bytes += size
      },
    )
    if (bytes < least) return
    for (const group of chosen) {
      if (this.#closed || need().best <= 0) return
      await this.#evict(group, cause)
    }
  }

  async #each(victims: Victims, needed: () => number, remove: (group: readonly Victim[]) => Promise<void>) {
    let pause = performance.now() + sliceTime
    while (!this.#closed && needed() > 0) {
      this.#busy = this.#inUse
      const group = victims.next()
      if (!group) return
      if (group.length > 0) await remove(group)
      if (performance.now() < pause) continue
      await setImmediate()
      pause = performance.now() + sliceTime
    }
  }

  /** @param copiesOf other machines that hold a blob. @default as far as they have proved it */
  async #choose(below = Number.POSITIVE_INFINITY, copiesOf = this.#options.copies.proved): Promise<Victims> {
    await this.#stock.ready
    const { copies, now, random } = this.#options
    this.#demands ??= this.#lookForDemands()
    const demands = await this.#demands
    this.#busy = this.#inUse
    this.#tags = this.#options.store.refs.tagsByDigest()
    this.#wasOf.clear()
    const none: Demand = { own: 0, office: 0 }
    return new Victims({
      inventory: this.#stock.inventory,
      demandOf: id => demands.get(id) ?? none,
      copiesOf: id => {
        const others = copiesOf(id as Digest)
        return others === 0 || copies.keeps(id as Digest) ? 1 : 1 + others
      },
      stays: id => this.#isKept(id) || this.#busy.has(id),
      random,
      now: now(),
      below,
    })
  }

  async #mayAnythingGo(): Promise<boolean> {
    const victims = await this.#choose()
    for (let group: readonly Victim[] | undefined; (group = victims.next()); ) {
      if (group.length > 0) return true
      await setImmediate()
    }
    return false
  }

  /** What it would be worth to keep a blob that is not held yet. */
  async #worthOf(digest: Digest, size: number): Promise<number> {
    const item: Item = { id: digest, size, parts: undefined, usedAt: this.#options.now(), place: -1 }
    return this.#isKept(digest) ? Number.POSITIVE_INFINITY : (await this.#choose()).worthOf(item)
  }

  /** How often what was pulled by digest, or is called something that was. */
  async #lookForDemands(): Promise<ReadonlyMap<string, Demand>> {
    const { store, demands, now } = this.#options
    const all = new Map<string, Demand>()
    const add = (digest: Digest, { own, office }: Demand) => {
      const before = all.get(digest)
      all.set(digest, before ? { own: before.own + own, office: before.office + office } : { own, office })
    }
    let looked = 0
    for (const { image, ...demand } of demands()) {
      // What a tag was last seen to be is wanted, and as long as that is not held, what it was before.
      const at = image.indexOf('@')
      for (const digest of at < 0 ? store.refs.digestsOf(image) : [image.slice(at + 1) as Digest]) add(digest, demand)
      if (++looked % imagesAtOnce === 0) await setImmediate()
    }
    for (const [digest, until] of this.#wanted) if (until > now()) add(digest, wantedOnce)
    return all
  }

  /** Whether something must stay because somebody said so, of itself or of what needs it. */
  #isKept(id: string): boolean {
    const kept: ReadonlySet<string> = this.#options.store.refs.kept
    return kept.size > 0 && this.#withNeeders([id]).some(each => kept.has(each))
  }

  /** Some blobs, and the manifests that need them, also by way of others. */
  #withNeeders(ids: Iterable<string>): readonly string[] {
    const all = new Set(ids)
    for (const id of all) for (const parent of this.#stock.inventory.parentsOf(id)) all.add(parent.id)
    return [...all]
  }

  /** What is being read or arrives, and what needs that. */
  get #inUse(): ReadonlySet<string> {
    return new Set(this.#withNeeders(this.#options.store.inUse))
  }

  /** Whether none of a group was pinned, came into use, or is needed by something that stays, since it was chosen. */
  #mayStillGo(group: readonly Victim[]): boolean {
    const { inventory } = this.#stock
    const going = new Set(group.map(({ id }) => id))
    const inUse = this.#inUse
    const isLeft = (id: string) => inventory.get(id) !== undefined && !going.has(id)
    return group.every(
      ({ id }) =>
        !this.#isKept(id) &&
        !inUse.has(id) &&
        [...inventory.parentsOf(id)].every(
          parent => going.has(parent.id) || (parent.parts?.needs === 'any' && parent.parts.ids.some(isLeft)),
        ),
    )
  }

  async #evict(group: readonly Victim[], cause: Cause): Promise<readonly Evicted[]> {
    const { store, events } = this.#options
    if (!this.#mayStillGo(group)) return []
    const told = group.map(victim => this.#evicted(victim))
    const gone = new Set(await store.evict(told.map(({ digest }) => digest)))
    const evicted = told.filter(({ digest }) => gone.has(digest))
    for (const blob of evicted) events.evicted(blob, cause)
    return evicted
  }

  #evicted({ id, ...victim }: Victim): Evicted {
    const { inventory } = this.#stock
    const images = this.#wasOf.get(id) ?? this.#withNeeders([id]).flatMap(each => this.#tags.get(each) ?? [])
    for (const part of inventory.get(id)?.parts?.ids ?? []) this.#wasOf.set(part, images)
    return { digest: id as Digest, ...victim, images }
  }

  /** Blobs that are of no image here, and that nobody has pulled by themselves lately. */
  #unneeded(): readonly Item[] {
    const { inventory } = this.#stock
    const old = this.#options.now() - mayBeNeeded
    return inventory.items.filter(
      ({ id, parts, usedAt }) => !parts && usedAt < old && inventory.parentsOf(id).size === 0,
    )
  }

  /** Removes images of which something was not kept. */
  async #dropIncomplete(): Promise<void> {
    const { store } = this.#options
    const { inventory } = this.#stock
    for (const digest of this.#refused) {
      // An index is of use as long as it has another image.
      const isHeld = (id: string) => id !== digest && inventory.get(id) !== undefined
      const parents = [...inventory.parentsOf(digest)].filter(
        ({ parts }) => parts?.needs === 'all' || !parts?.ids.some(isHeld),
      )
      if (parents.some(({ parts }) => parts?.ids.some(id => store.transfer(id as Digest)))) continue
      let left = false
      for (const parent of store.sizeOf(digest) === undefined ? parents : []) {
        const group = (await this.#choose()).take(parent)
        if (group) await this.#evict(group, 'max_size')
        left ||= !this.#isKept(parent.id) && inventory.get(parent.id) !== undefined
      }
      if (!left) this.#refused.delete(digest)
    }
  }

  /** Finds out whether the copies are there because of which something might go soon. */
  async #scout(): Promise<void> {
    const { copies, maxBytes } = this.#options
    let found = 0
    const looked: { digest: Digest; size: number }[] = []
    const needed = () => (looked.length < mostScouted ? scoutedPart * maxBytes - found : 0)
    await this.#each(await this.#choose(Number.POSITIVE_INFINITY, copies.claimed), needed, async group => {
      for (const { id, size } of group) {
        found += size
        const digest = id as Digest
        if (copies.claimed(digest) > copies.proved(digest)) looked.push({ digest, size })
      }
    })
    if (looked.length > 0) await copies.prove(looked)
  }
}
