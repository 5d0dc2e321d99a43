import { Allowance } from './allowance.ts'
import { prefixLength } from './digest-prefix.ts'
import type { Holdings } from './holdings.ts'
import { type HoldingsMessage, MessageError } from './message.ts'

/**
 * What a peer may send, in prefixes: so many at once, and so many a second. A message costs as much as some prefixes
 * more. A snapshot of 200,000 every 10 s and changes every 100 ms are well within.
 */
const mostAtOnce = 1_000_000
const perSecond = 50_000
const perMessage = 1000

/** Parts of a snapshot: four times as many as all that is kept of a peer needs. */
const mostParts = 100

/** For how long a peer that was asked for a snapshot is waited for before it is asked again, in ms. */
const patience = 15_000

export type HoldingsInboxOptions = {
  readonly peer: string
  readonly holdings: Pick<Holdings, 'snapshotBegun' | 'add' | 'remove'>
  readonly send: (message: { readonly t: 'resync' }) => void
  /** In ms, never going back. */
  readonly now: () => number
  /** Calls `then` after so many ms, unless disposed of before. @default setTimeout */
  readonly after?: (ms: number, then: () => void) => Disposable
}

/** Takes what one peer announces in a session, and sees that nothing of it is missing. */
export class HoldingsInbox {
  readonly #options: HoldingsInboxOptions
  readonly #after: (ms: number, then: () => void) => Disposable
  /** The number of the next message. */
  #next = 1
  /** Parts of the snapshot so far. */
  #parts = 0
  /** While something is missing: until the peer is asked again. */
  #asking: Disposable | undefined
  readonly #allowance: Allowance
  #closed = false

  constructor(options: HoldingsInboxOptions) {
    this.#options = options
    this.#after = options.after ?? ((ms, then) => setTimeout(then, ms).unref())
    this.#allowance = new Allowance({ atOnce: mostAtOnce, perSecond, now: options.now })
  }

  /** @throws MessageError `FLOOD`, `ENDLESS`: the session is to end */
  receive(message: HoldingsMessage): void {
    if (this.#closed) return
    const { seq, reset, more, add, remove } = message
    if (!this.#allowance.take(perMessage + (add.length + remove.length) / prefixLength))
      throw new MessageError('FLOOD', `more than ${perSecond} prefixes a second are announced`)
    const { peer, holdings } = this.#options
    const missed = seq !== this.#next
    this.#next = seq + 1
    if (reset) {
      this.#stopAsking()
      this.#parts = 0
      holdings.snapshotBegun(peer)
    } else if (missed && !this.#asking) this.#ask()
    if (this.#asking) return
    this.#parts = more ? this.#parts + 1 : 0
    if (this.#parts > mostParts) throw new MessageError('ENDLESS', `a snapshot of more than ${mostParts} parts`)
    holdings.remove(peer, remove)
    holdings.add(peer, add)
  }

  close(): void {
    this.#closed = true
    this.#stopAsking()
  }

  #ask(): void {
    this.#asking = this.#after(patience, () => this.#ask())
    this.#options.send({ t: 'resync' })
  }

  #stopAsking(): void {
    this.#asking?.[Symbol.dispose]()
    this.#asking = undefined
  }
}
