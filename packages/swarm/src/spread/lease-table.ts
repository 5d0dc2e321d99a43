import type { Digest } from '@shoal/oci/digest'
import { ChunkSet, Chunks, chunkSizeOf, isChunkSize } from './chunks.ts'
import { weightOf } from './coordinators.ts'
import type { Ask, Have, LeaseMessage } from './spread-message.ts'
import type { Tuning } from './tuning.ts'

/** How long who fetches may say nothing, in ms; longer at the beginning: there are tokens, and redirects. */
const silence = 1200
const startTime = 3000

/** How long a member is known that says nothing, in ms. */
const forgotten = 15_000

/** Another one is to fetch as well only if it is worth while: chunks that are left, and ms that they would take. */
const worthChunks = 4
const worthTime = 8000

/** How long those who fetch do so until it is looked whether they are fast, in ms. */
const settleTime = 600

/** How long one more is watched until it is known whether it helps, in ms, and what all must be faster by. */
const trialTime = 1000
const worthRate = 1.2

/** Who brings so many times what another brings takes its place. */
const muchFaster = 2

/** How long what has been fetched may take to be heard of by all, in ms; and how long who says that it starves does. */
const spreadTime = 5000
const hungryFor = 3000

/** Who fetches at once, at most. */
const mostFetchers = 6

/** Blobs of which a table is kept, at most. */
const mostEntries = 1000

type Participant = {
  gives: boolean
  line: boolean
  /** When it was last heard of, in ms. */
  at: number
  /** Whom it has been told of, and who has been told of it. */
  readonly links: Set<string>
}

/** What one fetches, as its word is heard. */
type Claim = {
  left: ChunkSet
  epoch: number
  /** When it was last heard of, and when it last got on, in ms. */
  at: number
  movedAt: number
  /** Chunks that it has brought. */
  done: number
}

/** One more that fetches, until it is known whether that helps. */
type Trial = {
  readonly by: string
  /** Whose part it was given. */
  readonly from: string
  /** How fast all were before, in chunks/ms. */
  readonly before: number
  /** When it brought its first chunk, and what all had brought by then, and the two. */
  begun: { readonly at: number; readonly done: number; readonly first: number; readonly second: number } | undefined
}

type Entry = {
  readonly digest: Digest
  readonly chunks: Chunks
  epoch: number
  /** Whether anybody has ever fetched it. */
  begun: boolean
  readonly members: Map<string, Participant>
  readonly claims: Map<string, Claim>
  /** When each chunk was fetched, in ms, and by whom. */
  readonly fetchedAt: Float64Array
  readonly fetchedBy: (string | undefined)[]
  /** Since those fetch who do now: when that was, when they brought their first chunk, and how many after that. */
  since: number
  firstAt: number | undefined
  done: number
  /** Who has said that it starves, and when. */
  readonly hungry: Map<string, number>
  trial: Trial | undefined
  /** Whether one more has not helped. */
  enough: boolean
}

export type LeaseTableOptions = {
  readonly tuning: Tuning
  readonly now: () => number
  readonly random: () => number
  readonly send: (to: string, message: LeaseMessage) => void
}

/** Who fetches what of the blobs that this machine is the coordinator of, and who takes part. */
export class LeaseTable {
  readonly #options: LeaseTableOptions
  readonly #entries = new Map<Digest, Entry>()

  constructor(options: LeaseTableOptions) {
    this.#options = options
  }

  /** Blobs that it knows of. */
  get size(): number {
    return this.#entries.size
  }

  has(digest: Digest): boolean {
    return this.#entries.has(digest)
  }

  /** Answers one who asks. */
  ask(from: string, ask: Ask): void {
    const { digest, size, n, gives, line, epoch } = ask
    const entry = this.#entryOf(digest, size, ask.chunk)
    if (!entry) return
    entry.epoch = Math.max(entry.epoch, epoch)
    if (ask.why === 'new') this.#forget(entry, from)
    this.#entries.set(digest, entry)
    this.#expire(entry)
    this.#heard(entry, from, gives, line)
    const fetch = this.#fetchFor(entry, from, ask)
    this.#tell(entry, from, n, fetch, this.#introduce(entry, from))
  }

  /** Hears what one says of what it has, and fetches. */
  have(from: string, have: Have): void {
    const { digest, size, chunk, add, claim, epoch, gives } = have
    // Others may know more than this machine, which may just have become the coordinator.
    const entry = this.#entryOf(digest, size, chunk)
    if (!entry || entry.chunks.chunk !== chunk || !entry.chunks.holds(claim) || !entry.chunks.holds(add)) return
    const isNew = this.#heard(entry, from, gives, entry.members.get(from)?.line ?? true)
    entry.epoch = Math.max(entry.epoch, epoch)
    const before = entry.claims.get(from)
    // What it was told may not have reached it.
    if (before && epoch < before.epoch) return
    if (before) this.#brought(entry, from, before, add)
    if (claim.length > 0 && gives) this.#claimed(entry, from, new ChunkSet(entry.chunks.count, claim), epoch)
    else if (before) {
      entry.claims.delete(from)
      this.#ended(entry, from)
    }
    this.#judge(entry)
    if (isNew) this.#tell(entry, from, 0, new ChunkSet(entry.chunks.count, claim), this.#introduce(entry, from))
  }

  leave(member: string, digest: Digest): void {
    const entry = this.#entries.get(digest)
    if (entry) this.#forget(entry, member)
  }

  left(member: string): void {
    for (const entry of [...this.#entries.values()]) {
      // What it has fetched of late may have gone with it.
      for (const [index, by] of entry.fetchedBy.entries())
        if (by === member) entry.fetchedAt[index] = Number.NEGATIVE_INFINITY
      this.#forget(entry, member)
    }
  }

  #entryOf(digest: Digest, size: number, chunk: number): Entry | undefined {
    const known = this.#entries.get(digest)
    // Who tells another size than the first one is wrong, or that one is: it goes its own way.
    if (known) return known.chunks.size === size ? known : undefined
    if (chunk !== 0 && !isChunkSize(size, chunk)) return undefined
    for (const entry of [...this.#entries.values()]) this.#expire(entry)
    if (this.#entries.size >= mostEntries) return undefined
    const chunks = new Chunks(size, chunk === 0 ? chunkSizeOf(size, this.#options.tuning) : chunk)
    const entry: Entry = {
      digest,
      chunks,
      epoch: 0,
      begun: false,
      members: new Map(),
      claims: new Map(),
      fetchedAt: new Float64Array(chunks.count).fill(Number.NEGATIVE_INFINITY),
      fetchedBy: new Array<string | undefined>(chunks.count).fill(undefined),
      since: 0,
      firstAt: undefined,
      done: 0,
      hungry: new Map(),
      trial: undefined,
      enough: false,
    }
    this.#entries.set(digest, entry)
    return entry
  }

  /** @returns whether it has just come */
  #heard(entry: Entry, member: string, gives: boolean, line: boolean): boolean {
    const at = this.#options.now()
    const known = entry.members.get(member)
    if (known) Object.assign(known, { gives, line, at })
    else entry.members.set(member, { gives, line, at, links: new Set() })
    return known === undefined
  }

  #forget(entry: Entry, member: string): void {
    for (const other of entry.members.get(member)?.links ?? []) entry.members.get(other)?.links.delete(member)
    entry.members.delete(member)
    if (entry.claims.delete(member)) this.#ended(entry, member)
    if (entry.members.size === 0) this.#entries.delete(entry.digest)
  }

  /** Forgets those who have fallen silent. */
  #expire(entry: Entry): void {
    const now = this.#options.now()
    for (const [member, { at, movedAt, done }] of entry.claims)
      if (now - at > (done === 0 ? startTime : silence) || now - movedAt > startTime) {
        entry.claims.delete(member)
        this.#ended(entry, member)
      }
    for (const [member, { at }] of entry.members) if (now - at > forgotten) this.#forget(entry, member)
  }

  /** Some whom one gets to know. */
  #introduce(entry: Entry, to: string): string[] {
    const { members } = entry
    const { tuning, random } = this.#options
    const { mates } = tuning
    const { links } = members.get(to)!
    const all = members.size <= mates
    const free = [...members].filter(
      ([id, other]) => id !== to && !links.has(id) && (all || other.links.size < (mates * 3) / 2),
    )
    const chosen: string[] = []
    const most = all ? mates : Math.max(mates / 2 - (links.size >>> 1), 1)
    while (chosen.length < most && free.length > 0) {
      const [[id, other] = []] = free.splice(Math.floor(random() * free.length), 1)
      if (id === undefined || !other) break
      chosen.push(id)
      links.add(id)
      other.links.add(to)
    }
    return chosen
  }

  #fetchFor(entry: Entry, from: string, { want, why, gives, line }: Ask): ChunkSet {
    const { chunks, claims } = entry
    const none = new ChunkSet(chunks.count)
    if (!line || !chunks.holds(want)) return none
    if (why === 'new') {
      if (entry.begun) return none
      const all = new ChunkSet(chunks.count, [[0, chunks.count]])
      // Who gives nothing fetches for itself alone.
      return gives ? this.#grant(entry, from, all) : all
    }
    if (why === 'starving') {
      if (gives) this.#share(entry, from)
      return claims.get(from)?.left ?? none
    }
    const now = this.#options.now()
    const free = new ChunkSet(chunks.count, want)
    for (const index of free) if (now - entry.fetchedAt[index]! < spreadTime) free.delete(index)
    for (const [member, { left }] of claims) if (member !== from) for (const index of left) free.delete(index)
    if (free.total > 0) return this.#grant(entry, from, free)
    return claims.get(from)?.left ?? none
  }

  #grant(entry: Entry, to: string, fetch: ChunkSet): ChunkSet {
    const now = this.#options.now()
    const before = entry.claims.get(to)
    for (const index of before?.left ?? []) fetch.add(index)
    entry.begun = true
    entry.epoch++
    this.#begin(entry)
    entry.claims.set(to, { left: fetch, epoch: entry.epoch, at: now, movedAt: now, done: before?.done ?? 0 })
    return fetch
  }

  #claimed(entry: Entry, from: string, left: ChunkSet, epoch: number): void {
    const now = this.#options.now()
    const { claims } = entry
    const claim = claims.get(from)
    entry.begun = true
    if (claim) {
      Object.assign(claim, { left, at: now, epoch })
    } else claims.set(from, { left, epoch, at: now, movedAt: now, done: 0 })
    // After a partition, or a change of coordinators, there may be two: one of them leaves to the other what both fetch.
    const mine = claims.get(from)!
    for (const [member, other] of claims) {
      if (member === from) continue
      const first =
        mine.epoch > other.epoch ||
        (mine.epoch === other.epoch && weightOf(entry.digest, from) > weightOf(entry.digest, member))
      const [winner, loser, lost] = first ? [mine, other, member] : [other, mine, from]
      let overlaps = false
      for (const index of winner.left) overlaps = loser.left.delete(index) || overlaps
      if (!overlaps) continue
      this.#change(entry, lost, loser)
      this.#tell(entry, lost, 0, loser.left, this.#introduce(entry, lost))
    }
  }

  /** One has some of what it was to fetch. */
  #brought(entry: Entry, member: string, claim: Claim, add: Have['add']): void {
    const now = this.#options.now()
    let brought = 0
    for (const [start, end] of add)
      for (let i = start; i < end; i++) {
        if (!claim.left.delete(i)) continue
        brought++
        entry.fetchedAt[i] = now
        entry.fetchedBy[i] = member
      }
    if (brought === 0) return
    claim.movedAt = now
    claim.done += brought
    if (entry.firstAt === undefined) entry.firstAt = now
    else entry.done += brought
  }

  /** Measures anew how fast those are who fetch. */
  #begin(entry: Entry): void {
    entry.since = this.#options.now()
    entry.firstAt = undefined
    entry.done = 0
  }

  /** What one is to fetch is not what it was. */
  #change(entry: Entry, member: string, claim: Claim): void {
    claim.epoch = ++entry.epoch
    if (claim.left.total === 0) entry.claims.delete(member)
  }

  /** One fetches no more: what was measured counts no more. */
  #ended(entry: Entry, member: string): void {
    const { trial, claims } = entry
    if (trial?.by === member || trial?.from === member) entry.trial = undefined
    this.#begin(entry)
    if (claims.size === 0) entry.enough = false
  }

  /** Gives one the upper half of what another is still to fetch, if that may help. */
  #share(entry: Entry, to: string): void {
    const { claims, trial, enough, since, firstAt, done, hungry } = entry
    const now = this.#options.now()
    hungry.set(to, now)
    if (trial || enough || claims.has(to) || claims.size === 0 || claims.size >= mostFetchers) return
    if (now - since < startTime && (firstAt === undefined || now - firstAt < settleTime)) return
    const before = firstAt === undefined ? 0 : done / (now - firstAt)
    const [from, claim] = [...claims].reduce((a, b) => (b[1].left.total > a[1].left.total ? b : a))
    let left = 0
    for (const each of claims.values()) left += each.left.total
    if (claim.left.total < worthChunks || left < before * worthTime) return
    const upper = new ChunkSet(entry.chunks.count)
    for (const index of [...claim.left].slice(claim.left.total >>> 1)) {
      claim.left.delete(index)
      upper.add(index)
    }
    hungry.delete(to)
    this.#grant(entry, to, upper)
    this.#change(entry, from, claim)
    this.#tell(entry, from, 0, claim.left, [])
    entry.trial = { by: to, from, before, begun: undefined }
  }

  /** Looks whether one more helps; if not, the one whose part it was given goes on with it, or the faster of the two. */
  #judge(entry: Entry): void {
    const { trial, claims } = entry
    if (!trial) return
    const now = this.#options.now()
    const [first, second] = [claims.get(trial.from), claims.get(trial.by)]
    if (!first || !second) return
    if (!trial.begun) {
      if (second.done > 0) trial.begun = { at: now, done: entry.done, first: first.done, second: second.done }
      return
    }
    const { begun, before } = trial
    if (now - begun.at < trialTime) return
    entry.trial = undefined
    const isFaster = second.done - begun.second > muchFaster * (first.done - begun.first)
    if (!isFaster && entry.done - begun.done > before * (now - begun.at) * worthRate) {
      this.#feed(entry)
      return
    }
    entry.enough = true
    const [stays, goes] = isFaster ? [trial.by, trial.from] : [trial.from, trial.by]
    const [winner, loser] = [claims.get(stays)!, claims.get(goes)!]
    for (const index of loser.left) winner.left.add(index)
    loser.left.clear()
    this.#change(entry, goes, loser)
    this.#change(entry, stays, winner)
    this.#tell(entry, goes, 0, loser.left, [])
    this.#tell(entry, stays, 0, winner.left, [])
  }

  /** One more has helped: another may help as well. */
  #feed(entry: Entry): void {
    const now = this.#options.now()
    for (const [member, at] of entry.hungry) {
      if (now - at > hungryFor) entry.hungry.delete(member)
      else if (!entry.trial) {
        this.#share(entry, member)
        const claim = entry.claims.get(member)
        if (claim) this.#tell(entry, member, 0, claim.left, [])
      }
    }
  }

  #tell({ digest, chunks, epoch }: Entry, to: string, n: number, fetch: ChunkSet, members: readonly string[]): void {
    const { size, chunk } = chunks
    this.#options.send(to, { t: 'lease', digest, n, size, chunk, epoch, fetch: fetch.runs, members })
  }
}
