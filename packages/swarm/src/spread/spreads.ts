import type { Digest } from '@shoal/oci/digest'
import { Budget } from './budget.ts'
import { Chunks, chunkSizeOf, isChunkSize } from './chunks.ts'
import { coordinatorsOf } from './coordinators.ts'
import { LeaseTable } from './lease-table.ts'
import { Rhythm } from './rhythm.ts'
import { Spread } from './spread.ts'
import type { SpreadBlob, SpreadContext } from './spread-context.ts'
import type { Ask, LeaseMessage, SpreadMessage } from './spread-message.ts'
import { tuning as chosen, type Tuning } from './tuning.ts'

/** How long a coordinator may take to answer, in ms, until the next one is asked, and how many are asked. */
const patience = 500
const mostAsked = 2

/** How long one that did not answer is not waited for, in ms. */
const silentFor = 5000

/** How long the answer to who is the coordinator is good, in ms, and of how many blobs it is kept. */
const rankedFor = 1000
const mostRanked = 1000

/**
 * How long one takes part that has all, in ms: others who get the same image may be some layers behind. And how much longer
 * if there are still some who have not got all.
 */
const linger = 60_000
const lingerMost = 20_000

/** A question to the coordinators. */
type Question = {
  readonly ask: Ask
  rank: number
  readonly asked: string[]
  answered: boolean
  timer: Disposable | undefined
}

/** One blob that this machine wants, from the first question on. */
export interface Participation {
  readonly digest: Digest
  /** Undefined until the coordinator has answered. */
  readonly spread: Spread | undefined
  /** The sources have brought these bytes, up to `end`, from the beginning of a chunk on. */
  fetched(chunk: number): void
  /** So, but a part of it was there before: it is not given until all is found to be right. */
  kept(chunk: number): void
  arrives(): void
  exhausted(): void
  /** It is not wanted any more; what is there is still given for a while if it is whole. */
  end(whole: boolean): void
}

/** All blobs that this machine gets together with others, and those that it is the coordinator of. */
export class Spreads {
  readonly #context: SpreadContext
  readonly #tuning: Tuning
  readonly #table: LeaseTable
  readonly #blobs = new Map<Digest, Wanted>()
  readonly #budget: Budget
  readonly #rhythm: Rhythm
  readonly #ranked = new Map<Digest, { readonly coordinators: readonly string[]; readonly at: number }>()
  /** Members who did not answer, and until when they are not waited for. */
  readonly #silent = new Map<string, number>()
  #questions = 0

  constructor(context: SpreadContext, tuning: Tuning = chosen) {
    this.#context = context
    this.#tuning = tuning
    this.#budget = new Budget(tuning)
    this.#rhythm = new Rhythm(tuning)
    this.#table = new LeaseTable({
      tuning,
      random: () => context.random(),
      now: () => context.now(),
      send: (to, message) => (to === context.self ? this.#leased(to, message) : context.send(to, message)),
    })
  }

  /** Blobs of which this machine keeps the table. */
  get coordinated(): number {
    return this.#table.size
  }

  of(digest: Digest): Spread | undefined {
    return this.#blobs.get(digest)?.spread
  }

  /** Begins to want a blob. What is to be done about it, {@link SpreadBlob} is told, maybe at once. */
  join(blob: SpreadBlob, closed?: () => void): Participation {
    const before = this.#blobs.get(blob.digest)
    before?.close()
    const wanted = new Wanted(blob, {
      context: this.#context,
      closed: () => {
        if (this.#blobs.get(blob.digest) === wanted) this.#blobs.delete(blob.digest)
        this.#ranked.delete(blob.digest)
        this.#table.leave(this.#context.self, blob.digest)
        closed?.()
      },
    })
    this.#blobs.set(blob.digest, wanted)
    this.#ask(wanted, { why: 'new', want: [], chunk: 0, epoch: 0 })
    return wanted
  }

  receive(from: string, message: SpreadMessage): void {
    this.#silent.delete(from)
    const wanted = this.#blobs.get(message.digest)
    if (message.t === 'ask') this.#table.ask(from, message)
    else if (message.t === 'lease') this.#leased(from, message)
    else if (message.t === 'leave') {
      this.#table.leave(from, message.digest)
      wanted?.spread?.left(from)
    } else {
      if (message.t === 'have' && this.#coordinates(message.digest)) this.#table.have(from, message)
      if (wanted && !wanted.spread && message.t === 'have' && this.#fits(wanted, message))
        wanted.early.push([from, message])
      else wanted?.spread?.receive(from, message)
    }
  }

  /** A member is connected, for the first time or again. */
  arrived(member: string): void {
    this.#ranked.clear()
    for (const { spread } of this.#blobs.values()) spread?.arrived(member)
  }

  left(member: string): void {
    const wasFirst = new Set(
      [...this.#ranked].filter(([, known]) => known.coordinators[0] === member).map(([digest]) => digest),
    )
    this.#ranked.clear()
    this.#silent.delete(member)
    this.#table.left(member)
    for (const { spread, digest } of this.#blobs.values()) {
      spread?.left(member)
      if (wasFirst.has(digest)) spread?.note()
    }
  }

  close(): void {
    for (const wanted of [...this.#blobs.values()]) wanted.close()
  }

  #fits({ blob, early }: Wanted, { size, chunk }: { readonly size: number; readonly chunk: number }): boolean {
    return size === blob.size && isChunkSize(size, chunk) && early.length < 256
  }

  #ask(wanted: Wanted, { why, want, chunk, epoch }: Pick<Ask, 'why' | 'want' | 'chunk' | 'epoch'>, rank = 0): void {
    const { blob } = wanted
    const { digest, size, gives } = blob
    const n = ++this.#questions
    const ask: Ask = { t: 'ask', digest, n, size, chunk, epoch, want, gives, line: blob.line(), why }
    wanted.question?.timer?.[Symbol.dispose]()
    wanted.question = { ask, rank, asked: [], answered: false, timer: undefined }
    this.#askNext(wanted, wanted.question)
  }

  #askNext(wanted: Wanted, question: Question): void {
    const { self } = this.#context
    const { digest, size } = wanted.blob
    const { ask, asked } = question
    const next = this.#coordinators(digest)[question.rank++]
    if (next === undefined) {
      question.answered = true
      // Nobody is there, or nobody answers.
      if (ask.why === 'new') this.#spread(wanted, chunkSizeOf(size, this.#tuning)).alone()
      return
    }
    asked.push(next)
    if (next === self) {
      this.#table.ask(self, ask)
      return
    }
    const now = this.#context.now()
    const waits = (this.#silent.get(next) ?? 0) > now ? 0 : patience
    question.timer = this.#context.after(waits, () => {
      if (waits > 0) this.#silent.set(next, this.#context.now() + silentFor)
      this.#askNext(wanted, question)
    })
    this.#context.send(next, ask)
  }

  /** Who keeps the table of a blob, by rank. */
  #coordinators(digest: Digest): readonly string[] {
    const { self } = this.#context
    const now = this.#context.now()
    const known = this.#ranked.get(digest)
    if (known && now - known.at < rankedFor) return known.coordinators
    if (this.#ranked.size >= mostRanked) this.#ranked.clear()
    const coordinators = coordinatorsOf(digest, [self, ...this.#context.members()], mostAsked)
    this.#ranked.set(digest, { coordinators, at: now })
    return coordinators
  }

  #coordinates(digest: Digest): boolean {
    return this.#table.has(digest) || this.#coordinators(digest)[0] === this.#context.self
  }

  #leased(from: string, message: LeaseMessage): void {
    const wanted = this.#blobs.get(message.digest)
    if (!wanted) return
    const { question, blob } = wanted
    if (message.n !== 0) {
      // An answer that comes late counts as well: the first of the coordinators knows best, busy as it may be.
      if (question?.ask.n !== message.n || !question.asked.includes(from)) return
      if (question.answered && from !== question.asked[0]) return
      question.timer?.[Symbol.dispose]()
      question.answered = true
    } else if (!this.#coordinators(message.digest).includes(from)) return
    const { size, chunk } = message
    const isNew = !wanted.spread
    const fits = size === blob.size && isChunkSize(size, chunk) && (isNew || wanted.spread?.chunks.chunk === chunk)
    if (!fits || !new Chunks(size, chunk).holds(message.fetch)) {
      // What such a coordinator says is worth nothing.
      if (isNew && message.n !== 0) this.#spread(wanted, chunkSizeOf(blob.size, this.#tuning)).alone()
      return
    }
    const spread = this.#spread(wanted, chunk)
    spread.leased(message)
    if (isNew) for (const [from, have] of wanted.early.splice(0)) if (have.chunk === chunk) spread.receive(from, have)
  }

  #spread(wanted: Wanted, chunk: number): Spread {
    const { blob } = wanted
    wanted.spread ??= new Spread(
      {
        context: this.#context,
        tuning: this.#tuning,
        budget: this.#budget,
        rhythm: this.#rhythm,
        blob,
        ask: (ask, rank) => {
          if (!wanted.question || wanted.question.answered) this.#ask(wanted, ask, rank)
        },
        coordinator: () => {
          const [first] = this.#coordinators(blob.digest)
          return first === this.#context.self ? undefined : first
        },
        heard: have => this.#table.have(this.#context.self, have),
      },
      blob.size,
      chunk,
    )
    return wanted.spread
  }
}

class Wanted implements Participation {
  readonly blob: SpreadBlob
  spread: Spread | undefined
  question: Question | undefined
  /** What was heard before the coordinator has answered. */
  readonly early: [from: string, have: Extract<SpreadMessage, { t: 'have' }>][] = []
  readonly #context: SpreadContext
  readonly #closed: () => void
  #ending: Disposable | undefined
  #over = false

  constructor(blob: SpreadBlob, { context, closed }: { context: SpreadContext; closed: () => void }) {
    this.blob = blob
    this.#context = context
    this.#closed = closed
  }

  get digest(): Digest {
    return this.blob.digest
  }

  fetched(chunk: number): void {
    this.spread?.fetched(chunk)
  }

  kept(chunk: number): void {
    this.spread?.keep(chunk)
  }

  arrives(): void {
    this.spread?.arrives()
  }

  exhausted(): void {
    this.spread?.exhausted()
  }

  end(whole: boolean): void {
    if (this.#over || this.#ending) return
    if (whole) this.spread?.whole()
    if (!whole || !this.spread) {
      this.close()
      return
    }
    const until = this.#context.now() + linger
    const look = () => {
      const now = this.#context.now()
      if (now >= until && (this.spread?.done || now >= until + lingerMost)) this.close()
      else this.#ending = this.#context.after(1000, look)
    }
    this.#ending = this.#context.after(linger, look)
  }

  close(): void {
    if (this.#over) return
    this.#over = true
    this.#ending?.[Symbol.dispose]()
    this.question?.timer?.[Symbol.dispose]()
    this.question = undefined
    this.spread?.close()
    this.#closed()
  }
}
