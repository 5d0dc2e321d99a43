import { setTimeout as sleep } from 'node:timers/promises'
import type { ByteRange } from '@shoal/oci/byte-range'
import { manifestLimit } from '@shoal/oci/manifest'
import { RangeSet } from '@shoal/oci/range-set'
import { DiskError } from '@shoal/store/disk-error'
import type { JointDownload, JointDownloads } from '@shoal/store/joint'
import { type Giver, type Offer, type Origin, type Source, SourceError, type Want } from '@shoal/store/source'
import type { Store } from '@shoal/store/store'
import type { Filler, Transfer } from '@shoal/store/transfer'
import { type JointPace, Rates } from './rates.ts'
import { soon } from './soon.ts'
import { Lane, measuredOver, type Pace, Tap } from './tap.ts'

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

/** How often it is looked how fast peers are, in ms. */
const lookEvery = 100

/** Peers who give less than this share of what upstream was measured to give have it help. */
const asFast = 0.95

/** What upstream is taken to give as long as it was not measured, in bytes/s: its help is what measures it. */
const assumedUpstream = 10e6

/** What one is still to give is shared with another if it would take longer than this, in ms, and is so much, in bytes. */
const worthTime = 200
const worthSize = 64 * 1024

/** What one is taken to give that has not been watched for long enough, in bytes/s. */
const assumedRate = 5e6

/** How long one may give nothing, in ms, until another that has nothing else to do takes its place. */
const standstill = 500

/** How long after upstream's help has ended it is asked again, in ms. */
const helpAgainAfter = 1000

/** How long others who are to fetch it may bring nothing, in ms, if they are heard of, and if not. */
const silentOthers = 20_000
const goneOthers = 2000

/** What other machines give whom this one shares the download with. */
const ofOthers: Origin = { kind: 'peer', host: 'peers', visibility: 'public' }

/** How large a blob may be whose size nobody but peers tells, in bytes: a liar could have it fill the disk. */
const largestUntold = 2 ** 31

export type FillingOptions = {
  readonly store: Store
  readonly transfer: Transfer
  readonly want: Want
  /** In the order in which they are asked. */
  readonly sources: readonly Source[]
  readonly random: () => number
  /** Has all that is given keep to a rate. @default none */
  readonly pace?: Pace
  /** How fast upstreams were; to be shared by all fillings. @default one of its own */
  readonly rates?: Rates
  /** Other machines, to share the download with. @default nobody */
  readonly joint?: {
    readonly downloads: JointDownloads
    /** Whether upstream is likely to answer. */
    readonly line: () => boolean
    /** Told as long as others are heard of who are getting it. */
    readonly onAlive: () => void
  }
  /** Told who gave bytes that came by a download shared with others. */
  readonly onShared?: (origin: Origin) => void
  /**
   * Told of a source whose bytes do not have the digest that they were given for; also after the end. Peers that an offer
   * names are told themselves.
   */
  readonly onWrong: (source: Source) => void
  /** Told that the disk takes no more, so that the content passes through and is not stored. */
  readonly onUnstored: (error: DiskError) => void
  /** Told of a source that gave nothing, or stopped to. */
  readonly onFailure: (source: Source, error: unknown) => void
}

type Failure = {
  readonly source: string
  readonly error: SourceError | undefined
  /** @default `upstream` */
  readonly kind?: Source['kind']
}

/** Why no source gave the content: each with its reason. */
export class NowhereError extends Error {
  readonly code = 'NOWHERE'
  readonly failures: readonly Failure[]

  /** @param failures in the order of asking; no error where a source says that it does not have the content */
  constructor(failures: readonly Failure[]) {
    super(
      failures.length === 0
        ? 'it is not held here, and no other source may be asked'
        : `it is not held here; ${failures.map(reasonOf).join('; ')}`,
    )
    this.failures = failures
  }
}

function reasonOf({ source, error, kind }: Failure): string {
  return error?.message ?? (kind === 'peer' ? 'no peer has it' : `${source} does not have it`)
}

/** Fills one transfer from its sources, until it is stored or none is left. */
export class Filling implements Filler {
  readonly #options: FillingOptions
  readonly #rates: Rates
  readonly #abort = new AbortController()
  readonly #failures: Failure[] = []
  /** Those that are still to be asked, in order. */
  readonly #queue: Source[]
  /** Offers in use: one, or two while upstream helps peers. */
  readonly #taps = new Set<Tap>()
  /** Upstream's help for the peers in use. */
  #help: { readonly done: Promise<void>; readonly end: AbortController } | undefined
  /** When it may be asked for, in ms. */
  #helpAt = 0
  readonly #givers = new Map<Source, Giver>()
  /** Sources that were wrong together with others, and have been asked once more. */
  readonly #askedAgain = new Set<Source>()
  /** Peers that took part in what was wrong, or told a size that cannot be. */
  readonly #avoided = new Set<Giver>()
  /** The download that is shared with others, and what of it is this machine's to ask the sources for. */
  #joint: JointDownload | undefined
  #allowed: RangeSet | undefined
  #exhausted = false
  /** Whether it was better not to share the download when that was looked at last. */
  #goesAlone = false
  #passingOn: Promise<void> | undefined
  #mediaType: string | undefined
  #grace: NodeJS.Timeout | undefined

  constructor(options: FillingOptions) {
    this.#options = options
    this.#rates = options.rates ?? new Rates()
    this.#queue = [...options.sources]
    options.transfer.fillBy(this)
  }

  /** Never rejects: how it went, {@link Transfer.settled} tells. */
  async run(): Promise<void> {
    const { transfer } = this.#options
    try {
      if (!(await this.#fill())) await transfer.park(new NowhereError(this.#failures))
    } catch (error) {
      this.#abort.abort(error)
      // If it was stopped, that is why.
      const { reason }: { readonly reason: unknown } = this.#abort.signal
      try {
        await transfer.park(reason instanceof Error ? reason : new Error(String(reason)))
      } catch {
        // The disk refuses to keep the part; the transfer has settled all the same.
      }
    } finally {
      clearTimeout(this.#grace)
      this.#leave(false)
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
    // What peers give is not to be read before all is there.
    const tap = [...this.#taps].find(({ isPeers }) => !isPeers)
    if (!tap || tap.pauses > 0 || tap.fruitless >= mostFruitless) return
    // What passes through comes in order.
    if (tap.lanes.size >= mostLanes || !transfer.stores || transfer.have.reach(start) > start) return
    const distance = transfer.distance(start)
    if (distance !== undefined && distance <= far) return
    const end = this.#allowed ? this.#allowed.reach(start) : (transfer.size ?? start)
    if (end === start) return
    // What fails here stays a gap, which the main lane comes to; so does what is not the source's fault.
    this.#detour(tap, { start, end }).catch(() => {
      tap.fruitless = mostFruitless
    })
  }

  arrived(range: ByteRange): void {
    this.#joint?.arrived(range)
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
    const { store, transfer, want } = this.#options
    if (want.size !== undefined) await this.#begin(want.size)
    this.#join()
    while (await this.#gather()) {
      transfer.offered(undefined)
      const { givers } = transfer
      const verdict = await this.#disk(() =>
        // Peers say nothing of it that can be verified: then the document itself tells.
        store.verify(transfer, want.kind === 'manifest' ? (this.#mediaType ?? '') : undefined),
      )
      if (verdict?.matches) {
        this.#leave(verdict.stored)
        return true
      }
      if (!verdict) continue
      this.#askAgain(givers, verdict.resumed)
      this.#leave(false)
      this.#join()
    }
    return false
  }

  /** Looks whether others want it too, to share the download. */
  #join(): void {
    const { joint, transfer, want } = this.#options
    if (!joint || !transfer.stores || !transfer.open) return
    this.#exhausted = false
    this.#joint = joint.downloads.join(want, {
      get have() {
        return transfer.have
      },
      fetch: ranges => this.#allow(ranges),
      write: (bytes, start, giver, size) => this.#write(bytes, start, giver, size),
      peek: range => transfer.peek(range),
      line: () => !this.#exhausted && joint.line(),
    })
    this.#goesAlone = this.#joint === undefined
    // It may have been told at once what to fetch.
    if (this.#joint) this.#allowed ??= new RangeSet()
  }

  /** Goes on by itself. */
  #leave(whole: boolean): void {
    const joint = this.#joint
    this.#joint = undefined
    this.#allow(undefined)
    joint?.end(whole)
  }

  /** Asks sources for these ranges from now on, and no others; undefined for all. */
  #allow(ranges: RangeSet | undefined): void {
    this.#allowed = ranges
    for (const tap of ranges ? this.#taps : [])
      for (const lane of tap.lanes) {
        const { lease } = lane
        const reach = ranges?.reach(lease.position) ?? lease.end
        if (reach === lease.position) lane.withdraw()
        else lease.end = Math.min(lease.end, reach)
      }
    this.#options.transfer.wake()
  }

  /** The first run of bytes that sources are to be asked for. */
  #missing(): ByteRange | undefined {
    const { transfer } = this.#options
    if (!this.#allowed) return transfer.unleased()
    for (const { start, end } of this.#allowed) {
      const gap = transfer.size === undefined ? { start, end } : transfer.unleased(start)
      if (gap && gap.start < end) return { start: gap.start, end: Math.min(gap.end, end) }
    }
    return undefined
  }

  /** Adds what another machine gave. */
  async #write(bytes: Uint8Array, start: number, giver: Giver, size: number): Promise<void> {
    const { transfer, onShared } = this.#options
    if (transfer.size === undefined) await this.#begin(size)
    if (!transfer.takesUnproven || transfer.size !== size)
      throw new SourceError('revoked', 'it can take nothing from others')
    onShared?.(ofOthers)
    transfer.offered(ofOthers)
    const end = start + bytes.length
    for (let gap: ByteRange | undefined; (gap = transfer.have.gaps({ start, end })[0]); ) {
      // The sources have just brought it.
      if (transfer.isComing(gap.start)) await transfer.changed()
      else {
        const lease = transfer.lease(gap, giver)
        await lease.write(bytes.subarray(lease.start - start, lease.end - start))
        await lease.close()
      }
    }
  }

  /** Waits until sources are to be asked for something. @returns whether there is still something to wait for */
  async #turn(): Promise<boolean> {
    const { transfer } = this.#options
    let heardAt = this.#rates.now()
    let aliveAt = heardAt
    let total = transfer.have.total
    using pace = this.#rates.joint(total)
    while (this.#joint && !this.#complete && (this.#exhausted || !this.#missing())) {
      this.#abort.signal.throwIfAborted()
      await soon(transfer.changed(), lookEvery, undefined)
      const now = this.#rates.now()
      if (this.#joint?.alive) {
        aliveAt = now
        this.#options.joint?.onAlive()
        // They are getting it: a client may be told that it comes.
        transfer.offered(ofOthers)
      }
      if (transfer.have.total > total) {
        heardAt = now
        total = transfer.have.total
      }
      if (pace.isSlow(total, this.#knownUpstream)) {
        this.#leave(false)
        return true
      }
      if (now - heardAt < silentOthers && now - Math.max(heardAt, aliveAt) < goneOthers) continue
      this.#leave(false)
      // A client that has waited for them waits for the sources as well.
      this.#options.joint?.onAlive()
      return !this.#exhausted
    }
    return true
  }

  /** Asks source after source, until all is there. @returns whether it is */
  async #gather(): Promise<boolean> {
    for (;;) {
      if (this.#complete) return true
      if (this.#joint) {
        if (!(await this.#turn())) return false
        if (this.#complete) return true
      }
      const source = this.#queue.shift()
      if (!source && this.#joint && !this.#exhausted) {
        // Others may have better luck.
        this.#exhausted = true
        this.#joint.exhausted()
        continue
      }
      if (!source) return false
      try {
        await this.#use(source, this.#abort.signal)
      } finally {
        if (this.#complete) this.#help?.end.abort(new SourceError('revoked', 'all is there'))
        await this.#help?.done
        this.#help = undefined
      }
      // They have it, and cannot give it now: it is still not for each machine to fetch.
      if (source.kind === 'peer' && this.#goesAlone && !this.#complete) this.#join()
    }
  }

  get #complete(): boolean {
    const { transfer } = this.#options
    return transfer.size !== undefined && transfer.complete
  }

  /** Decides who is to be asked after these had given bytes that are not those of the digest. */
  #askAgain(givers: readonly Giver[], resumed: boolean): void {
    const { sources } = this.#options
    // One giver is to blame. Of several, or of bytes from an earlier run, nobody knows which: once more, from one.
    const unclear = resumed || givers.length > 1
    const again: Source[] = []
    let othersMayBeLeft = false
    for (const giver of [...givers].reverse()) {
      const source = sources.find(source => this.#givers.get(source) === giver)
      if (giver.kind === 'peer') {
        othersMayBeLeft ||= !this.#avoided.has(giver)
        this.#avoided.add(giver)
        this.#note({ source: giver.label, error: wrong(giver), kind: 'peer' })
      } else if (source && unclear && !this.#askedAgain.has(source)) {
        if (!this.#queue.includes(source)) again.push(source)
        if (!resumed) this.#askedAgain.add(source)
      } else this.#note({ source: giver.label, error: wrong(giver) })
    }
    this.#queue.unshift(...again)
    const peers = othersMayBeLeft && sources.findLast(({ kind }) => kind === 'peer')
    if (peers && !this.#queue.includes(peers)) this.#queue.push(peers)
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
      // Of two who write, one may come to it later.
      if (!transfer.stores) return undefined
      if (!this.#passingOn) onUnstored(error)
      this.#passingOn ??= transfer.passOn().finally(() => {
        this.#passingOn = undefined
      })
      await this.#passingOn
      this.#leave(false)
      return undefined
    }
  }

  /** Takes from one source what it gives. @returns whether it is not worth asking again */
  async #use(source: Source, signal: AbortSignal): Promise<boolean> {
    const tap = await this.#find(source, signal)
    if (!tap) return tap === null
    this.#taps.add(tap)
    this.#mediaType = tap.offer.mediaType ?? this.#mediaType
    try {
      using _watch = tap.isPeers ? this.#watch(tap) : undefined
      const error = await this.#drain(tap)
      if (error) this.#failed(source, error)
      return error !== undefined
    } finally {
      this.#taps.delete(tap)
      tap.offer.close()
    }
  }

  /** @returns null if the source does not give the content; undefined if it cannot be used now */
  async #find(source: Source, signal: AbortSignal): Promise<Tap | null | undefined> {
    const { transfer, want } = this.#options
    let offer: Offer | null = null
    try {
      const gap = this.#missing()
      const share = gap ? undefined : this.#share(this.#rates.of(source.label))
      const at = gap?.start ?? share?.start ?? 0
      const without = this.#avoided
      const until = this.#allowed && gap ? { until: gap.end } : undefined
      offer = await source.find({ ...want, at, ...until, ...(without.size > 0 && { without }) }, signal)
      if (!offer) {
        this.#note({ source: source.label, error: undefined, ...(source.kind && { kind: source.kind }) })
        return null
      }
      const { size, giver = this.#giverOf(source), origin } = offer
      if (size === undefined) throw new SourceError('broken', `${source.label} does not tell the size`)
      transfer.claim(giver, size)
      const why = this.#unlikely(size, giver)
      if (why !== undefined) {
        const error = new SourceError('broken', `${giver.label} has ${size} bytes for ${want.digest}, ${why}`)
        if (giver.kind !== 'peer' || without.has(giver)) throw error
        this.#failed(source, error)
        // Other peers may have the blob that is meant.
        without.add(giver)
        offer.close()
        return await this.#find(source, signal)
      }
      // Either may be right, but nobody should have to wait for slow peers to find out.
      if (this.#taps.size > 0 && size !== transfer.size) {
        offer.close()
        for (const other of this.#taps) other.leave(`${source.label} has a blob of another size`)
        return undefined
      }
      await this.#begin(size)
      transfer.offered(origin)
      return new Tap({ source, offer, giver, last: this.#isLast(source), signal, begin: share?.start })
    } catch (error) {
      offer?.close()
      this.#abort.signal.throwIfAborted()
      // It was to help, and is not needed any more.
      if (signal.aborted) return undefined
      this.#failed(source, error)
      return null
    }
  }

  /** Why a size that is told cannot be; undefined if it can. */
  #unlikely(size: number, { kind }: Giver): string | undefined {
    const { want } = this.#options
    if (want.size !== undefined) return size === want.size ? undefined : `not ${want.size}`
    const most = want.kind === 'manifest' ? manifestLimit : kind === 'peer' ? largestUntold : Number.POSITIVE_INFINITY
    return size > most ? 'which is too much' : undefined
  }

  /** Whether there is nobody to turn to when this source fails. Peers, asked once more at the end, stand in for no upstream. */
  #isLast({ kind }: Source): boolean {
    return kind === 'peer' ? this.#queue.length === 0 : this.#queue.every(({ kind }) => kind === 'peer')
  }

  #giverOf(source: Source): Giver {
    const { kind = 'upstream', label } = source
    const giver = this.#givers.get(source) ?? { kind, label, wrong: () => this.#options.onWrong(source) }
    this.#givers.set(source, giver)
    return giver
  }

  /** Gets from one offer all that is missing. @returns why it stopped before that */
  async #drain(tap: Tap): Promise<SourceError | undefined> {
    const { transfer } = this.#options
    let fruitless = 0
    for (;;) {
      this.#abort.signal.throwIfAborted()
      if (tap.beaten) return undefined
      if (tap.isPeers && !transfer.takesUnproven)
        return new SourceError(
          'skipped',
          'the disk takes no more, and what peers give is too much to be kept in memory',
        )
      const range = this.#missing() ?? this.#share(tap.rate ?? this.#rates.of(tap.source.label), tap)
      if (!range) {
        if (transfer.complete || tap.signal.aborted) return undefined
        await this.#change()
        continue
      }
      const filled = await this.#disk(() => this.#lane(tap, range))
      if (tap.beaten || !filled?.error) continue
      const { error, count } = filled
      // Silence is long: once more, and no third time.
      if (error.code === 'timeout') fruitless += mostFruitless - 1
      else fruitless = count >= nextToNothing ? 0 : fruitless + 1
      // Peers have been asked one after another by then, unless it was this side that ended it.
      const final = tap.isPeers ? error.code !== 'revoked' : ['denied', 'limited', 'skipped'].includes(error.code)
      // One that was silent may be so again, which costs more time than another source.
      const silent = error.code === 'timeout' && !tap.last
      if (final || silent || fruitless >= mostFruitless) return error
      await this.#pause(tap, fruitless)
    }
  }

  /** Waits for what may let a tap do more. */
  async #change(): Promise<void> {
    const { transfer } = this.#options
    if (this.#taps.size === 1) return transfer.changed()
    // Of the other, that it stands still is a change too.
    await soon(transfer.changed(), lookEvery, undefined)
  }

  /** Watches how fast peers give, and has upstream help if that is too slow. */
  #watch(peers: Tap): Disposable {
    this.#rates.fromPeers++
    const pace = this.#joint && this.#rates.joint(this.#options.transfer.have.total)
    const timer = setInterval(() => {
      const now = this.#rates.now()
      for (const tap of this.#taps) tap.look(now)
      if (this.#help || now < this.#helpAt || !this.#isSlow(peers, pace)) return
      const end = new AbortController()
      const done = this.#askForHelp(AbortSignal.any([this.#abort.signal, end.signal]))
      const help = { done, end }
      this.#help = help
      const ended = () => {
        if (this.#help !== help) return
        this.#help = undefined
        this.#helpAt = this.#rates.now() + helpAgainAfter
      }
      // It is waited for when the peers have ended; so is what goes wrong with it.
      done.then(ended, () => {})
    }, lookEvery)
    return {
      [Symbol.dispose]: () => {
        clearInterval(timer)
        pace?.[Symbol.dispose]()
        this.#rates.fromPeers--
      },
    }
  }

  /** Whether upstream would be faster than peers, and there is enough left for it to matter. */
  #isSlow(peers: Tap, pace: JointPace | undefined): boolean {
    if (this.#queue.every(({ kind }) => kind === 'peer') || !this.#share(undefined)) return false
    const known = this.#knownUpstream ?? assumedUpstream
    // While the download is shared, all want the line at once.
    if (this.#joint && pace) return pace.isSlow(this.#options.transfer.have.total, known)
    // It would not have its whole line for this blob either.
    const rate = peers.rateOver(measuredOver)
    return rate !== undefined && rate * this.#rates.fromPeers < known * asFast
  }

  /** What the first upstream that is still to be asked was measured to give, in bytes/s. */
  get #knownUpstream(): number | undefined {
    for (const { kind, label } of this.#queue) {
      const rate = kind === 'peer' ? undefined : this.#rates.of(label)
      if (rate !== undefined) return rate
    }
    return undefined
  }

  /** Has upstream give a share of what is missing. */
  async #askForHelp(signal: AbortSignal): Promise<void> {
    while (!this.#complete) {
      const [source] = this.#queue
      if (!source || source.kind === 'peer') return
      this.#queue.shift()
      if (await this.#use(source, signal)) continue
      // If all that has come turns out wrong, it is asked again.
      this.#queue.unshift(source)
      return
    }
  }

  /**
   * A share of what another is still to give, by how fast both are, so that they end at the same time; the far part of it.
   * @param rate of who asks, in bytes/s
   * @param tap who asks, if it has nothing else to do
   */
  #share(rate: number | undefined, tap?: Tap): ByteRange | undefined {
    // What passes through comes in order.
    if (!this.#options.transfer.stores) return undefined
    const now = this.#rates.now()
    let longest = 0
    let found: { other: Tap; lane: Lane } | undefined
    for (const other of this.#taps)
      for (const lane of other === tap ? [] : other.lanes) {
        if (lane.room === 0) continue
        const time = (lane.room / (other.rate ?? assumedRate)) * 1000
        if (time <= longest) continue
        longest = time
        found = { other, lane }
      }
    if (!found) return undefined
    const { other, lane } = found
    const { position, end } = lane.lease
    const begin = tap?.begin
    if (tap) tap.begin = undefined
    if (begin !== undefined && position + worthSize <= begin && begin < end) return { start: begin, end }
    if (tap && !lane.waits && now - lane.lastAt > standstill) {
      other.beaten = true
      lane.end(new SourceError('revoked', `${other.source.label} stands still`))
      return undefined
    }
    if (longest <= worthTime || lane.room < 2 * worthSize) return undefined
    const part = rate && other.rate !== undefined ? other.rate / (other.rate + rate) : 0.5
    const kept = Math.min(Math.max(Math.ceil(lane.room * part), worthSize), lane.room - worthSize)
    return { start: position + kept, end }
  }

  /** Fills one range for a reader that is far from where the rest arrives. */
  async #detour(tap: Tap, range: ByteRange): Promise<void> {
    const { error, count } = await this.#lane(tap, range)
    if (!error) return
    if (count < nextToNothing) tap.fruitless++
    await this.#pause(tap, tap.fruitless)
    if (this.#taps.has(tap)) for (const { start } of this.#options.transfer.wanted()) this.wanted(start)
  }

  async #pause(tap: Tap, fruitless: number): Promise<void> {
    const time = 50 * 2 ** fruitless * (0.5 + this.#options.random())
    // Who waited looks at the signal next.
    await sleep(time, undefined, { signal: tap.signal }).catch(() => {})
    tap.pauses--
  }

  /**
   * Fills one range as far as it goes. An error counts as one of the {@link Tap.pauses}.
   * @throws what is not the source's fault: the disk, an abort
   */
  async #lane(tap: Tap, range: ByteRange): Promise<{ error?: SourceError; count: number }> {
    const { transfer, pace } = this.#options
    const { now } = this.#rates
    const lease = transfer.lease(range, tap.giver)
    const lane = new Lane(tap, lease, pace, now)
    const { start } = lease
    tap.lanes.add(lane)
    const measured = tap.isPeers ? undefined : this.#rates.begin(tap.source.label)
    let seen = start
    const watch = setInterval(() => {
      if (lease.position - seen < nextToNothing && !lane.waits && !tap.last)
        lane.end(new SourceError('timeout', `${tap.source.label} gives next to nothing`))
      seen = lease.position
    }, progressTime)
    try {
      await tap.offer.fetch({ start, end: lease.end }, lane, lane.signal)
      return { count: lease.position - start }
    } catch (error) {
      this.#abort.signal.throwIfAborted()
      if (!(error instanceof SourceError)) throw error
      if (lane.withdrawn) return { count: lease.position - start }
      tap.pauses++
      return { error, count: lease.position - start }
    } finally {
      clearInterval(watch)
      measured?.(lease.position - start, now() - (lane.firstAt ?? now()))
      tap.lanes.delete(lane)
      await lease.close()
    }
  }

  #failed(source: Source, error: unknown): void {
    this.#options.onFailure(source, error)
    if (!(error instanceof SourceError)) throw error
    this.#note({ source: source.label, error, ...(source.kind && { kind: source.kind }) })
  }

  /** Notes why a source did not give it: of peers once, though they are asked twice. */
  #note(failure: Failure): void {
    const before = failure.kind === 'peer' ? this.#failures.findIndex(({ kind }) => kind === 'peer') : -1
    if (before < 0) this.#failures.push(failure)
    else if (failure.error) this.#failures[before] = failure
  }
}

function wrong({ label }: Giver): SourceError {
  return new SourceError('broken', `${label} gives other bytes than those of the digest`)
}
