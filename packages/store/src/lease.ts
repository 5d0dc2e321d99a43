import type { ByteRange } from '@shoal/oci/byte-range'
import type { Ingest } from './ingest.ts'
import type { Passage } from './passage.ts'
import type { Recent } from './recent-bytes.ts'
import { type Giver, type RangeWriter, SourceError } from './source.ts'
import { copyBytes, giveBack, takeBuffer } from './write-buffer.ts'

/**
 * Buffers of one lease that are being written and hashed, so that what arrives need not wait while the disk is busy
 * with a sync; and if there are many of all leases.
 */
const mostFlights = 16
const fewFlights = 2
const manyFlights = 64
let flightsInAll = 0

/** What comes in drops is written once there is so much of it, in bytes, or it has waited for so long, in ms. */
const worthFlight = 64 * 1024
const longestWait = 10

/** Told when bytes are in the part file, with a buffer to keep or give back, of sizes, and when the lease has ended. */
export type LeaseEvents = {
  progressed(recent: Recent): void
  claimed(giver: Giver, size: number): void
  ended(lease: Lease): void
}

/** The right to fill one range of a transfer. */
export class Lease implements RangeWriter {
  readonly start: number
  /** The next byte to come. */
  position: number
  /** Falls when a part of the range is leased to another. */
  end: number
  readonly #part: Ingest | Passage
  readonly #events: LeaseEvents
  /** Buffers on their way to the disk. They never reject. */
  readonly #flights = new Set<Promise<void>>()
  #giver: Giver | undefined
  #gathering: Buffer | undefined
  #filled = 0
  #soon: NodeJS.Timeout | undefined
  #failure: Error | undefined
  #ended = false

  constructor(part: Ingest | Passage, range: ByteRange, events: LeaseEvents, giver: Giver | undefined) {
    this.#part = part
    this.#events = events
    this.#giver = giver
    this.start = range.start
    this.position = range.start
    this.end = range.end
  }

  get room(): number {
    return this.#ended ? 0 : this.end - this.position
  }

  /** Whether it is the disk, or a reader of what passes through, that is waited for. */
  get full(): boolean {
    return this.#flights.size >= fewFlights
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    if (this.#failure) throw this.#failure
    if (this.#ended) throw new SourceError('revoked', 'the lease has ended')
    for (let rest = bytes.length > this.room ? bytes.subarray(0, this.room) : bytes; rest.length > 0; ) {
      const buffer = (this.#gathering ??= takeBuffer())
      const count = Math.min(rest.length, buffer.length - this.#filled)
      copyBytes(rest, count, buffer, this.#filled)
      this.#filled += count
      this.position += count
      rest = rest.subarray(count)
      // Few large writes under load, soon when there is none under way.
      const idle =
        this.#flights.size === 0 && (this.#filled >= worthFlight || this.position - this.#filled === this.start)
      if (this.#filled === buffer.length || idle) this.#flush()
      else this.#soon ??= setTimeout(() => this.#flushSoon(), longestWait)
    }
    const most = flightsInAll < manyFlights ? mostFlights : fewFlights
    return this.#flights.size < most ? undefined : Promise.race(this.#flights)
  }

  from(giver: Giver, size?: number): void {
    // What is gathered came from another.
    if (giver !== this.#giver && this.#filled > 0) this.#flush()
    this.#giver = giver
    if (size !== undefined) this.#events.claimed(giver, size)
  }

  /** Ends the lease once all that was given is written. @throws the disk's error if some was not */
  async close(): Promise<void> {
    await this.revoke()
    if (this.#failure) throw this.#failure
  }

  /** Takes the lease back: what was given is kept, no more is taken. */
  async revoke(): Promise<void> {
    const first = !this.#ended
    this.#ended = true
    clearTimeout(this.#soon)
    if (this.#filled > 0) this.#flush()
    while (this.#flights.size > 0) await Promise.all(this.#flights)
    if (!first) return
    if (this.#gathering) giveBack(this.#gathering)
    this.#gathering = undefined
    this.#events.ended(this)
  }

  #flushSoon(): void {
    this.#soon = undefined
    if (this.#filled > 0) this.#flush()
  }

  #flush(): void {
    const buffer = this.#gathering!
    const flight = this.#fly(buffer, buffer.subarray(0, this.#filled), this.position - this.#filled, this.#giver)
    this.#flights.add(flight)
    flightsInAll++
    void flight.then(() => {
      this.#flights.delete(flight)
      flightsInAll--
    })
    this.#gathering = undefined
    this.#filled = 0
  }

  async #fly(buffer: Buffer, bytes: Buffer, start: number, giver: Giver | undefined): Promise<void> {
    try {
      await this.#part.write(bytes, start, giver)
      this.#events.progressed({ start, bytes, buffer })
    } catch (error) {
      this.#failure ??= error instanceof Error ? error : new Error(String(error))
      giveBack(buffer)
    }
  }
}
