import type { ByteRange } from '@shoal/oci/byte-range'
import { algorithmOf, type Digest, digestOf } from '@shoal/oci/digest'
import { RangeSet } from '@shoal/oci/range-set'
import type { Ingest } from './ingest.ts'
import type { Reader } from './reader.ts'
import { type Origin, type RangeWriter, SourceError } from './source.ts'

/**
 * How many bytes at the end of every response are held back until the digest of the whole blob is known to match, so
 * that nothing wrong is ever sent as complete.
 */
const holdBack = 64 * 1024

const bufferSize = 512 * 1024

/** Buffers that leases write from, kept for the next: fresh memory costs more than the copy. */
const spareBuffers: Buffer[] = []
const mostSpareBuffers = 32

export type Settled = { readonly stored: true } | { readonly stored: false; readonly error: Error }

/** Who fills a transfer. */
export interface Filler {
  /** A reader waits for bytes. */
  wanted(): void
  /** Nobody reads any more. */
  deserted(): void
}

/**
 * One blob on its way: a part file that one or many offers fill, in ranges that are leased to them, and that any number
 * of readers follow, each at its own pace, from the file.
 */
export class Transfer {
  readonly digest: Digest
  /** Resolves when the blob is stored, or when it is known that it will not be. */
  readonly settled: Promise<Settled>
  /** The first to give bytes; set before {@link sized} resolves. */
  origin: Origin | undefined
  readonly #open: (size: number) => Promise<Ingest>
  readonly #settle: (settled: Settled) => void
  readonly #leases = new Set<Lease>()
  readonly #readers = new Set<TransferReader>()
  #sized = Promise.withResolvers<number>()
  #holds = 0
  #ingest: Ingest | undefined
  #filler: Filler | undefined
  #state: 'open' | 'parking' | 'stored' | 'failed' = 'open'
  #failure: Error | undefined
  #waiting: (() => void)[] = []

  /** @param open makes or finds the part file, once the size is known */
  constructor(digest: Digest, open: (size: number) => Promise<Ingest>) {
    this.digest = digest
    this.#open = open
    const { promise, resolve } = Promise.withResolvers<Settled>()
    this.settled = promise
    this.#settle = resolve
    this.#sized.promise.catch(() => {})
  }

  /** Resolves to the blob's size in bytes once somebody offers it; rejects if nobody does. */
  get sized(): Promise<number> {
    return this.#sized.promise
  }

  get size(): number | undefined {
    return this.#ingest?.size
  }

  /** What is there; not verified. */
  get have(): RangeSet {
    return this.#ingest?.have ?? new RangeSet()
  }

  get complete(): boolean {
    return this.#ingest?.complete ?? false
  }

  /** Whether it still takes bytes. */
  get open(): boolean {
    return this.#state === 'open'
  }

  /** Whether nobody wants the blob. */
  get deserted(): boolean {
    return this.#readers.size === 0 && this.#holds === 0
  }

  /** Names who fills the transfer; there is one for its whole life. */
  fillBy(filler: Filler): void {
    this.#filler = filler
  }

  /** Counts as a reader that needs no bytes, until it is disposed of. */
  hold(): Disposable {
    this.#holds++
    let held = true
    return {
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        this.#holds--
        this.#left()
      },
    }
  }

  /**
   * Sets the size, and opens the part file with what an earlier transfer left in it. Who told another size before may
   * have been wrong: as long as nobody holds to it, the last one counts. What is there is thrown away, and readers that
   * were answered for the other size fail.
   * @throws SourceError `broken` if that cannot be, or somebody is filling a blob of another size
   */
  async begin(size: number): Promise<void> {
    const before = this.#ingest
    if (before?.size === size) return
    if (before && this.#leases.size > 0)
      throw new SourceError('broken', `it would have ${size} bytes, not ${before.size}`)
    // An empty response is complete with its headers, before anything could be verified.
    if (size === 0 && digestOf(new Uint8Array(), algorithmOf(this.digest)) !== this.digest)
      throw new SourceError('broken', `it would have no bytes, which is not ${this.digest}`)
    if (before) {
      this.#ingest = undefined
      this.#unoffer()
      for (const reader of this.#readers)
        reader.fail(new SourceError('broken', `it has ${size} bytes, not ${before.size}`))
      this.#wake()
      await discard(before)
    }
    this.#ingest = await this.#open(size)
  }

  /** Tells that somebody gives the blob: from here on it can be answered for. */
  offered(origin: Origin | undefined): void {
    this.origin ??= origin
    if (this.#ingest) this.#sized.resolve(this.#ingest.size)
  }

  /** Nobody is known to have the blob, until {@link offered} again. Who waits to hear of it waits on. */
  #unoffer(): void {
    const before = this.#sized
    this.#sized = Promise.withResolvers()
    this.#sized.promise.catch(() => {})
    before.resolve(this.#sized.promise)
    this.origin = undefined
  }

  /** Where readers stand and wait: the bytes that are wanted first. */
  wanted(): ByteRange[] {
    return [...this.#readers].filter(reader => reader.waits).map(({ position, end }) => ({ start: position, end }))
  }

  /** The first run of missing bytes, from `position` on, that nobody is filling. */
  unleased(position = 0): ByteRange | undefined {
    const { size } = this
    if (size === undefined) return undefined
    const taken = new RangeSet(this.have)
    for (const { start, end } of this.#leases) taken.add({ start, end })
    return taken.gaps({ start: position, end: size })[0]
  }

  /** How many bytes come before the one at `position` on the lease that will bring it; undefined if there is none. */
  distance(position: number): number | undefined {
    for (const lease of this.#leases)
      if (lease.start <= position && position < lease.end) return Math.max(position - lease.position, 0)
    return undefined
  }

  /**
   * Leases a missing range to be filled, at most up to the next bytes that are there or that another lease has had.
   * A lease that is still to come to the range gives it up.
   */
  lease(range: ByteRange): Lease {
    const ingest = this.#ingest
    if (!ingest || this.#state !== 'open') throw new SourceError('revoked', 'the transfer has ended')
    const gap = ingest.have.gaps(range)[0]
    if (gap?.start !== range.start) throw new Error(`the byte at ${range.start} is there`)
    let { end } = gap
    for (const other of this.#leases) {
      if (other.start <= range.start && range.start < other.position)
        throw new Error(`the byte at ${range.start} is on its way`)
      if (other.start > range.start) end = Math.min(end, other.start)
      else if (other.end > range.start) {
        end = Math.min(end, other.end)
        other.end = Math.max(range.start, other.position)
      }
    }
    const lease = new Lease(ingest, { start: range.start, end }, this.#leaseEvents)
    this.#leases.add(lease)
    return lease
  }

  /** Reads a range as it arrives. The last bytes come when the whole blob is verified. */
  read(range: ByteRange): Reader {
    const reader = new TransferReader(range, {
      visible: reader => this.#visible(reader),
      file: (buffer, length, position) => this.#ingest!.read(buffer, length, position),
      wait: () => this.changed(),
      wake: () => this.#wake(),
      wanted: () => this.#filler?.wanted(),
      left: reader => {
        if (this.#readers.delete(reader)) this.#left()
      },
    })
    this.#readers.add(reader)
    if (this.#failure) reader.fail(this.#failure)
    return reader
  }

  /** Resolves at the next change: bytes, a lease that ends, the end. */
  changed(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  /**
   * Checks the digest of a complete transfer. If it matches, the blob is stored and the transfer settles. If not, all
   * is thrown away and the transfer begins anew: readers that have had bytes fail, the others wait on.
   * @param onStored records the blob, after its file has its name and before readers get the last bytes
   * @returns what happened; `resumed` is whether some of the wrong bytes came from an earlier run
   */
  async verify(onStored: () => Promise<void>): Promise<{ matches: boolean; resumed: boolean }> {
    const ingest = this.#ingest
    if (!ingest || this.#state !== 'open') throw new SourceError('revoked', 'the transfer has ended')
    if (await ingest.verify()) {
      await ingest.commit()
      await onStored()
      this.#end('stored', { stored: true })
      return { matches: true, resumed: false }
    }
    const error = new SourceError('broken', `what arrived for ${this.digest} does not have that digest`)
    for (const reader of this.#readers) if (reader.started) reader.fail(error)
    const { size } = ingest
    // Who gave wrong bytes has not shown to have the blob.
    this.#unoffer()
    // Until there is a new part file, who comes to read must find nothing.
    this.#ingest = undefined
    await discard(ingest)
    this.#ingest = await this.#open(size)
    this.#wake()
    return { matches: false, resumed: ingest.resumed > 0 }
  }

  /** Takes no more bytes, and no more readers should come: it will be parked. */
  seal(): void {
    if (this.#state === 'open') this.#state = 'parking'
  }

  /** Gives up, and keeps what is there for another time. */
  async park(error: Error): Promise<void> {
    this.seal()
    if (this.#state !== 'parking') return
    for (const lease of [...this.#leases]) await lease.revoke()
    try {
      await this.#ingest?.park()
    } finally {
      this.#failure = error
      this.#sized.reject(error)
      for (const reader of this.#readers) reader.fail(error)
      this.#end('failed', { stored: false, error })
    }
  }

  readonly #leaseEvents = {
    progressed: () => this.#wake(),
    ended: (lease: Lease) => {
      this.#leases.delete(lease)
      this.#wake()
    },
  }

  #visible(reader: TransferReader): number {
    const { position, end } = reader
    if (!this.#ingest) return position
    const reach = Math.min(this.#ingest.have.reach(position), end)
    return this.#state === 'stored' ? end : Math.min(reach, end - holdBack)
  }

  #wake(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const wake of waiting) wake()
  }

  #left(): void {
    if (!this.deserted) return
    if (this.#state === 'open') this.#filler?.deserted()
    else this.#closeFile()
  }

  #end(state: 'stored' | 'failed', settled: Settled): void {
    this.#state = state
    this.#settle(settled)
    this.#wake()
    this.#closeFile()
  }

  /** The last to leave closes the file. */
  #closeFile(): void {
    if (!this.deserted || this.#state === 'open' || this.#state === 'parking') return
    this.#ingest?.close().catch(() => {})
    this.#ingest = undefined
  }
}

async function discard(ingest: Ingest): Promise<void> {
  try {
    await ingest.discard()
  } finally {
    await ingest.close()
  }
}

/** The right to fill one range of a transfer. */
export class Lease implements RangeWriter {
  readonly start: number
  /** The next byte to come. */
  position: number
  /** Falls when a part of the range is leased to another. */
  end: number
  readonly #ingest: Ingest
  readonly #events: { progressed(): void; ended(lease: Lease): void }
  #buffer: Buffer | undefined
  #filled = 0
  #flushing: Promise<void> | undefined
  #failure: Error | undefined
  #ended = false

  constructor(ingest: Ingest, range: ByteRange, events: { progressed(): void; ended(lease: Lease): void }) {
    this.#ingest = ingest
    this.#events = events
    this.start = range.start
    this.position = range.start
    this.end = range.end
  }

  get room(): number {
    return this.#ended ? 0 : this.end - this.position
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    if (this.#failure) throw this.#failure
    if (this.#ended) throw new SourceError('revoked', 'the lease has ended')
    const taken = bytes.length > this.room ? bytes.subarray(0, this.room) : bytes
    this.#buffer ??= spareBuffers.pop() ?? Buffer.allocUnsafeSlow(bufferSize)
    const count = Math.min(taken.length, bufferSize - this.#filled)
    this.#buffer.set(count < taken.length ? taken.subarray(0, count) : taken, this.#filled)
    this.#filled += count
    this.position += count
    // While one write is under way the next gathers: few large writes under load, at once when there is none.
    if (!this.#flushing && this.#filled > 0) this.#flushing = this.#flush()
    if (count < taken.length) {
      if (this.#filled < bufferSize) return this.write(taken.subarray(count))
      return this.#flushing?.then(() => this.write(taken.subarray(count)))
    }
    return this.#filled === bufferSize ? this.#flushing : undefined
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
    while (this.#flushing) await this.#flushing
    if (!first) return
    if (this.#buffer) spare(this.#buffer)
    this.#buffer = undefined
    this.#events.ended(this)
  }

  async #flush(): Promise<void> {
    const buffer = this.#buffer!
    const bytes = buffer.subarray(0, this.#filled)
    const at = this.position - this.#filled
    this.#buffer = undefined
    this.#filled = 0
    try {
      await this.#ingest.write(bytes, at)
      this.#flushing = this.#filled > 0 ? this.#flush() : undefined
      this.#events.progressed()
    } catch (error) {
      this.#failure = error instanceof Error ? error : new Error(String(error))
      this.#flushing = undefined
    } finally {
      spare(buffer)
    }
  }
}

function spare(buffer: Buffer): void {
  if (spareBuffers.length < mostSpareBuffers) spareBuffers.push(buffer)
}

type TransferReaderEvents = {
  visible(reader: TransferReader): number
  file(buffer: Uint8Array, length: number, position: number): Promise<number>
  wait(): Promise<void>
  wake(): void
  wanted(): void
  left(reader: TransferReader): void
}

class TransferReader implements Reader {
  position: number
  readonly end: number
  /** Whether it has had bytes, or is about to. */
  started = false
  /** Whether it waits for bytes. */
  waits = false
  readonly #events: TransferReaderEvents
  #failure: Error | undefined

  constructor(range: ByteRange, events: TransferReaderEvents) {
    this.position = range.start
    this.end = range.end
    this.#events = events
  }

  async read(buffer: Uint8Array): Promise<number> {
    for (;;) {
      if (this.#failure) throw this.#failure
      if (this.position === this.end) return 0
      const ready = Math.min(this.#events.visible(this) - this.position, buffer.length)
      if (ready > 0) {
        this.started = true
        const count = await this.#events.file(buffer, ready, this.position)
        if (this.#failure) throw this.#failure
        if (count === 0) throw new SourceError('broken', 'the part file is shorter than what was written to it')
        this.position += count
        return count
      }
      const change = this.#events.wait()
      this.waits = true
      this.#events.wanted()
      await change
      this.waits = false
    }
  }

  fail(error: Error): void {
    this.#failure ??= error
  }

  cancel(): void {
    this.fail(new SourceError('revoked', 'the reader was cancelled'))
    this.#events.wake()
  }

  close(): void {
    this.#events.left(this)
  }
}
