import type { ByteRange } from '@shoal/oci/byte-range'
import { RangeSet } from '@shoal/oci/range-set'
import { abortable } from '@shoal/store/abortable'
import { type Offer, type Origin, type RangeWriter, SourceError, type Want } from '@shoal/store/source'
import { PeerViolation } from './peer-client.ts'
import type { Opened, Patience, PeersContext, PeersSource } from './peers-source.ts'
import type { Provider } from './provider.ts'

/** How often it is looked how fast a peer gives, in ms. */
const lookEvery = 250

/** How long a peer may give nothing, in ms, if there is another. */
const shortSilence = 500

/** A rate that nobody is better off with, in bytes/s: over {@link slowTime} ms, if there is another peer. */
const drip = 64 * 1024
const slowTime = 500

/** What must come within the time that silence is borne, even if there is nobody else, in bytes. */
const leastProgress = 64 * 1024

/** So much slower than another peer was measured to be, or than a LAN is, a peer loses the rest to that. */
const worthChanging = 4

/** Changes to a faster peer, for one range. */
const mostChanges = 2

/** A blob that peers give, one after another: if one stops, the next goes on from the same byte. */
export class PeersOffer implements Offer {
  readonly origin: Origin
  readonly giver: Provider
  readonly size: number
  readonly #source: PeersSource
  readonly #context: PeersContext
  readonly #want: Want
  readonly #patience: Patience
  /** Peers who are not asked again. */
  readonly #avoided: Set<Provider>
  /** Peers that lost the rest to another, and how fast they gave, in bytes/s. They are asked again when nobody else is left. */
  readonly #left = new Map<Provider, number>()
  #opened: Opened | undefined

  constructor(
    source: PeersSource,
    context: PeersContext,
    want: Want,
    opened: Opened,
    avoided: Set<Provider>,
    patience: Patience,
  ) {
    const { holder, body } = opened
    this.origin = { kind: 'peer', host: holder.provider.name, visibility: 'public' }
    this.giver = holder.provider
    this.size = body.size
    this.#source = source
    this.#context = context
    this.#want = want
    this.#opened = opened
    this.#avoided = avoided
    this.#patience = patience
  }

  ranges(): RangeSet {
    return new RangeSet([{ start: 0, end: this.size }])
  }

  onGrow(): Disposable {
    return { [Symbol.dispose]: () => {} }
  }

  async fetch(range: ByteRange, into: RangeWriter, signal: AbortSignal): Promise<void> {
    const { digest } = this.#want
    let position = range.start
    let changes = 0
    let failure: SourceError | undefined
    while (into.room > 0) {
      signal.throwIfAborted()
      const opened = await this.#open({ start: position, end: position + into.room }, into, signal)
      if (!opened) throw failure ?? new SourceError('broken', `no peer has ${digest} any longer`)
      const { provider } = opened.holder
      const taking = new Taking(opened, into, position, {
        context: this.#context,
        patience: this.#patience,
        hasOthers: () => this.#source.hasOthers(digest, new Set([...this.#avoided, provider])),
        fastest: () => (changes < mostChanges ? this.#fastest(provider) : 0),
      })
      const first = position
      try {
        await taking.run(signal)
        if (first === 0 && taking.position === this.size) this.#context.gaveAll(provider, digest)
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof SourceError)) throw error
        failure = error
        this.#gaveUp(provider, error, taking)
        if (taking.changed) changes++
      } finally {
        position = taking.position
      }
    }
  }

  close(): void {
    this.#opened?.body.abort()
    this.#opened = undefined
  }

  /** The answer that is there, or a new one. */
  async #open(range: ByteRange, into: RangeWriter, signal: AbortSignal): Promise<Opened | null> {
    const opened = this.#opened
    this.#opened = undefined
    if (opened?.body.start === range.start) return opened
    opened?.body.abort()
    const whole = range.start === 0 && range.end === this.size
    const next = await this.#search(whole ? undefined : range, signal)
    if (!next || next.body.size === this.size) return next
    // Either may be right: nobody is to blame before the blob is verified.
    const { provider } = next.holder
    next.body.abort()
    into.from(provider, next.body.size)
    this.#avoided.add(provider)
    throw new SourceError('broken', `${provider.name} has ${next.body.size} bytes, not ${this.size}`)
  }

  async #search(range: ByteRange | undefined, signal: AbortSignal): Promise<Opened | null> {
    const { digest } = this.#want
    if (this.#left.size > 0) {
      const avoided = new Set([...this.#avoided, ...this.#left.keys()])
      const found = await this.#source.open(digest, range, this.size, avoided, signal).catch(error => {
        if (signal.aborted || !(error instanceof SourceError)) throw error
        return null
      })
      for (const provider of avoided) if (!this.#left.has(provider)) this.#avoided.add(provider)
      if (found) return found
      this.#left.clear()
    }
    return this.#source.open(digest, range, this.size, this.#avoided, signal)
  }

  #fastest(but: Provider): number {
    let fastest = 0
    for (const { provider } of this.#context.holders(this.#want.digest))
      if (provider !== but && !this.#avoided.has(provider) && !provider.rests && !provider.busy && provider.willing)
        fastest = Math.max(fastest, this.#left.get(provider) ?? provider.likelyRate)
    return fastest
  }

  #gaveUp(provider: Provider, error: SourceError, { changed, rate }: Taking): void {
    if (changed) {
      for (const [other, known] of this.#left) if (rate * worthChanging < known) this.#left.delete(other)
      this.#left.set(provider, rate)
      return
    }
    this.#avoided.add(provider)
    if (error.code === 'revoked') return
    if (error instanceof PeerViolation) this.#context.ban(provider, error.message)
    provider.failed()
    this.#context.suspect(provider)
  }
}

type Rivals = {
  readonly context: PeersContext
  readonly patience: Patience
  readonly hasOthers: () => boolean
  /** What the fastest other peer is likely to give, in bytes/s; 0 if there is none. */
  readonly fastest: () => number
}

/** Takes bytes from one peer, and watches how they come. */
class Taking {
  position: number
  /** Whether it was given up for a faster peer, not for a fault. */
  changed = false
  /** In bytes/s, of late. */
  rate = 0
  readonly #opened: Opened
  readonly #into: RangeWriter
  readonly #rivals: Rivals
  readonly #begin: number
  /** Since when the disk, or a limit of the rate, has it wait; its time is not the peer's. */
  #waitingSince: number | undefined
  #waited = 0
  #lastByteAt: number
  /** Where it stood, some looks ago. */
  #seen: { at: number; position: number }[] = []
  /** Where it stood when it was last looked whether anything comes of it. */
  #mark: { at: number; position: number }

  constructor(opened: Opened, into: RangeWriter, position: number, rivals: Rivals) {
    this.#opened = opened
    this.#into = into
    this.#rivals = rivals
    this.position = position
    this.#begin = rivals.context.now()
    this.#lastByteAt = this.#begin
    this.#mark = { at: this.#begin, position }
  }

  /** Resolves when the range is full. @throws SourceError if it is not */
  async run(signal: AbortSignal): Promise<void> {
    const { body, holder } = this.#opened
    const { provider } = holder
    const { now } = this.#rivals.context
    const start = this.position
    const into = this.#into
    const onAbort = () => body.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    const watch = setInterval(() => this.#look(), lookEvery)
    provider.active++
    let left = body.length
    let full = false
    let last: Promise<void> | undefined
    try {
      if (signal.aborted) onAbort()
      into.from(provider, body.size)
      await body.pipe(bytes => {
        left -= bytes.length
        this.#lastByteAt = now()
        const count = Math.min(bytes.length, into.room)
        const written = count > 0 ? into.write(bytes) : undefined
        this.position += count
        full = into.room === 0
        last = written
        // What comes after the range is another's.
        if (full && left > 0) body.abort()
        if (!written) return undefined
        this.#waitingSince = now()
        return written.finally(() => {
          this.#waited += now() - (this.#waitingSince ?? now())
          this.#waitingSince = undefined
          this.#lastByteAt = now()
        })
      })
      provider.succeeded()
    } catch (error) {
      if (!full) throw error
      // The body may have been cut while its last bytes were still being written; or that is what failed.
      if (last) await abortable(last, signal)
      provider.succeeded()
    } finally {
      clearInterval(watch)
      provider.active--
      signal.removeEventListener('abort', onAbort)
      provider.gave(this.position - start, now() - this.#begin - this.#waited)
    }
    if (into.room > 0)
      throw new SourceError('broken', `${provider.name} ends ${into.room} bytes before the end of what was asked for`)
  }

  #look(): void {
    const { context, patience, hasOthers, fastest } = this.#rivals
    const now = context.now()
    if (this.#waitingSince !== undefined) {
      this.#seen = []
      this.#mark = { at: now, position: this.position }
      return
    }
    const silence = now - this.#lastByteAt
    // Who has just stopped may go on, and is not one who gives a little, and a little more.
    const gives = silence <= shortSilence
    const stagnant = this.#stagnates(now, gives)
    this.#seen.push({ at: now, position: this.position })
    const [first] = this.#seen
    const span = now - (first?.at ?? now)
    const rate = span < slowTime ? undefined : ((this.position - (first?.position ?? 0)) / span) * 1000
    if (rate !== undefined) {
      this.rate = rate
      this.#seen.shift()
    }
    if (silence > patience.silence || (silence > shortSilence && hasOthers())) this.#giveUp('fell silent')
    else if (rate === undefined) return
    else if (stagnant || (rate < drip && gives && (hasOthers() || patience.busy === 0)))
      this.#giveUp('gives next to nothing')
    else if (rate * worthChanging < fastest()) {
      this.changed = true
      this.#giveUp('is slow, and another peer is likely faster')
    }
  }

  /** Whether too little has come in a long time, though it does give. */
  #stagnates(now: number, gives: boolean): boolean {
    const { at, position } = this.#mark
    if (!gives || now - at <= this.#rivals.patience.silence) return false
    this.#mark = { at: now, position: this.position }
    return this.position - position < leastProgress
  }

  #giveUp(why: string): void {
    const { holder, body } = this.#opened
    body.abort(new SourceError('timeout', `${holder.provider.name} ${why}`))
  }
}
