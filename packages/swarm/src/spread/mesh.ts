import type { Digest } from '@shoal/oci/digest'
import type { Budget } from './budget.ts'
import type { ChunkHashes } from './chunk-hashes.ts'
import type { ChunkSet } from './chunks.ts'
import type { Durations } from './durations.ts'
import type { Mate } from './mate.ts'
import type { ChunkAnswer, SpreadContext } from './spread-context.ts'
import type { Tuning } from './tuning.ts'

/** A chunk that is late is asked of a second one: after so long, in ms at least, and so many times the usual. */
const leastLate = 250
const lateAfter = 3

/** One who is handing out is asked for a chunk that nobody else gives, after so long, in ms at least. */
const leastWait = 2000

/** Who was busy is left alone for this part of what a chunk takes, at least; so many times longer each time, up to a bound. */
const busyPart = 4
const busyAgain = 1.6
const mostBusyAgain = 4

/** Requests in a row that come to nothing, until a member is asked no more. */
const mostFailures = 2

/** How long a member is left alone from which nothing came, in ms. */
const afterFailure = 1000

type Pull = {
  readonly chunk: number
  readonly from: Mate
  readonly at: number
  readonly handed: boolean
  /** Whether others may be asked in its place. */
  freed: boolean
  request: Disposable | undefined
}

export type MeshOptions = {
  readonly digest: Digest
  readonly context: SpreadContext
  readonly tuning: Tuning
  readonly budget: Budget
  /** How long chunks take of late, of all blobs. */
  readonly times: Durations
  readonly mates: ReadonlyMap<string, Mate>
  readonly have: ChunkSet
  readonly hashes: ChunkHashes
  /** A chunk is there, and can be given to others. */
  readonly got: (chunk: number) => void
  /** A member has been told what is here, and has told what it has. */
  readonly exchanged: (mate: Mate, told: number, has: Uint8Array) => void
  /** A member gave other bytes than those that it should have. */
  readonly wrong: (mate: Mate, chunk: number, hash: string) => void
}

/** Gets chunks from the others: what is rarest first, one at a time from each. */
export class Mesh {
  readonly #options: MeshOptions
  /** From how many others each chunk could be had, as far as they have told. */
  readonly #holders: Uint16Array
  readonly #pulls = new Map<number, Pull[]>()
  /** Since when a chunk is known to have been fetched, in ms. */
  readonly #knownAt: Float64Array
  #ordinary = 0
  #closed = false

  constructor(options: MeshOptions) {
    this.#options = options
    const { length } = options.have
    this.#holders = new Uint16Array(length)
    this.#knownAt = new Float64Array(length)
  }

  /** Requests under way. */
  get pulling(): number {
    return this.#pulls.size
  }

  /** How much of what could be got at once is not there to get: from 0 to 1. */
  get spare(): number {
    const { mates, tuning } = this.#options
    let sources = 0
    for (const { counts, handing } of mates.values()) if (counts && !handing) sources++
    return Math.max(0, 1 - this.#pulls.size / Math.max(1, Math.min(sources, tuning.pulls)))
  }

  holders(chunk: number): number {
    return this.#holders[chunk]!
  }

  /** A member has a chunk. */
  learned(mate: Mate, chunk: number): void {
    if (!mate.has.add(chunk)) return
    if (mate.counts) this.#holders[chunk]!++
    if (this.#knownAt[chunk] === 0) this.#knownAt[chunk] = this.#options.context.now()
  }

  /** A member has not got a chunk, or not the right one. */
  lacks(mate: Mate, chunk: number): void {
    if (mate.has.delete(chunk) && mate.counts) this.#holders[chunk]!--
  }

  /** Counts on a member from now on, or no more. */
  weigh(mate: Mate): void {
    const counts = mate.heard && mate.gives && !mate.shunned && mate.failures < mostFailures
    if (counts === mate.counts) return
    mate.counts = counts
    for (const chunk of mate.has) this.#holders[chunk]! += counts ? 1 : -1
  }

  left(mate: Mate): void {
    if (mate.counts) for (const chunk of mate.has) this.#holders[chunk]!--
    mate.has.clear()
    for (const pulls of [...this.#pulls.values()])
      for (const pull of [...pulls]) if (pull.from === mate) this.#drop(pull)
  }

  close(): void {
    this.#closed = true
    this.#options.budget.forget('pulls', this.#resume)
    for (const pulls of [...this.#pulls.values()]) for (const pull of [...pulls]) this.#drop(pull)
  }

  /** A member hands a chunk on to this machine. */
  handed(mate: Mate, chunk: number): void {
    const { have, tuning } = this.#options
    if (have.has(chunk) || mate.incoming >= tuning.hands) return
    if (this.#pulls.get(chunk)?.some(({ from }) => from === mate)) return
    this.#pull(mate, chunk, true)
  }

  /** The sources have brought a chunk: nobody needs to be asked for it any more. */
  arrived(chunk: number): void {
    for (const pull of [...(this.#pulls.get(chunk) ?? [])]) this.#drop(pull)
  }

  /** Asks for as much as may be on its way at once. */
  next(): void {
    const { tuning, budget } = this.#options
    while (!this.#closed && this.#ordinary < tuning.pulls) {
      const choice = this.#choose()
      if (!choice || !budget.take('pulls', this.#resume)) return
      this.#pull(choice.mate, choice.chunk, false)
    }
  }

  readonly #resume = () => this.next()

  /** Asks others for what is late. */
  look(): void {
    const { context, tuning, budget } = this.#options
    const now = context.now()
    const late = Math.max(leastLate, lateAfter * this.#options.times.median)
    for (const [chunk, pulls] of this.#pulls) {
      const { from, at } = pulls[0]!
      if (pulls.length > 1 || now - at < late) continue
      if (this.#ordinary >= tuning.pulls + 2) break
      const others = this.#idle().filter(mate => mate !== from)
      const mate = this.#source(chunk, others)
      if (mate && budget.take('pulls')) this.#pull(mate, chunk, false)
    }
    this.next()
  }

  #choose(): { mate: Mate; chunk: number } | undefined {
    const { have, hashes, context } = this.#options
    const idle = this.#idle()
    if (idle.length === 0) return undefined
    const { length } = have
    const begin = Math.floor(context.random() * length)
    let best: { mate: Mate; chunk: number } | undefined
    let rarest = Number.POSITIVE_INFINITY
    for (let i = 0; i < length; i++) {
      const chunk = begin + i < length ? begin + i : begin + i - length
      const holders = this.#holders[chunk]!
      if (holders === 0 || holders >= rarest || have.has(chunk) || this.#pulls.has(chunk) || !hashes.of(chunk)) continue
      const mate = this.#source(chunk, idle)
      if (!mate) continue
      best = { mate, chunk }
      rarest = holders
      if (holders === 1) break
    }
    return best
  }

  /** Those who may be asked now. */
  #idle(): Mate[] {
    const { mates, context } = this.#options
    const now = context.now()
    const idle: Mate[] = []
    for (const mate of mates.values())
      if (mate.counts && !mate.pulling && mate.busyUntil <= now && mate.has.total > 0) idle.push(mate)
    return idle
  }

  /** One of them who would give a chunk now. */
  #source(chunk: number, idle: readonly Mate[]): Mate | undefined {
    const { context } = this.#options
    const wait = Math.max(leastWait, 6 * this.#options.times.median)
    let found: Mate | undefined
    let count = 0
    for (const mate of idle) {
      if (!mate.has.has(chunk)) continue
      if (mate.handing && context.now() - this.#knownAt[chunk]! < wait) continue
      count++
      if (count === 1 || context.random() * count < 1) found = mate
    }
    return found
  }

  #pull(from: Mate, chunk: number, handed: boolean): void {
    const { context, digest, have } = this.#options
    const pull: Pull = { chunk, from, at: context.now(), handed, freed: false, request: undefined }
    const pulls = this.#pulls.get(chunk)
    if (pulls) pulls.push(pull)
    else this.#pulls.set(chunk, [pull])
    if (handed) from.incoming++
    else {
      from.pulling = true
      this.#ordinary++
    }
    const told = have.total
    pull.request = context.get(from.id, digest, chunk, have.bits, answer => {
      if (answer.has) this.#options.exchanged(from, told, answer.has)
      if (!this.#pulls.get(chunk)?.includes(pull)) {
        if (answer.kind === 'chunk') answer.drop()
        return
      }
      pull.request = undefined
      this.#answered(pull, answer)
    })
  }

  #answered(pull: Pull, answer: ChunkAnswer): void {
    const { context, have, hashes, tuning, got, wrong } = this.#options
    const { chunk, from, at } = pull
    const now = context.now()
    if (answer.kind !== 'chunk') {
      this.#drop(pull)
      if (answer.kind === 'busy') {
        from.refused = Math.min(from.refused * busyAgain, mostBusyAgain)
        const pause = Math.max(tuning.busy, this.#options.times.median / busyPart) * from.refused
        from.busyUntil = now + pause * (0.5 + context.random())
      } else {
        from.failures++
        if (answer.kind === 'lacks') this.lacks(from, chunk)
        else from.busyUntil = now + afterFailure
        this.weigh(from)
      }
      this.next()
      return
    }
    from.failures = 0
    from.refused = 1
    const said = hashes.of(chunk)
    if (said && answer.hash !== said.hash) {
      answer.drop()
      this.#drop(pull)
      this.lacks(from, chunk)
      from.shunned = true
      this.weigh(from)
      wrong(from, chunk, answer.hash)
    } else if (!said || have.has(chunk)) {
      answer.drop()
      this.#drop(pull)
    } else {
      this.#options.times.add(now - at)
      for (const other of [...(this.#pulls.get(chunk) ?? [])]) if (other !== pull) this.#drop(other)
      this.#free(pull)
      answer.keep(said.author, () => {
        this.#forget(pull)
        if (have.add(chunk)) got(chunk)
      })
    }
    this.next()
  }

  /** Others may be asked in its place. */
  #free(pull: Pull): void {
    if (pull.freed) return
    pull.freed = true
    if (pull.handed) {
      pull.from.incoming--
      return
    }
    pull.from.pulling = false
    this.#ordinary--
    this.#options.budget.free('pulls')
  }

  #drop(pull: Pull): void {
    pull.request?.[Symbol.dispose]()
    pull.request = undefined
    this.#free(pull)
    this.#forget(pull)
  }

  #forget(pull: Pull): void {
    const pulls = this.#pulls.get(pull.chunk)
    const index = pulls?.indexOf(pull) ?? -1
    if (!pulls || index < 0) return
    pulls.splice(index, 1)
    if (pulls.length === 0) this.#pulls.delete(pull.chunk)
  }
}
