import { setTimeout as sleep } from 'node:timers/promises'
import type { ByteRange } from '@shoal/oci/byte-range'
import { formatName, type Name } from '@shoal/oci/name'
import { DiskError } from '@shoal/store/disk-error'
import type { Lease } from '@shoal/store/lease'
import { type Offer, type Source, SourceError, type Want } from '@shoal/store/source'
import type { Store } from '@shoal/store/store'
import type { Filler, Transfer } from '@shoal/store/transfer'

/** How far a reader may stand before the bytes under way until a request of its own is made for it. */
const far = 8 * 1024 * 1024

/** Requests at once for one blob. */
const mostLanes = 4

/** Tries in a row that bring next to nothing, until a source is given up. */
const mostFruitless = 3
const nextToNothing = 64 * 1024

/** How long a source may take to bring next to nothing, in ms, as long as there is another to ask. */
const progressTime = 10_000

/** How long a transfer goes on when all have left, in ms: a client may close one range to open the next. */
const desertedGrace = 1000

export type FillingOptions = {
  readonly store: Store
  readonly transfer: Transfer
  readonly want: Want
  /** In the order in which they are asked. */
  readonly sources: readonly Source[]
  readonly random: () => number
  /** Told of a source whose bytes do not have the digest that they were given for. */
  readonly onWrong: (source: Source) => void
  /** Told that the disk takes no more, so that the content passes through and is not stored. */
  readonly onUnstored: (error: DiskError) => void
  /** Told of a source that gave nothing, or stopped to. */
  readonly onFailure: (source: Source, error: unknown) => void
}

/** Why no source gave the content: each with its reason. */
export class NowhereError extends Error {
  readonly code = 'NOWHERE'
  readonly failures: readonly { readonly source: string; readonly error: SourceError | undefined }[]

  /** @param failures in the order of asking; no error where a source says that it does not have the content */
  constructor(failures: NowhereError['failures']) {
    super(
      failures.length === 0
        ? 'it is not held here, and no other source may be asked'
        : `it is not held here; ${failures.map(({ source, error }) => error?.message ?? `${source} does not have it`).join('; ')}`,
    )
    this.failures = failures
  }
}

/** An offer in use. */
type Tap = {
  readonly source: Source
  readonly offer: Offer
  /** Whether there is no other source left to ask. */
  readonly last: boolean
  /** Requests that failed, and are to be made again after a while; meanwhile no others are made. */
  pauses: number
  /** Requests for far readers that brought next to nothing. */
  fruitless: number
}

/** Fills one transfer from its sources, until it is stored or none is left. */
export class Filling implements Filler {
  readonly #options: FillingOptions
  readonly #abort = new AbortController()
  readonly #failures: { source: string; error: SourceError | undefined }[] = []
  /** Who gave bytes to what is there now, or may be about to: with how many leases. */
  readonly #givers = new Map<Source, number>()
  #tap: Tap | undefined
  #mediaType: string | undefined
  #lanes = 0
  #grace: NodeJS.Timeout | undefined

  constructor(options: FillingOptions) {
    this.#options = options
    options.transfer.fillBy(this)
  }

  /** Whether the content is sought under this name. */
  isFor(name: Name): boolean {
    return formatName(name) === formatName(this.#options.want.name)
  }

  /** Never rejects: how it went, {@link Transfer.settled} tells. */
  async run(): Promise<void> {
    const { transfer } = this.#options
    try {
      if (!(await this.#fill())) await transfer.park(new NowhereError(this.#failures))
    } catch (error) {
      this.#abort.abort(error)
      try {
        await transfer.park(error instanceof Error ? error : new Error(String(error)))
      } catch {
        // The disk refuses to keep the part; the transfer has settled all the same.
      }
    } finally {
      clearTimeout(this.#grace)
      this.#abort.abort(new SourceError('revoked', 'the transfer has ended'))
    }
  }

  /** Gives up, and keeps what is there. */
  stop(reason: Error): void {
    this.#options.transfer.seal()
    this.#abort.abort(reason)
  }

  wanted(start: number): void {
    const { transfer } = this.#options
    const tap = this.#tap
    if (!tap || tap.pauses > 0 || tap.fruitless >= mostFruitless) return
    // What passes through comes in order.
    if (this.#lanes >= mostLanes || !transfer.stores || transfer.have.reach(start) > start) return
    const distance = transfer.distance(start)
    if (distance !== undefined && distance <= far) return
    // What fails here stays a gap, which the main lane comes to; so does what is not the source's fault.
    this.#detour(tap, { start, end: transfer.size ?? start }).catch(() => {
      tap.fruitless = mostFruitless
    })
  }

  deserted(): void {
    const { transfer, want } = this.#options
    if (want.kind === 'manifest' || this.#grace) return
    this.#grace = setTimeout(() => {
      this.#grace = undefined
      const { size } = transfer
      const pastHalf = size !== undefined && transfer.stores && transfer.have.total * 2 >= size
      if (transfer.deserted && !pastHalf) this.stop(new SourceError('revoked', 'nobody waits for it any more'))
    }, desertedGrace)
  }

  /** @returns whether the blob is stored */
  async #fill(): Promise<boolean> {
    const { store, transfer, want, sources, onWrong } = this.#options
    if (want.size !== undefined) await this.#begin(want.size)
    const queue = [...sources]
    let again = true
    for (;;) {
      if (transfer.size !== undefined && transfer.complete) {
        transfer.offered(undefined)
        const verdict = await this.#disk(() =>
          store.verify(transfer, want.kind === 'manifest' ? this.#mediaType : undefined),
        )
        if (!verdict) continue
        const { matches, resumed } = verdict
        if (matches) return true
        const givers = [...this.#givers.keys()].reverse()
        this.#givers.clear()
        // One giver is to blame. Of several, or of bytes from an earlier run, nobody knows which: once more, from one.
        const [only] = givers
        if (only && givers.length === 1 && !resumed) onWrong(only)
        if (again && (givers.length > 1 || resumed)) queue.unshift(...givers)
        else for (const giver of givers) this.#failures.push({ source: giver.label, error: wrong(giver) })
        again &&= resumed || givers.length === 1
      }
      const source = queue.shift()
      if (!source) return false
      const last = queue.length === 0
      const offer = await this.#find(source)
      if (!offer) continue
      const tap = { source, offer, last, pauses: 0, fruitless: 0 }
      this.#tap = tap
      this.#mediaType = offer.mediaType
      try {
        const error = await this.#drain(tap)
        if (error) this.#failed(source, error)
      } finally {
        this.#tap = undefined
        offer.close()
      }
    }
  }

  async #begin(size: number): Promise<void> {
    await this.#disk(() => this.#options.transfer.begin(size))
  }

  /** Does what needs the disk. If that fails, the transfer goes on without. @returns nothing then */
  async #disk<T>(act: () => Promise<T>): Promise<T | undefined> {
    const { transfer, onUnstored } = this.#options
    try {
      return await act()
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      onUnstored(error)
      await transfer.passOn()
      return undefined
    }
  }

  async #find(source: Source): Promise<Offer | null> {
    const { transfer, want } = this.#options
    const { signal } = this.#abort
    let offer: Offer | null = null
    try {
      offer = await source.find({ ...want, at: transfer.unleased()?.start ?? 0 }, signal)
      if (!offer) {
        this.#failures.push({ source: source.label, error: undefined })
        return null
      }
      if (offer.size === undefined) throw new SourceError('broken', `${source.label} does not tell the size`)
      if (want.size !== undefined && offer.size !== want.size)
        throw new SourceError('broken', `${source.label} has ${offer.size} bytes for ${want.digest}, not ${want.size}`)
      // Bytes of a blob of another size are thrown away, and nobody is to blame for them.
      if (transfer.size !== offer.size) this.#givers.clear()
      await this.#begin(offer.size)
      transfer.offered(offer.origin)
      return offer
    } catch (error) {
      offer?.close()
      signal.throwIfAborted()
      this.#failed(source, error)
      return null
    }
  }

  /** Gets from one offer all that is missing. @returns why it stopped before that */
  async #drain(tap: Tap): Promise<SourceError | undefined> {
    const { transfer } = this.#options
    const { signal } = this.#abort
    let fruitless = 0
    for (;;) {
      signal.throwIfAborted()
      const gap = transfer.unleased()
      if (!gap) {
        if (transfer.complete) return undefined
        await transfer.changed()
        continue
      }
      const filled = await this.#disk(() => this.#lane(tap, gap))
      if (!filled?.error) continue
      const { error, count } = filled
      // Silence is long: once more, and no third time.
      if (error.code === 'timeout') fruitless += mostFruitless - 1
      else fruitless = count >= nextToNothing ? 0 : fruitless + 1
      const final = error.code === 'denied' || error.code === 'limited' || error.code === 'skipped'
      // One that was silent may be so again, which costs more time than another source.
      const silent = error.code === 'timeout' && !tap.last
      if (final || silent || fruitless >= mostFruitless) return error
      await this.#pause(tap, fruitless)
    }
  }

  /** Fills one range for a reader that is far from where the rest arrives. */
  async #detour(tap: Tap, range: ByteRange): Promise<void> {
    const { error, count } = await this.#lane(tap, range)
    if (!error) return
    if (count < nextToNothing) tap.fruitless++
    await this.#pause(tap, tap.fruitless)
    if (this.#tap === tap) for (const { start } of this.#options.transfer.wanted()) this.wanted(start)
  }

  async #pause(tap: Tap, fruitless: number): Promise<void> {
    const time = 50 * 2 ** fruitless * (0.5 + this.#options.random())
    // Who waited looks at the signal next.
    await sleep(time, undefined, { signal: this.#abort.signal }).catch(() => {})
    tap.pauses--
  }

  /**
   * Fills one range as far as it goes. An error counts as one of the {@link Tap.pauses}.
   * @throws what is not the source's fault: the disk, an abort
   */
  async #lane(tap: Tap, range: ByteRange): Promise<{ error?: SourceError; count: number }> {
    const { transfer } = this.#options
    const { signal } = this.#abort
    const lease: Lease = transfer.lease(range)
    const { start } = lease
    this.#lanes++
    this.#gives(tap.source, 1)
    const tooSlow = new AbortController()
    let seen = start
    const watch = setInterval(() => {
      if (lease.position - seen < nextToNothing && !lease.full && !tap.last)
        tooSlow.abort(new SourceError('timeout', `${tap.source.label} gives next to nothing`))
      seen = lease.position
    }, progressTime)
    try {
      await tap.offer.fetch({ start, end: lease.end }, lease, AbortSignal.any([signal, tooSlow.signal]))
      return { count: lease.position - start }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof SourceError)) throw error
      tap.pauses++
      return { error, count: lease.position - start }
    } finally {
      clearInterval(watch)
      this.#lanes--
      if (lease.position === start) this.#gives(tap.source, -1)
      await lease.close()
    }
  }

  #gives(source: Source, leases: number): void {
    const count = (this.#givers.get(source) ?? 0) + leases
    if (count > 0) this.#givers.set(source, count)
    else this.#givers.delete(source)
  }

  #failed(source: Source, error: unknown): void {
    this.#options.onFailure(source, error)
    if (!(error instanceof SourceError)) throw error
    this.#failures.push({ source: source.label, error })
  }
}

function wrong(source: Source): SourceError {
  return new SourceError('broken', `${source.label} gives other bytes than those of the digest`)
}
