import type { Digest } from '@shoal/oci/digest'
import type { Budget } from './budget.ts'
import { ChunkHashes } from './chunk-hashes.ts'
import { ChunkSet, Chunks, runsOf } from './chunks.ts'
import { weightOf } from './coordinators.ts'
import { Handout } from './handout.ts'
import { type Mate, newMate } from './mate.ts'
import { Mesh } from './mesh.ts'
import type { Rhythm } from './rhythm.ts'
import type { SpreadBlob, SpreadContext } from './spread-context.ts'
import type { Ask, Because, ChunkRun, Hand, HashBatch, Have, LeaseMessage, Why } from './spread-message.ts'
import type { Tuning } from './tuning.ts'

const sha256 = 'sha256:'

/** How often it is looked what is late, and told what is new, in ms. */
const lookEvery = 50

/** How long who is to fetch may bring nothing until others may take its place, in ms; and when it is heard of the latest. */
const silence = 1200
const beat = 400

/** How long who has just begun to fetch may take to the first byte, in ms. */
const startTime = 3000

/** How long who has been told of may say nothing until it is taken for one who takes no part, in ms. */
const dumbFor = 5000

/** When the coordinator hears the latest of who takes part, in ms. */
const noteEvery = 4000

/**
 * How long chunks that nobody has, or fetches, are waited for, in ms: if who fetched them has gone, and if it is not known
 * who fetches, and nothing new is heard of.
 */
const lostAfter = 300
const quietAfter = 1000

/** Between two questions to the coordinator, in ms: twice as long each time that nothing comes of it. */
const askAgain = 700
const askAgainMost = 10_000

/** How often the first coordinator is asked in vain for what nobody seems to fetch, until the next one is; and it as well. */
const vainMost = 2

/** Others fetch too slowly if only half as much can be got from them as could be got at once; looked at over so many ms. */
const idleMost = 0.6
const idleOver = 500

/** How long who fetches may be behind with handing on what it has fetched, in ms, until others fetch the rest. */
const behindMost = 1500

/** How long nothing may have come, in ms, until others are not believed who say that they fetch it, or have it. */
const stalledAfter = 10_000

/** How long one that goes on talking may take to show why it gave a chunk that is not what an author has said, in ms. */
const proofTime = 2000

/** What one message tells, at most. */
const mostHashes = 2048
const mostBatches = 256
const mostRuns = 4096

export type SpreadOptions = {
  readonly context: SpreadContext
  readonly tuning: Tuning
  readonly budget: Budget
  readonly rhythm: Rhythm
  readonly blob: SpreadBlob
  /** Asks the coordinator, or the one of the next rank, whose answer comes as a message. */
  readonly ask: (ask: Pick<Ask, 'why' | 'want' | 'chunk' | 'epoch'>, rank: number) => void
  /** The member who keeps the table of who fetches this blob, unless it is this machine. */
  readonly coordinator: () => string | undefined
  /** Lets the table on this machine know, if it keeps one. */
  readonly heard: (have: Have) => void
}

/** A member who is to show why it gave what it gave. */
type Challenge = { readonly chunk: number; readonly hash: string; talksSince: number | undefined }

/** What a machine does for one blob that several want at once, from the answer of the coordinator on. */
export class Spread {
  readonly digest: Digest
  readonly chunks: Chunks
  /** What can be given to others. */
  readonly have: ChunkSet
  readonly #options: SpreadOptions
  readonly #hashes: ChunkHashes
  readonly #mates = new Map<string, Mate>()
  readonly #mesh: Mesh
  readonly #handout: Handout
  /** What this machine is to fetch from its sources. */
  readonly #claim: ChunkSet
  /** What was there before: nobody has said what its hashes are, so it is not given until all is found to be right. */
  readonly #kept: ChunkSet
  #epoch = 0
  #claimedAt = 0
  /** Fetched, and not hashed yet: nobody has asked for it. */
  readonly #unhashed: number[] = []
  #hashing = false
  /** What can be given to others, in the order in which it came. */
  readonly #log: number[] = []
  /** How much of it there was when the others were told last. */
  #logged = 0
  /** What this machine has fetched itself, and not told yet. */
  #fetched: number[] = []
  #toldAt = 0
  /** When the coordinator was told, and whether it believes that this machine fetches. */
  #notedAt = Number.NEGATIVE_INFINITY
  #noted = false
  #arrivedAt = Number.NEGATIVE_INFINITY
  #askedAt: number
  #askWait = askAgain
  #lostSince: number | undefined
  /** When a chunk was last heard of that nobody had before, and when one last came. */
  #freshAt: number
  #gainedAt: number
  /** When a chunk was heard of for the first time, and whether one was: until then, when it was begun to wait for that. */
  #firstAt: number
  #hasHeard = false
  /** Whether who fetched was known, and has gone. */
  #bereft = false
  /** How much of what could be got at once there was not, of late: from 0 to 1. */
  #idle = 0
  /** Whether this machine has left it to others to fetch, as they give faster. */
  #relieved = false
  /** How often the coordinator was asked since something came. */
  #vain = 0
  #idleAskedAt = 0
  #idleWait = askAgain / 2
  /** Until the next look, and whether that is far. */
  #timer: Disposable | undefined
  #rests = false
  readonly #challenges = new Map<string, Challenge>()
  #served = 0
  #closed = false

  constructor(options: SpreadOptions, size: number, chunk: number) {
    const { blob, context, tuning, budget, rhythm } = options
    this.#options = options
    this.digest = blob.digest
    this.chunks = new Chunks(size, chunk)
    const { count } = this.chunks
    this.have = new ChunkSet(count)
    this.#claim = new ChunkSet(count)
    this.#kept = new ChunkSet(count)
    this.#hashes = new ChunkHashes(blob.digest, chunk, count, context)
    this.#firstAt = this.#idleAskedAt = this.#askedAt = this.#freshAt = this.#gainedAt = context.now()
    // A blob that is one chunk says itself what its hash is.
    if (this.#sayHash) this.#hashes.known(0, blob.digest.slice(sha256.length))
    const mates = this.#mates
    this.#mesh = new Mesh({
      digest: blob.digest,
      context,
      tuning,
      budget,
      times: rhythm.times,
      mates,
      have: this.have,
      hashes: this.#hashes,
      got: chunk => this.#got(chunk),
      exchanged: (mate, told, has) => this.#exchanged(mate, told, has),
      wrong: (mate, chunk, hash) => this.#wrong(mate, chunk, hash),
    })
    this.#handout = new Handout({
      context,
      tuning,
      budget,
      mates,
      holders: chunk => this.#mesh.holders(chunk),
      hand: (mate, chunk) => {
        if (!mate.told) this.#tell(mate)
        context.send(mate.id, { t: 'hand', digest: this.digest, chunks: [chunk], hashes: this.#batchesFor(mate) })
      },
    })
    for (let index = 0; index < count; index++) if (blob.has(this.chunks.rangeOf(index))) this.#kept.add(index)
  }

  /** Who has signed hashes that are wrong, if all that is there is right. */
  get deniers(): readonly string[] {
    return this.#hashes.deniers(this.have)
  }

  /** Whether nothing is missing here. */
  get #full(): boolean {
    return this.have.total + this.#kept.total + this.#unhashed.length >= this.have.length
  }

  #isHere(index: number): boolean {
    return this.have.has(index) || this.#kept.has(index)
  }

  /** Whether all who take part have all of it, so that nobody needs it any more. */
  get done(): boolean {
    if (!this.have.full) return false
    for (const { has, heard } of this.#mates.values()) if (!has.full && heard) return false
    return true
  }

  /** Whether something is under way: others fetch, or give. */
  get alive(): boolean {
    if (this.#mesh.pulling > 0) return true
    for (const { claim, gives } of this.#mates.values()) if (gives && claim.total > 0) return true
    return false
  }

  get #sayHash(): boolean {
    return this.chunks.count === 1 && this.digest.startsWith(sha256)
  }

  /** The coordinator has answered, or something has changed for it. */
  leased({ epoch, fetch, members }: LeaseMessage): void {
    if (this.#closed || epoch < this.#epoch) return
    this.#epoch = epoch
    for (const id of members) this.#mate(id)
    this.#setClaim(new ChunkSet(this.chunks.count, fetch))
    for (const mate of this.#mates.values()) if (!mate.told) this.#tell(mate)
    if (this.#claim.total > 0) this.#tellAll()
    this.#hashNext()
    this.#watch()
  }

  /** Nobody else answers, or nothing comes: this machine fetches all that it has not got. */
  alone(): void {
    if (this.#closed) return
    this.#setClaim(new ChunkSet(this.chunks.count, [[0, this.chunks.count]]))
    this.#tellAll()
    this.#watch()
  }

  /** The sources have brought a chunk. */
  fetched(chunk: number): void {
    if (this.#closed || this.#isHere(chunk)) return
    this.arrives()
    this.#claim.delete(chunk)
    this.#unhashed.push(chunk)
    this.#noteEnd()
    this.#mesh.arrived(chunk)
    this.#hashNext()
  }

  /** The sources have brought a chunk of which a part was there before. */
  keep(chunk: number): void {
    if (this.#closed || this.#isHere(chunk)) return
    this.arrives()
    this.#claim.delete(chunk)
    this.#kept.add(chunk)
    this.#noteEnd()
    this.#mesh.arrived(chunk)
  }

  /** All of it is there, and right. */
  whole(): void {
    for (const index of this.#kept) if (!this.have.has(index)) this.#unhashed.push(index)
    this.#kept.clear()
    this.#hashNext()
  }

  /** The sources bring bytes. */
  arrives(): void {
    this.#arrivedAt = this.#gainedAt = this.#options.context.now()
  }

  /** The sources have nothing more to give: others may do better. */
  exhausted(): void {
    if (this.#closed || this.#claim.total === 0) return
    this.#release()
  }

  receive(from: string, message: Have | Hand | Why | Because): void {
    if (this.#closed) return
    if (message.t === 'have') this.#heard(from, message)
    else if (message.t === 'hand') this.#handed(from, message)
    else if (message.t === 'why') this.#answerWhy(from, message)
    else this.#prove(from, message)
  }

  /** A member is connected again, or for the first time: it may take part. */
  arrived(id: string): void {
    if (this.#closed || this.#mates.size >= this.#options.tuning.mates) return
    const mate = this.#mate(id)
    if (mate && !mate.told) this.#tell(mate)
  }

  /** A member has gone, or takes no part any more. */
  left(id: string): void {
    const mate = this.#mates.get(id)
    if (this.#closed) return
    if (this.#options.context.isBanned(id)) this.#hashes.forget(id, this.have)
    if (!mate) return
    this.#mates.delete(id)
    this.#mesh.left(mate)
    this.#handout.left(mate)
    this.#challenges.delete(id)
    // What it would have told the others, they hear from this machine now.
    for (const other of this.#mates.values()) other.batches = 0
    this.#handout.next()
    this.#mesh.next()
    // What it was to fetch is nobody's now.
    if (mate.claim.total > 0) {
      this.#bereave()
      this.#lookForLost(0)
    }
  }

  /**
   * Whether a chunk is given to a member now.
   * @param has what it can give itself
   * @returns to be disposed of when it has been given
   */
  serve(id: string, chunk: number, has?: Uint8Array): 'lacks' | 'busy' | Disposable {
    const { blob, tuning, budget } = this.#options
    const mate = this.#mates.get(id)
    if (mate && has) this.#exchanged(mate, this.have.total, has)
    if (this.#closed || !blob.gives || !this.have.has(chunk)) return 'lacks'
    if (mate && this.#handout.asked(mate, chunk)) return { [Symbol.dispose]: () => this.#handout.given(mate, chunk) }
    const most = this.chunks.count === 1 ? tuning.servesWhole : tuning.serves
    // What nobody else has yet goes first, whichever blob it is of.
    const isHanding = this.#handout.busy || budget.lacks('hands')
    if (isHanding || this.#served >= most || !budget.take('serves')) return 'busy'
    this.#served++
    let open = true
    return {
      [Symbol.dispose]: () => {
        if (!open) return
        open = false
        this.#served--
        budget.free('serves')
      },
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#timer?.[Symbol.dispose]()
    this.#mesh.close()
    this.#handout.close()
    const { context, coordinator } = this.#options
    const told = new Set([...this.#mates.values()].filter(mate => mate.told).map(({ id }) => id))
    const id = coordinator()
    if (id !== undefined) told.add(id)
    for (const each of told) context.send(each, { t: 'leave', digest: this.digest })
  }

  #mate(id: string): Mate | undefined {
    const { context, tuning } = this.#options
    const known = this.#mates.get(id)
    if (known || id === context.self) return known
    // Whoever else tells of itself finds others to talk to.
    if (this.#mates.size >= 2 * tuning.mates) return undefined
    const mate = newMate(id, context.now(), this.chunks.count)
    this.#mates.set(id, mate)
    return mate
  }

  /** @param fetch may hold what is there already */
  #setClaim(fetch: ChunkSet): void {
    const { context, blob } = this.#options
    for (const index of this.#kept) fetch.delete(index)
    for (const index of this.have) fetch.delete(index)
    for (const index of this.#unhashed) fetch.delete(index)
    const before = this.#claim.total
    if (before === fetch.total && [...fetch].every(index => this.#claim.has(index))) return
    this.#claim.clear()
    for (const index of fetch) this.#claim.add(index)
    if (before === 0) this.#claimedAt = context.now()
    blob.fetch(this.#claim.runs)
  }

  /** Leaves to others what this machine was to fetch. */
  #release(): void {
    this.#setClaim(new ChunkSet(this.chunks.count))
    this.#tellAll()
    this.#askedAt = this.#options.context.now()
    this.#watch()
  }

  #heard(from: string, message: Have): void {
    const { size, chunk, add, claim, first, gives, handing, hashes, epoch } = message
    const { chunks } = this
    if (size !== chunks.size || chunk !== chunks.chunk || !chunks.holds(add) || !chunks.holds(claim)) return
    // What is not the first thing from one who is not known is meant for the coordinator.
    const mate = first ? this.#mate(from) : this.#mates.get(from)
    if (!mate) return
    const { context } = this.#options
    const now = context.now()
    const isNew = !mate.heard
    if (first) {
      // What it gave before may not be what it has now.
      this.#challenges.delete(from)
      mate.shunned = false
      this.#mesh.left(mate)
      mate.failures = 0
    }
    mate.heard = true
    mate.gives = gives
    mate.handing = handing
    this.#mesh.weigh(mate)
    this.#learn(mate, hashes)
    this.#lookWhetherProven(mate)
    let overlaps = false
    for (const [start, end] of add)
      for (let i = start; i < end; i++) {
        this.#learned(mate, i)
        this.#handout.learned(mate, i)
        overlaps ||= this.#claim.has(i)
      }
    const claimed = mate.claim.total > 0
    mate.claim = new ChunkSet(chunks.count, claim)
    mate.epoch = epoch
    if (claim.length > 0) {
      mate.claimAt = now
      this.#bereft = false
    } else if (claimed) {
      this.#bereave()
      this.#lookForLost(0)
    }
    if (overlaps || (this.#claim.total > 0 && this.#conflicts(mate))) this.#yield(mate)
    if (!mate.told) this.#tell(mate)
    else if (first && !isNew) {
      // It has begun anew.
      mate.batches = mate.informed = 0
      mate.knows.clear()
      this.#tell(mate)
    }
    this.#hashNext()
    this.#handout.next()
    this.#mesh.next()
    this.#watch()
  }

  /** A request and its answer tell each side what the other has. @param told how much of what is here */
  #exchanged(mate: Mate, told: number, has: Uint8Array): void {
    if (!mate.heard || this.#closed) return
    // Who coordinates counts what is fetched by the messages alone.
    if (mate.id !== this.#options.coordinator()) mate.informed = Math.max(mate.informed, told)
    for (const chunk of mate.has.lackingOf(has)) {
      this.#learned(mate, chunk)
      this.#handout.learned(mate, chunk)
    }
  }

  #learned(mate: Mate, chunk: number): void {
    if (this.#mesh.holders(chunk) === 0 && !this.have.has(chunk)) {
      this.#freshAt = this.#options.context.now()
      if (!this.#hasHeard) this.#firstAt = this.#freshAt
      this.#hasHeard = true
    }
    this.#mesh.learned(mate, chunk)
  }

  #learn(mate: Mate, hashes: readonly HashBatch[]): void {
    for (const batch of hashes) {
      const { kept, contradicts } = this.#hashes.add(batch)
      if (kept) mate.knows.add(kept)
      if (contradicts) this.#blameAuthor(batch.author)
    }
  }

  #conflicts({ claim, claimAt, gives }: Mate): boolean {
    if (!gives || this.#options.context.now() - claimAt > silence) return false
    for (const index of this.#claim) if (claim.has(index)) return true
    return false
  }

  /** Leaves to others what they have, or are to fetch rather than this machine. */
  #yield(mate: Mate): void {
    const { context, blob } = this.#options
    const first =
      mate.gives &&
      (!blob.gives ||
        mate.epoch > this.#epoch ||
        (mate.epoch === this.#epoch && weightOf(this.digest, mate.id) > weightOf(this.digest, context.self)))
    const kept = new ChunkSet(this.chunks.count)
    for (const index of this.#claim)
      if (!(mate.counts && mate.has.has(index) && this.#hashes.of(index)) && !(first && mate.claim.has(index)))
        kept.add(index)
    if (kept.total === this.#claim.total) return
    this.#setClaim(kept)
    this.#tellAll()
  }

  #handed(from: string, { chunks, hashes }: Hand): void {
    const mate = this.#mates.get(from)
    if (!mate) return
    this.#learn(mate, hashes)
    for (const chunk of chunks) {
      if (chunk >= this.chunks.count || !this.#hashes.of(chunk)) continue
      this.#learned(mate, chunk)
      this.#mesh.handed(mate, chunk)
    }
  }

  #got(chunk: number): void {
    this.#gainedAt = this.#options.context.now()
    this.#vain = 0
    // The sources are not asked for it any more.
    if (this.#claim.delete(chunk)) this.#options.blob.fetch(this.#claim.runs)
    this.#tellNews(chunk)
    this.#mesh.next()
  }

  /** Hashes what the sources have brought, as soon as there is somebody to tell. */
  #hashNext(): void {
    if (this.#hashing || this.#unhashed.length === 0 || this.#mates.size === 0) return
    this.#hashing = true
    const chunk = this.#unhashed[0]!
    this.#options.blob.hash(chunk, hash => {
      this.#hashing = false
      this.#unhashed.shift()
      if (this.#closed) return
      if (!this.#sayHash) this.#hashes.found(chunk, hash)
      if (this.have.add(chunk)) {
        this.#hashes.sign()
        this.#fetched.push(chunk)
        this.#handout.add(chunk)
        this.#handout.next()
        this.#tellNews(chunk)
      }
      this.#hashNext()
    })
  }

  #tellNews(chunk: number): void {
    this.#log.push(chunk)
    if (this.have.full) this.#tellAll()
  }

  /** Tells a member what it does not know yet. @param anyway also if that is nothing */
  #tell(mate: Mate, anyway = true): void {
    let first = !mate.told
    const claim = this.#coming
    const handing = this.#hands
    // At the end all of it, in case an answer has not arrived.
    const add = first || this.have.full ? this.have.runs : runsOf(this.#log.slice(mate.informed).sort((a, b) => a - b))
    const batches = this.#batchesFor(mate)
    const { toldOf } = mate
    const isNews = add.length + batches.length + claim.length > 0 || toldOf.claims || toldOf.handing !== handing
    if (!anyway && !isNews) return
    mate.told = true
    mate.informed = this.#log.length
    mate.toldOf = { claims: claim.length > 0, handing }
    do {
      let hashes = 0
      const some = batches.findIndex((batch, i) => (hashes += batch.hashes.length) > mostHashes || i >= mostBatches)
      const told = batches.splice(0, some < 0 ? batches.length : Math.max(some, 1))
      this.#options.context.send(mate.id, this.#message(first, add.splice(0, mostRuns), told, claim))
      first = false
    } while (add.length > 0 || batches.length > 0)
  }

  /** Hashes that a member does not know, as far as is known. */
  #batchesFor(mate: Mate): HashBatch[] {
    const { batches } = this.#hashes
    const { context, tuning } = this.#options
    const all = this.#mates.size <= tuning.mates
    const news: HashBatch[] = []
    for (; mate.batches < batches.length; mate.batches++) {
      const batch = batches[mate.batches]
      if (!batch || batch.author === mate.id || mate.knows.delete(batch)) continue
      // Where all know all, an author tells everybody itself.
      if (batch.author === context.self || !all || !this.#mates.has(batch.author)) news.push(batch)
    }
    return news
  }

  get #hands(): boolean {
    return this.#claim.total > 0 || this.#handout.busy || this.#unhashed.length > 0
  }

  #message(first: boolean, add: Have['add'], hashes: readonly HashBatch[], claim: Have['claim']): Have {
    return {
      t: 'have',
      digest: this.digest,
      size: this.chunks.size,
      chunk: this.chunks.chunk,
      first,
      add,
      hashes,
      gives: this.#options.blob.gives,
      epoch: this.#epoch,
      claim,
      handing: this.#hands,
    }
  }

  /** What others need not fetch: what this machine is to fetch, or has fetched, and has not told yet. */
  get #coming(): readonly ChunkRun[] {
    if (this.#claim.total === 0 && this.#unhashed.length === 0 && this.#fetched.length === 0) return []
    const coming = this.#andUnhashed(this.#claim)
    for (const index of this.#fetched) coming.add(index)
    return coming.runs
  }

  /** These chunks, and those that are fetched and not hashed yet. */
  #andUnhashed(chunks: ChunkSet): ChunkSet {
    const all = new ChunkSet(this.chunks.count, chunks.runs)
    for (const index of this.#unhashed) all.add(index)
    return all
  }

  #tellAll(): void {
    this.#logged = this.#log.length
    this.#fetched = []
    this.#toldAt = this.#options.context.now()
    const coordinator = this.#options.coordinator()
    for (const mate of this.#mates.values())
      if (!mate.has.full || mate.handing || this.have.full || mate.id === coordinator)
        this.#tell(mate, this.have.full || mate.id === coordinator)
    if (this.#claim.total === 0 && !this.#noted) return
    if (coordinator === undefined || !this.#mates.has(coordinator)) this.#note()
    this.#noted = this.#claim.total > 0
  }

  /** The coordinator may be another one now. */
  note(): void {
    if (!this.#closed) this.#note()
  }

  /** Where there is nobody to tell, the coordinator learns at once that all is fetched: who comes next need not fetch it. */
  #noteEnd(): void {
    if (this.#claim.total > 0 || !this.#noted || this.#mates.size > 0) return
    this.#noted = false
    this.#note()
  }

  /** Lets the coordinator know of this machine, what it fetches, and what it has fetched. */
  #note(): void {
    const { context, coordinator, heard } = this.#options
    this.#notedAt = context.now()
    const message = this.#message(false, this.#andUnhashed(this.have).runs, [], this.#claim.runs)
    const id = coordinator()
    if (id === undefined) heard(message)
    else context.send(id, message)
  }

  #watch(): void {
    if (this.#closed) return
    // Who comes later is to hear of it from the coordinator; until then there is nothing to look for.
    const rests = this.done || (this.#full && this.#mates.size === 0)
    if (this.#timer && (rests || !this.#rests)) return
    this.#timer?.[Symbol.dispose]()
    this.#rests = rests
    const { context } = this.#options
    const soon = lookEvery - (context.now() % lookEvery)
    this.#timer = context.after(rests ? noteEvery : soon, () => {
      this.#timer = undefined
      this.#look()
      this.#watch()
    })
  }

  #look(): void {
    const { context, tuning, rhythm } = this.#options
    const now = context.now()
    this.#mesh.look()
    this.#handout.look()
    const beats =
      this.#claim.total > 0 &&
      (now - this.#arrivedAt < silence || now - this.#claimedAt < startTime) &&
      now - this.#toldAt >= beat
    // What is there before long is worth telling sooner.
    const isShort = this.chunks.count <= tuning.fewChunks
    const isDue = rhythm.isDue(now) || (isShort && now - this.#toldAt >= rhythm.period / 3)
    if ((isDue && this.#log.length > this.#logged) || beats) this.#tellAll()
    if (now - this.#notedAt >= noteEvery && !this.#mates.has(this.#options.coordinator() ?? '')) this.#note()
    for (const mate of this.#mates.values()) {
      if (!mate.heard && now - mate.since > dumbFor) this.#mates.delete(mate.id)
      if (mate.claim.total > 0 && now - mate.claimAt > silence) {
        mate.claim.clear()
        this.#bereave()
      }
    }
    if (this.#full) return
    if (this.#claim.total > 0 && !this.#relieved && this.#mates.size > 1 && this.#handout.waits >= behindMost) {
      this.#relieved = true
      this.#release()
    }
    this.#lookForLost(lostAfter)
    this.#lookWhetherIdle()
    this.#lookWhetherStalled()
  }

  /** Who fetched has gone. */
  #bereave(): void {
    this.#bereft = true
    this.#lostSince = undefined
    this.#askWait = askAgain
  }

  /** Asks who fetches chunks that nobody has, or is to fetch. */
  #lookForLost(patience: number): void {
    const { context } = this.#options
    if (this.#full || this.#closed) return
    const now = context.now()
    const lost = this.#unclaimed().filter(index => this.#mesh.holders(index) === 0 || !this.#hashes.of(index))
    if (lost.length === 0) {
      this.#lostSince = undefined
      this.#askWait = askAgain
      return
    }
    this.#lostSince ??= now
    if (!this.#bereft && now - this.#freshAt < quietAfter) return
    // The one with the most asks first.
    const turn = 150 * (1 - this.have.total / this.have.length) + (this.#relieved ? lostAfter : 0)
    if (now - this.#lostSince < patience + turn) {
      if (patience === 0) context.after(turn + 1, () => this.#lookForLost(0))
      return
    }
    if (now - this.#askedAt >= this.#askWait) this.#askForLost(lost)
  }

  /** What is not there, and nobody who is heard of is to fetch. */
  #unclaimed(): number[] {
    const known = this.#andUnhashed(this.#claim)
    for (const { claim, gives } of this.#mates.values()) if (gives) for (const index of claim) known.add(index)
    const unclaimed: number[] = []
    for (let i = 0; i < known.length; i++) if (!this.#isHere(i) && !known.has(i)) unclaimed.push(i)
    return unclaimed
  }

  #askForLost(lost: readonly number[]): void {
    this.#askedAt = this.#options.context.now()
    this.#askWait = Math.min(2 * this.#askWait, askAgainMost)
    const rank = Math.floor(this.#vain++ / vainMost)
    // Who has no line may be told of others.
    if (rank < 2 || !this.#options.blob.line()) this.#ask('lost', lost, rank % 2)
    else this.alone()
  }

  #ask(why: Ask['why'], want: readonly number[], rank = 0): void {
    this.#options.ask({ why, want: runsOf(want), chunk: this.chunks.chunk, epoch: this.#epoch }, rank)
  }

  /** Says so if there is often nothing to get from others: one more could fetch. */
  #lookWhetherIdle(): void {
    const { context, blob } = this.#options
    const now = context.now()
    this.#idle += ((this.#claim.total > 0 ? 0 : this.#mesh.spare) - this.#idle) * (lookEvery / idleOver)
    if (this.#idle < idleMost || this.#relieved || this.#mates.size === 0) return
    if (now - this.#firstAt < (this.#hasHeard ? idleOver : startTime)) return
    if (now - this.#idleAskedAt < this.#idleWait || !blob.line() || !blob.gives || blob.held()) return
    this.#idleAskedAt = now
    this.#idleWait = Math.min(this.#idleWait * (1.5 + context.random()), askAgainMost)
    const missing: number[] = []
    for (let i = 0; i < this.have.length; i++) if (!this.#isHere(i) && this.#mesh.holders(i) === 0) missing.push(i)
    if (missing.length > 0) this.#ask('starving', missing)
  }

  /** Looks whether nothing comes, whatever others say. */
  #lookWhetherStalled(): void {
    const { context } = this.#options
    const now = context.now()
    if (now - this.#gainedAt < stalledAfter || this.#claim.total > 0) return
    this.#gainedAt = now - stalledAfter * context.random() * 0.5
    for (const mate of this.#mates.values()) mate.claim.clear()
    this.#askForLost(this.#unclaimed())
  }

  #wrong(mate: Mate, chunk: number, hash: string): void {
    const said = this.#hashes.of(chunk)
    if (!said || this.#challenges.has(mate.id)) return
    // The author itself, or the digest, says something else.
    if (said.author === mate.id || said.author === '') this.#blame(mate)
    else {
      this.#challenges.set(mate.id, { chunk, hash, talksSince: undefined })
      this.#options.context.send(mate.id, { t: 'why', digest: this.digest, number: chunk })
    }
  }

  /** A member shows who has told it what it gave. */
  #prove(from: string, { number, hashes }: Because): void {
    const mate = this.#mates.get(from)
    const challenge = this.#challenges.get(from)
    if (!mate || challenge?.chunk !== number) return
    this.#learn(mate, hashes)
    const isProof = (batch: HashBatch) =>
      batch.hashes[number - batch.first] === challenge.hash && this.#hashes.isSigned(batch)
    if (!hashes.some(isProof)) {
      this.#blame(mate)
      return
    }
    // Whoever has signed that may have lied.
    this.#challenges.delete(from)
    mate.shunned = false
    this.#mesh.weigh(mate)
    this.#mesh.next()
  }

  /** Who goes on talking and does not answer has no answer. */
  #lookWhetherProven(mate: Mate): void {
    const challenge = this.#challenges.get(mate.id)
    if (!challenge) return
    const now = this.#options.context.now()
    challenge.talksSince ??= now
    if (now - challenge.talksSince > proofTime) this.#blame(mate)
  }

  #blame(mate: Mate): void {
    this.#challenges.delete(mate.id)
    this.#options.context.blame(mate.id, `gave other bytes of ${this.digest} than those that it should have`)
  }

  #blameAuthor(author: string): void {
    this.#hashes.forget(author, this.have)
    this.#options.context.blame(author, `told different hashes of one chunk of ${this.digest}`)
  }

  #answerWhy(from: string, { number }: Why): void {
    const batch = this.#hashes.batchOf(number)
    const hashes = batch ? [batch] : []
    this.#options.context.send(from, { t: 'because', digest: this.digest, number, hashes })
  }
}
