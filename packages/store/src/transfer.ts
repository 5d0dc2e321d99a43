import type { ByteRange } from '@shoal/oci/byte-range'
import { algorithmOf, type Digest, digestOf } from '@shoal/oci/digest'
import { RangeSet } from '@shoal/oci/range-set'
import { DiskError } from './disk-error.ts'
import { Ingest } from './ingest.ts'
import { Lease, type LeaseEvents } from './lease.ts'
import { Passage } from './passage.ts'
import type { Reader } from './reader.ts'
import { RecentBytes } from './recent-bytes.ts'
import { type Giver, type Origin, SourceError } from './source.ts'
import { TransferReader } from './transfer-reader.ts'
import { giveBack } from './write-buffer.ts'

/**
 * How many bytes at the end of every response are held back until the digest of the whole blob is known to match, so
 * that nothing wrong is ever sent as complete.
 */
const holdBack = 64 * 1024

/**
 * Parts of one transfer that turned out wrong, and are kept until it is known whose bytes were: each takes up as much room
 * as the blob.
 */
const mostWrongParts = 3

/** Neither stored nor an error: it was verified, and has passed through. */
export type Settled = { readonly stored: boolean; readonly error?: Error }

/** `resumed`: whether some of the bytes that did not match came from an earlier run. */
export type Verdict = { readonly matches: boolean; readonly stored: boolean; readonly resumed: boolean }

export type VerifyOptions = {
  /** Whether the blob is to be kept. */
  readonly admits: () => Promise<boolean>
  /** Records it, after its file has its name and before readers get the last bytes. */
  readonly onStored: () => Promise<void>
  /** Is told instead if it is not kept; gives all of it if it is small. */
  readonly onPassed: (passing: { bytes(): Promise<Buffer | undefined> }) => Promise<void>
}

/** Who fills a transfer. */
export interface Filler {
  /** A reader waits for the byte at `position`. */
  wanted(position: number): void
  /** Bytes are in the part file. */
  arrived(range: ByteRange): void
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
  #part: Ingest | Passage | undefined
  /** Resolves when the part file that is being opened is there, or is not to be. */
  #opening: Promise<void> | undefined
  /** In bytes, as the last offer told. */
  #announced = 0
  #filler: Filler | undefined
  #state: 'open' | 'parking' | 'verified' | 'failed' = 'open'
  #failure: Error | undefined
  /** Whether wrong bytes have arrived. */
  #suspect = false
  #waiting: (() => void)[] = []
  readonly #recent = new RecentBytes()
  /** Without a name, but open: what did not match, given by several. */
  #wrongParts: Ingest[] = []
  /** What peers say that the size is, in bytes. */
  readonly #claims: { readonly giver: Giver; readonly size: number }[] = []

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
    return this.#part?.size
  }

  /** What is there; not verified. */
  get have(): RangeSet {
    return this.#part?.have ?? new RangeSet()
  }

  get complete(): boolean {
    return this.#part?.complete ?? false
  }

  /** Whether it still takes bytes. */
  get open(): boolean {
    return this.#state === 'open'
  }

  /** Whether it can be read from the first byte on. */
  get whole(): boolean {
    return this.#part instanceof Passage ? this.#part.whole : true
  }

  /** Whether what arrives is to be stored, as far as is known now. */
  get stores(): boolean {
    return !(this.#part instanceof Passage)
  }

  /** Whether peers may give it bytes: those must be kept until all is verified. */
  get takesUnproven(): boolean {
    return this.#part instanceof Passage ? this.#part.takesUnproven : true
  }

  /** Who gave bytes to what is there, in the order in which they began to. */
  get givers(): readonly Giver[] {
    return [...(this.#part?.ledger.givers.keys() ?? [])]
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
        this.#trim()
        this.#left()
      },
    }
  }

  /**
   * Sets the size, and opens the part file with what an earlier transfer left in it. Who told another size before may
   * have been wrong: as long as nobody holds to it, the last one counts. What is there is thrown away, and readers that
   * were answered for the other size fail.
   * @throws SourceError `broken` if that cannot be, or somebody is filling a blob of another size
   * @throws DiskError if there can be no part file; see {@link passOn}
   */
  async begin(size: number): Promise<void> {
    // Several may learn of the size at once.
    while (this.#opening) await this.#opening
    const opening = this.#begin(size)
    this.#opening = opening.catch(() => {})
    try {
      await opening
    } finally {
      this.#opening = undefined
    }
  }

  async #begin(size: number): Promise<void> {
    const before = this.#part
    if (before?.size === size) return
    if (before && this.#leases.size > 0)
      throw new SourceError('broken', `it would have ${size} bytes, not ${before.size}`)
    // An empty response is complete with its headers, before anything could be verified.
    if (size === 0 && digestOf(new Uint8Array(), algorithmOf(this.digest)) !== this.digest)
      throw new SourceError('broken', `it would have no bytes, which is not ${this.digest}`)
    this.#announced = size
    if (before) {
      this.#part = undefined
      this.#recent.clear()
      this.#unoffer()
      for (const reader of this.#readers)
        reader.fail(new SourceError('broken', `it has ${size} bytes, not ${before.size}`))
      this.wake()
      await discard(before)
    }
    const part = await this.#open(size)
    if (this.#state === 'open') {
      this.#part = part
      return
    }
    await part.close()
    throw new SourceError('revoked', 'the transfer has ended')
  }

  /**
   * Goes on without the disk, after a DiskError: what arrives is verified and passed on to those who read now, and is
   * not stored. Readers of bytes that would not be verified so fail.
   * @throws DiskError if what has been read from the disk before cannot be read again
   */
  async passOn(): Promise<void> {
    if (this.#state !== 'open') throw new SourceError('revoked', 'the transfer has ended')
    const before = this.#part
    // After wrong bytes, what an earlier run left may be more of them, on a disk that cannot even throw them away.
    const ingest = before instanceof Ingest && !this.#suspect ? before : undefined
    let passage: Passage
    try {
      passage = await Passage.open(this.digest, this.#announced, ingest, this.#needed)
    } catch (error) {
      throw DiskError.from(error)
    }
    this.#part = passage
    if (before && !ingest) discard(before).catch(() => {})
    for (const reader of this.#readers)
      if (reader.started && reader.position > passage.have.total)
        reader.fail(new SourceError('broken', `what has arrived of ${this.digest} is lost`))
    // It will not be stored, so that there is nothing to compare those with.
    for (const wrong of this.takeWrongParts()) wrong.close().catch(() => {})
    // Only now: while it was being opened, others may have begun to fill the part file.
    for (const lease of [...this.#leases]) await lease.revoke()
    this.#recent.clear()
    this.wake()
  }

  /** Notes what size a giver says that the blob has, in bytes. It is told if that turns out wrong. */
  claim(giver: Giver, size: number): void {
    if (giver.kind !== 'peer' || this.#claims.some(claim => claim.giver === giver && claim.size === size)) return
    this.#claims.push({ giver, size })
  }

  /** Tells that somebody gives the blob: from here on it can be answered for. */
  offered(origin: Origin | undefined): void {
    this.origin ??= origin
    if (this.#part) this.#sized.resolve(this.#part.size)
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

  /** Whether the byte at `position` has come, and is on its way to the disk. */
  isComing(position: number): boolean {
    for (const { start, position: next } of this.#leases) if (start <= position && position < next) return true
    return false
  }

  /**
   * Leases a missing range to be filled, at most up to the next bytes that are there or that another lease has had.
   * A lease that is still to come to the range gives it up.
   * @param giver who gives it, unless the lease is told of another
   */
  lease(range: ByteRange, giver?: Giver): Lease {
    const part = this.#part
    if (!part || this.#state !== 'open') throw new SourceError('revoked', 'the transfer has ended')
    const gap = part.have.gaps(range)[0]
    if (gap?.start !== range.start) throw new Error(`the byte at ${range.start} is there`)
    let { end } = gap
    if (this.isComing(range.start)) throw new Error(`the byte at ${range.start} is on its way`)
    for (const other of this.#leases) {
      if (other.start > range.start) end = Math.min(end, other.start)
      else if (other.end > range.start) {
        end = Math.min(end, other.end)
        other.end = Math.max(range.start, other.position)
      }
    }
    const lease = new Lease(part, { start: range.start, end }, this.#leaseEvents, giver)
    this.#leases.add(lease)
    return lease
  }

  /** Reads a range as it arrives. The last bytes come when the whole blob is verified. */
  read(range: ByteRange): Reader {
    const reader = new TransferReader(range, {
      visible: reader => this.#visible(reader),
      had: () => this.#trim(),
      recent: (buffer, length, position) => this.#recent.read(buffer, length, position),
      file: async (buffer, length, position) => {
        const part = this.#part
        const count = await part?.read(buffer, length, position)
        // Bytes of a part that another has taken the place of meanwhile may not be those that it verifies.
        return part === this.#part ? count : undefined
      },
      wait: () => this.changed(),
      wake: () => this.wake(),
      wanted: position => this.#filler?.wanted(position),
      left: reader => {
        if (!this.#readers.delete(reader)) return
        this.#trim()
        this.#left()
      },
    })
    this.#readers.add(reader)
    if (this.#failure) reader.fail(this.#failure)
    this.#trim()
    return reader
  }

  /**
   * Reads a range that is there, whether it may be believed or not, for who checks it. The file stays open until the reader
   * is closed.
   */
  peek({ start, end }: ByteRange): Reader {
    const part = this.#part
    const hold = this.hold()
    let position = start
    let cancelled = false
    return {
      read: async buffer => {
        if (cancelled || !part || part !== this.#part)
          throw new SourceError('revoked', 'what was there is there no longer')
        const count = await part.read(buffer, Math.min(buffer.length, end - position), position)
        position += count
        return count
      },
      cancel: () => {
        cancelled = true
      },
      close: () => hold[Symbol.dispose](),
    }
  }

  /** Resolves at the next change: bytes, a lease that ends, the end. */
  changed(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  /**
   * Checks the digest of a complete transfer. If it matches, the blob is stored and the transfer settles. If not, all
   * is thrown away and the transfer begins anew: readers that have had bytes fail, the others wait on. Who gave all of it
   * is told; of several, {@link takeWrongParts} lets find out later who was wrong.
   * @throws DiskError if the blob could not be stored; see {@link passOn}
   */
  async verify({ admits, onStored, onPassed }: VerifyOptions): Promise<Verdict> {
    const part = this.#part
    if (!part || this.#state !== 'open') throw new SourceError('revoked', 'the transfer has ended')
    if (await part.verify()) {
      const stored = part instanceof Ingest && (await admits())
      if (stored) {
        await part.commit()
        await onStored()
      } else {
        await onPassed(part)
        // Without its name; who reads it has it open.
        if (part instanceof Ingest) await part.discard().catch(() => {})
      }
      this.#end('verified', { stored })
      for (const { giver, size } of this.#claims)
        if (size !== part.size) giver.wrong(`said that ${part.digest} has ${size} bytes, and it has ${part.size}`)
      return { matches: true, stored, resumed: false }
    }
    this.#suspect = true
    const error = new SourceError('broken', `what arrived for ${this.digest} does not have that digest`)
    for (const reader of this.#readers) if (reader.started) reader.fail(error)
    const { size, digest } = part
    const givers = this.givers
    const alone = givers.length === 1 && part.resumed === 0
    if (alone) givers[0]!.wrong(`gave other bytes than those of ${digest}`)
    // Who gave wrong bytes has not shown to have the blob.
    this.#unoffer()
    // Until there is a new part file, who comes to read must find nothing.
    this.#part = undefined
    this.#recent.clear()
    // That the bytes were wrong must be told even if there can be no part file now.
    this.#part = await (alone || givers.length === 0 ? discard(part) : this.#setAside(part))
      .then(() => this.#open(size))
      .catch(() => Passage.open(this.digest, size, undefined, this.#needed))
    this.wake()
    return { matches: false, stored: false, resumed: part.resumed > 0 }
  }

  /**
   * Parts that did not match and were given by several: once the blob is held, they can be compared with it. They must be
   * closed by who takes them.
   */
  takeWrongParts(): readonly Ingest[] {
    const parts = this.#wrongParts
    this.#wrongParts = []
    return parts
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
      // After wrong bytes there may be more of them: the next transfer should not begin with those.
      await (this.#suspect ? this.#part?.discard() : this.#part?.park())
    } finally {
      for (const wrong of this.takeWrongParts()) wrong.close().catch(() => {})
      this.#failure = error
      this.#sized.reject(error)
      for (const reader of this.#readers) reader.fail(error)
      this.#end('failed', { stored: false, error })
    }
  }

  readonly #leaseEvents: LeaseEvents = {
    progressed: recent => {
      const { start, buffer } = recent
      const wanted = this.#state === 'open' && this.#readers.size > 0 && this.stores
      const end = start + recent.bytes.length
      if (!wanted || this.#part?.ledger.readable(start) === start) giveBack(buffer)
      else this.#recent.keep(recent)
      this.#filler?.arrived({ start, end })
      this.wake()
    },
    claimed: (giver, size) => this.claim(giver, size),
    ended: lease => {
      this.#leases.delete(lease)
      this.wake()
    },
  }

  /** Takes a wrong part's name away, and keeps its file open. @throws DiskError */
  async #setAside(part: Ingest | Passage): Promise<void> {
    if (part instanceof Passage || this.#wrongParts.length === mostWrongParts) return discard(part)
    try {
      await part.discard()
    } catch (error) {
      await part.close()
      throw DiskError.from(error)
    }
    this.#wrongParts.push(part)
  }

  #trim(): void {
    if (this.#part instanceof Passage) this.#part.trim()
  }

  /** What is still to be read. Who holds on and has not begun to read yet may need all of it. */
  readonly #needed = (): readonly ByteRange[] => {
    const count = this.#readers.size
    if (count > 0 && count < this.#holds) return [{ start: 0, end: this.#announced }]
    return [...this.#readers].map(({ position, end }) => ({ start: position, end }))
  }

  #visible(reader: TransferReader): number {
    const { position, end } = reader
    if (!this.#part) return position
    // Who has had nothing yet need not be broken off if it goes wrong once more.
    if (this.#suspect && this.stores && this.#state !== 'verified') return position
    const reach = Math.min(this.#part.ledger.readable(position), end)
    return this.#state === 'verified' ? end : Math.min(reach, end - holdBack)
  }

  /** Has all who wait for a change look again. */
  wake(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const wake of waiting) wake()
  }

  #left(): void {
    if (!this.deserted) return
    if (this.#state === 'open') this.#filler?.deserted()
    else this.#closeFile()
  }

  #end(state: 'verified' | 'failed', settled: Settled): void {
    this.#state = state
    this.#settle(settled)
    this.wake()
    this.#closeFile()
  }

  /** The last to leave closes the file. */
  #closeFile(): void {
    if (!this.deserted || this.#state === 'open' || this.#state === 'parking') return
    this.#recent.clear()
    const part = this.#part
    this.#part = undefined
    part?.close().catch(() => {})
  }
}

async function discard(part: Ingest | Passage): Promise<void> {
  try {
    await part.discard()
  } catch (error) {
    throw DiskError.from(error)
  } finally {
    await part.close()
  }
}
