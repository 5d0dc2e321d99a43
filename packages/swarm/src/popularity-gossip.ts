import { mostRows, type Told } from '@shoal/retention/office-popularity'
import { type Row, strongest } from '@shoal/retention/popularity'
import { Allowance } from './allowance.ts'
import type { Utterance } from './gossip.ts'
import { decodePopularity, encodePopularity, MessageError, type PopularMessage } from './message.ts'
import { fieldsOf, isTellable, stepsOf, toldOf } from './popularity-message.ts'

/** What is said by gossip; the name has the version of its messages. */
export const popularityTopic = '/shoal/1/popularity'

/** Of one message, in bytes. What does not fit is told in the next. */
export const longestMessage = 32 * 1024

/** What a row takes beside its image, at most, in bytes; and a message beside its rows. */
const perRow = 12
const perMessage = 32

/**
 * How long changes are gathered, in ms, on average: so long at least, and so long for each peer, so that an office hears
 * something every 15 s, however large it is. Half more or less is left to chance.
 */
const leastInterval = 5 * 60_000
const intervalEach = 15_000

/** Messages that one peer may say: so many at once, and so many a second after that. */
const mostAtOnce = 8
const perSecond = 1 / 30

/** What others may know of this machine, and what it hears of them. */
export type PopularityExchange = {
  /** This machine's own rows that others may know: none, if it is to tell nothing. In no order. */
  rows(): Iterable<Row>
  /** A peer has said what is pulled on it. */
  heard(peer: string, told: Told): void
  /** Calls `then` after so many ms, unless disposed of before. @default setTimeout */
  readonly after?: (ms: number, then: () => void) => Disposable
}

export type PopularityGossipOptions = PopularityExchange & {
  /** Says something to all who are connected, and those behind them. */
  readonly publish: (bytes: Uint8Array) => void
  /** How many peers are connected. */
  readonly connected: () => number
  /** Whether a peer is connected. */
  readonly isMember: (peer: string) => boolean
  /** In ms, never going back. */
  readonly now: () => number
  /** In ms since the epoch. */
  readonly clock: () => number
  readonly random: () => number
}

/** What an author may say, and the number of what it has said last. */
type Account = { readonly allowance: Allowance; sequence: bigint }

/**
 * What machines tell each other of what is pulled on them. Who comes is told all once; after that each says what has changed,
 * to all, every few minutes if anything has. Rows only grow, so that what is lost is made up for by what is said next.
 */
export class PopularityGossip {
  readonly #options: PopularityGossipOptions
  readonly #after: (ms: number, then: () => void) => Disposable
  /** What all have been told who are connected, or are told when they come: scores in steps. */
  #told: ReadonlyMap<string, number>
  /** Of members who have said something. */
  readonly #accounts = new Map<string, Account>()
  /** Until changes are told. */
  #gathering: Disposable | undefined
  #closed = false

  constructor(options: PopularityGossipOptions) {
    this.#options = options
    this.#after = options.after ?? ((ms, then) => setTimeout(then, ms).unref())
    this.#told = new Map(this.#own().map(row => [row.image, stepsOf(row)]))
  }

  /** This machine's own rows have changed: others hear of it before long. */
  changed(): void {
    if (this.#closed || this.#gathering) return
    const { connected, random } = this.#options
    const interval = Math.max(leastInterval, connected() * intervalEach)
    this.#gathering = this.#after(interval * (0.5 + random()), () => {
      this.#gathering = undefined
      this.#tell()
    })
  }

  /** What who has just come is told; undefined if there is nothing to tell. */
  get snapshot(): PopularMessage | undefined {
    const rows = this.#own()
    return rows.length > 0 ? { t: 'popular', ...fieldsOf({ at: this.#options.clock(), rows }) } : undefined
  }

  /** A member says so itself. */
  receive(member: string, message: PopularMessage): void {
    if (this.#accountOf(member).allowance.take(1)) this.#options.heard(member, toldOf(message))
  }

  /** What has come by gossip. @returns whether to pass it on */
  judge({ author, sequence, bytes }: Utterance): boolean {
    if (bytes.length > longestMessage || !this.#options.isMember(author)) return false
    const account = this.#accountOf(author)
    // Others could say again what it has said before, until it may say nothing more.
    if (sequence <= account.sequence) return false
    const told = read(bytes)
    if (!told) return false
    account.sequence = sequence
    if (!account.allowance.take(1)) return false
    this.#options.heard(author, told)
    return true
  }

  left(member: string): void {
    this.#accounts.delete(member)
  }

  close(): void {
    this.#closed = true
    this.#gathering?.[Symbol.dispose]()
  }

  /** The rows that others may know. */
  #own(): Row[] {
    return strongest([...this.#options.rows()].filter(isTellable), mostRows)
  }

  #tell(): void {
    const { publish, clock } = this.#options
    const own = this.#own()
    const changed = own.filter(row => this.#told.get(row.image) !== stepsOf(row))
    const rows = fitting(changed)
    const left = new Set(changed.slice(rows.length))
    // What is no longer among the strongest is told anew if it comes back.
    this.#told = new Map(own.filter(row => !left.has(row)).map(row => [row.image, stepsOf(row)]))
    if (rows.length > 0) publish(encodePopularity(fieldsOf({ at: clock(), rows })))
    if (left.size > 0) this.changed()
  }

  #accountOf(member: string): Account {
    const known = this.#accounts.get(member)
    if (known) return known
    const allowance = new Allowance({ atOnce: mostAtOnce, perSecond, now: this.#options.now })
    const account = { allowance, sequence: -1n }
    this.#accounts.set(member, account)
    return account
  }
}

/** The first of some rows, as many as fit into a message. */
function fitting(rows: readonly Row[]): Row[] {
  let room = longestMessage - perMessage
  const end = rows.findIndex(({ image }) => (room -= image.length + perRow) < 0)
  return end < 0 ? [...rows] : rows.slice(0, end)
}

function read(bytes: Uint8Array): Told | undefined {
  try {
    return toldOf(decodePopularity(bytes))
  } catch (error) {
    if (error instanceof MessageError) return undefined
    throw error
  }
}
