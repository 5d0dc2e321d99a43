import type { Budget } from './budget.ts'
import { Durations } from './durations.ts'
import type { Mate } from './mate.ts'
import type { SpreadContext } from './spread-context.ts'
import type { Tuning } from './tuning.ts'

/**
 * How long who was handed a chunk may take to ask for it, in ms; as long, and so many times the usual, to get it, and then to
 * pass it on. What is usual is not known at first.
 */
const leastPatience = 1000
const mostPatience = 10_000
const usualTimes = 3

/** How long others may take to tell that they have got a chunk from one who has left, in ms. */
const newsTime = 200

export type HandoutOptions = {
  readonly context: Pick<SpreadContext, 'now' | 'random'>
  readonly tuning: Tuning
  readonly budget: Budget
  readonly mates: ReadonlyMap<string, Mate>
  /** Others who are known to have a chunk. */
  readonly holders: (chunk: number) => number
  readonly hand: (mate: Mate, chunk: number) => void
}

type Handed = {
  readonly mate: Mate
  readonly at: number
  until: number
  /** Whether it was asked for, and whether it has arrived. */
  asked: boolean
  taken: boolean
}

/** Hands each chunk that this machine is the first to have on to one other, once: from there it spreads. */
export class Handout {
  readonly #options: HandoutOptions
  /** Fresh ones, in the order in which they came, and when. */
  readonly #fresh: { readonly chunk: number; readonly at: number }[] = []
  /** Those handed on that have not spread further yet. */
  readonly #handed = new Map<number, Handed>()
  /** How many of them have not been taken yet. */
  #open = 0
  readonly #times = new Durations()

  constructor(options: HandoutOptions) {
    this.#options = options
  }

  /** Whether something has not been handed on yet. */
  get busy(): boolean {
    return this.#fresh.length > 0
  }

  /** How long the first one has not been handed on, in ms. */
  get waits(): number {
    const [first] = this.#fresh
    return first ? this.#options.context.now() - first.at : 0
  }

  add(chunk: number): void {
    this.#fresh.push({ chunk, at: this.#options.context.now() })
  }

  /** A member asks for a chunk. @returns whether it was handed that */
  asked(mate: Mate, chunk: number): boolean {
    const handed = this.#handed.get(chunk)
    if (handed?.mate !== mate) return false
    if (!handed.asked) handed.until = this.#options.context.now() + this.#patience
    handed.asked = true
    return true
  }

  /** A member has a chunk, whoever gave it. */
  learned(mate: Mate, chunk: number): void {
    const handed = this.#handed.get(chunk)
    if (!handed) return
    const { holders, context } = this.#options
    if (holders(chunk) >= this.#enough) {
      const time = context.now() - handed.at
      handed.mate.pace += (time - handed.mate.pace) / (handed.mate.pace === 0 ? 1 : 4)
      this.#times.add(time)
      this.#end(chunk, handed)
    } else if (handed.mate === mate) this.#took(handed)
  }

  /** A member has been given a chunk that it was handed, and will say so some time. */
  given(mate: Mate, chunk: number): void {
    const handed = this.#handed.get(chunk)
    if (handed?.mate !== mate) return
    this.#took(handed)
    this.next()
  }

  #took(handed: Handed): void {
    if (handed.taken) return
    handed.taken = true
    handed.until = this.#options.context.now() + this.#patience
    this.#closed()
  }

  close(): void {
    this.#options.budget.forget('hands', this.#resume)
    this.#fresh.length = 0
    for (const [chunk, handed] of this.#handed) this.#end(chunk, handed)
  }

  left(mate: Mate): void {
    const soon = this.#options.context.now() + newsTime
    for (const handed of this.#handed.values()) if (handed.mate === mate) handed.until = soon
  }

  /** Hands on as much as may be on its way at once. */
  next(): void {
    const { tuning, holders } = this.#options
    while (this.#fresh.length > 0 && this.#open < tuning.hands) {
      const { chunk } = this.#fresh[0]!
      // Some may say so who have not got it.
      if (holders(chunk) > this.#givers / 2) {
        this.#fresh.shift()
        continue
      }
      const mate = this.#choose(chunk)
      if (!mate || !this.#options.budget.take('hands', this.#resume)) return
      this.#fresh.shift()
      this.#hand(mate, chunk)
    }
  }

  #hand(mate: Mate, chunk: number): void {
    const { context, hand } = this.#options
    const now = context.now()
    mate.handed++
    this.#open++
    this.#handed.set(chunk, { mate, at: now, until: now + leastPatience, asked: false, taken: false })
    hand(mate, chunk)
  }

  /** Looks for chunks that were not taken, or have not spread, in time: another is handed them. */
  look(): void {
    const { context, holders } = this.#options
    const now = context.now()
    for (const [chunk, handed] of this.#handed) {
      if (now < handed.until) continue
      const { mate, at, asked, taken } = handed
      mate.pace = Math.max(mate.pace, now - at) * (asked ? 1 : 2)
      this.#end(chunk, handed)
      if (holders(chunk) >= this.#enough) continue
      const other = this.#choose(chunk)
      if (other && this.#options.budget.take('hands')) this.#hand(other, chunk)
      else if (!taken) this.#fresh.unshift({ chunk, at: now })
    }
    this.next()
  }

  get #patience(): number {
    return this.#times.median === 0 ? mostPatience : Math.max(leastPatience, usualTimes * this.#times.median)
  }

  /** Others who are to have a chunk until it is out of hand. */
  get #enough(): number {
    return Math.min(2, this.#givers)
  }

  get #givers(): number {
    let givers = 0
    for (const { counts } of this.#options.mates.values()) if (counts) givers++
    return givers
  }

  #end(chunk: number, { mate, taken }: Handed): void {
    this.#handed.delete(chunk)
    mate.handed--
    if (!taken) this.#closed()
  }

  #closed(): void {
    this.#open--
    this.#options.budget.free('hands')
  }

  readonly #resume = () => this.next()

  /** The one who is likely to be the first to pass it on. */
  #choose(chunk: number): Mate | undefined {
    const { mates, context } = this.#options
    const usual = this.#times.median || 1
    let best: Mate | undefined
    let least = Number.POSITIVE_INFINITY
    for (const mate of mates.values()) {
      if (!mate.counts || mate.has.has(chunk)) continue
      const time = (mate.handed + 1) * (mate.pace || usual) * (1 + context.random() / 10)
      if (time >= least) continue
      best = mate
      least = time
    }
    return best
  }
}
