import type { Lease } from '@shoal/store/lease'
import { type Giver, type Offer, type RangeWriter, type Source, SourceError } from '@shoal/store/source'

/** How long a rate is measured over, in ms, and how far back it can be told. */
export const measuredOver = 300
const lookedBack = 1000

/** Has writes wait, so that no more than a number of bytes comes in a second. */
export type Pace = (bytes: number) => Promise<void> | undefined

/** An offer in use. */
export class Tap {
  readonly source: Source
  readonly offer: Offer
  /** Who gives, as far as the offer does not name others. */
  readonly giver: Giver
  /** Whether there is no other source left to turn to. */
  readonly last: boolean
  /** Aborted when nothing more is to come of it. */
  readonly signal: AbortSignal
  /** Requests under way. */
  readonly lanes = new Set<Lane>()
  /** Where the first bytes are at hand, until some were asked for. */
  begin: number | undefined
  /** Requests that failed, and are to be made again after a while; meanwhile no others are made. */
  pauses = 0
  /** Requests for far readers that brought next to nothing. */
  fruitless = 0
  /** Whether another gives what it was to give. */
  beaten = false
  /** In bytes/s, when it last gave; undefined if that was too short to tell. */
  rate: number | undefined
  #received = 0
  #samples: { readonly at: number; readonly received: number }[] = []

  constructor({
    source,
    offer,
    giver,
    last,
    signal,
    begin,
  }: Pick<Tap, 'source' | 'offer' | 'giver' | 'last' | 'signal' | 'begin'>) {
    this.source = source
    this.offer = offer
    this.giver = giver
    this.last = last
    this.signal = signal
    this.begin = begin
  }

  get isPeers(): boolean {
    return this.offer.origin.kind === 'peer'
  }

  /** Has it give no more, without being at fault. */
  leave(why: string): void {
    this.beaten = true
    for (const lane of this.lanes) lane.end(new SourceError('revoked', why))
  }

  received(bytes: number): void {
    this.#received += bytes
  }

  /** To be called every so often: looks how fast bytes come, unless it is not for the source that there are none. */
  look(now: number): void {
    const flows = this.lanes.size > 0 && [...this.lanes].every(lane => !lane.waits)
    if (!flows) {
      this.#samples = []
      return
    }
    this.#samples.push({ at: now, received: this.#received })
    while (this.#samples.length > 1 && now - this.#samples[1]!.at >= lookedBack) this.#samples.shift()
    this.rate = this.rateOver(measuredOver) ?? this.rate
  }

  /** In bytes/s, over the last `time` ms; undefined if it has not been giving, or was not watched, for so long. */
  rateOver(time: number): number | undefined {
    const last = this.#samples.at(-1)
    const first = last && this.#samples.findLast(({ at }) => last.at - at >= time)
    return first && ((last.received - first.received) / (last.at - first.at)) * 1000
  }
}

/** One request of a tap, for one leased range. */
export class Lane implements RangeWriter {
  readonly lease: Lease
  /** When the first bytes came, in ms, and the last; the latter is the beginning before any have. */
  firstAt: number | undefined
  lastAt: number
  /** Whether what it was to bring is another machine's to fetch. */
  withdrawn = false
  readonly #tap: Tap
  readonly #pace: Pace | undefined
  readonly #now: () => number
  readonly #abort = new AbortController()
  readonly signal: AbortSignal
  #held = 0

  constructor(tap: Tap, lease: Lease, pace: Pace | undefined, now: () => number) {
    this.lease = lease
    this.lastAt = now()
    this.signal = AbortSignal.any([tap.signal, this.#abort.signal])
    this.#tap = tap
    this.#pace = pace
    this.#now = now
  }

  get room(): number {
    return this.lease.room
  }

  /** Whether it is not the source that is waited for. */
  get waits(): boolean {
    return this.lease.full || this.#held > 0
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    const count = Math.min(bytes.length, this.room)
    const written = this.lease.write(bytes)
    this.#tap.received(count)
    this.lastAt = this.#now()
    this.firstAt ??= this.lastAt
    const turn = this.#pace?.(count)
    if (!turn) return written
    this.#held++
    return this.#both(turn, written)
  }

  from(giver: Giver, size?: number): void {
    this.lease.from(giver, size)
  }

  end(reason: Error): void {
    this.#abort.abort(reason)
  }

  /** Ends it because another brings the rest. */
  withdraw(): void {
    this.withdrawn = true
    this.end(new SourceError('revoked', 'another machine fetches the rest'))
  }

  async #both(turn: Promise<void>, written: Promise<void> | undefined): Promise<void> {
    try {
      await Promise.all([turn, written])
    } finally {
      this.#held--
      this.lastAt = this.#now()
    }
  }
}
