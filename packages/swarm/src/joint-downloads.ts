import { hash } from 'node:crypto'
import type { ByteRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import { manifestLimit } from '@shoal/oci/manifest'
import { RangeSet } from '@shoal/oci/range-set'
import type { JointDownload, JointDownloads, JointTransfer } from '@shoal/store/joint'
import { fill, type Reader } from '@shoal/store/reader'
import type { Giver, Want } from '@shoal/store/source'
import type { HeldBlob } from '@shoal/store/store'
import { PatientClock } from './patient-clock.ts'
import type { PeerAddress, PeerClient } from './peer-client.ts'
import { PeerViolation } from './peer-client.ts'
import type { Provider } from './provider.ts'
import { ChunkSet, wholeUpTo } from './spread/chunks.ts'
import type { ChunkAnswer, SpreadBlob, SpreadContext } from './spread/spread-context.ts'
import type { SpreadMessage } from './spread/spread-message.ts'
import { type Participation, Spreads } from './spread/spreads.ts'
import { tuning } from './spread/tuning.ts'

/** How chunks are waited for, in ms. */
const patience = { connectTimeout: 3000, answerTimeout: 4000, silenceTimeout: 4000 }

/** How long one is shut out whose hashes led to wrong bytes, in ms: it may have been lied to itself. */
const authorBan = 3_600_000

/** A blob up to this size is got from one who has it, if there is one, in bytes: two thirds of all. */
const smallUpTo = 1024 * 1024

/** How often a machine without a way to the registry asks another to fetch something for it, in ms, and how many. */
const errandEvery = 700
const mostErrands = 6

/** How long what is said to one peer is gathered, in ms: a frame costs more than a message in it. */
const gathering = 15

/** Buffers for chunks that are kept for the next. */
const mostSpare = 16

/** A chunk that is given to a peer. */
export type OpenChunk = {
  readonly range: ByteRange
  /** Of the whole blob, in bytes. */
  readonly size: number
  read(): Reader
  close(): void
}

/** What a peer gets that asks for a chunk; `has` are those that are here, one bit for each. */
export type ChunkOffer =
  | 'lacks'
  | { readonly busy: true; readonly has: Uint8Array }
  | (OpenChunk & { readonly has: Uint8Array })

/** The number of a chunk, and what this machine has, one bit for each chunk. */
type Asked = { readonly chunk: number; readonly has: Uint8Array }

export type JointDownloadsOptions = Pick<
  SpreadContext,
  'self' | 'now' | 'random' | 'sign' | 'verify' | 'members' | 'isBanned'
> & {
  readonly client: Pick<PeerClient, 'get'>
  /** Where a member gives bytes, and what is known of it; undefined if it is not connected. */
  readonly peer: (id: string) => { readonly provider: Provider; readonly address: PeerAddress } | undefined
  /** Somebody who was a member lately. */
  readonly provider: (id: string) => Provider | undefined
  readonly send: (to: string, messages: readonly SpreadMessage[]) => void
  /** Asks a member to fetch something that this machine has no way to. */
  readonly sendErrand: (to: string, want: Want) => void
  /** How many members have all of a blob, and are likely to give it at once. */
  readonly holders: (digest: Digest) => number
  /** Whether this machine gives bytes to others. */
  readonly gives: () => boolean
  /** Uploads at once. */
  readonly maxUploads: number
  /** A blob that is held. */
  readonly open: (digest: Digest) => Promise<HeldBlob | undefined>
  readonly ban: (peer: string, reason: string, ms: number | null) => void
}

/** Downloads that this machine shares with peers who want the same at the same time: the spreads, with real bytes. */
export class PeerDownloads implements JointDownloads {
  readonly #options: JointDownloadsOptions
  readonly #spreads: Spreads
  readonly #downloads = new Map<Digest, Download>()
  readonly #clock: PatientClock
  /** Who is to blame if what has the hash that an author told turns out wrong. */
  readonly #authors = new Map<string, Giver>()
  readonly #spare: Buffer[] = []
  /** What is to be said, and when. */
  readonly #waiting = new Map<string, SpreadMessage[]>()
  #gathering: NodeJS.Timeout | undefined

  constructor(options: JointDownloadsOptions) {
    this.#options = options
    const { self, now, random, members, sign, verify, isBanned, ban, maxUploads } = options
    this.#clock = new PatientClock(now)
    const context: SpreadContext = {
      self,
      now: () => this.#clock.now,
      random,
      after: (ms, then) => setTimeout(then, ms).unref(),
      members,
      send: (to, message) => this.#say(to, message),
      get: (from, digest, chunk, has, done) => this.#get(from, digest, { chunk, has }, done),
      sign,
      verify,
      isBanned,
      blame: (member, reason) => ban(member, reason, null),
    }
    // What is handed on goes beside: each chunk once.
    this.#spreads = new Spreads(context, {
      ...tuning,
      servesInAll: Math.min(tuning.servesInAll, maxUploads),
      handsInAll: Math.min(tuning.handsInAll, 2 * maxUploads),
    })
  }

  join(want: Want, transfer: JointTransfer): JointDownload | undefined {
    const { digest, kind } = want
    // Nobody knows how long a manifest is before it is there.
    const size = kind === 'manifest' ? 0 : want.size
    if (size === undefined || !digest.startsWith('sha256:')) return undefined
    const holders = this.#options.holders(digest)
    // Where most have it already, there is little to share; and what is small comes at once.
    if (holders > 0 && (size <= smallUpTo || 2 * holders > [...this.#options.members()].length)) return undefined
    const download: Download = new Download(want, size, transfer, {
      gives: this.#options.gives(),
      open: this.#options.open,
      held: () => this.#options.holders(digest) > 0,
      errand: tried => this.#sendErrand(want, tried),
      onDenier: author => this.#options.ban(author, `told hashes of other bytes than those of ${digest}`, authorBan),
      ended: () => {
        if (this.#downloads.get(digest) === download) this.#downloads.delete(digest)
        this.#rest()
      },
    })
    this.#clock.start()
    this.#downloads.get(digest)?.end(false)
    this.#downloads.set(digest, download)
    download.begin(this.#spreads)
    return download
  }

  /** Says something to a peer, soon: a question, or its answer, at once. */
  #say(to: string, message: SpreadMessage): void {
    const waiting = this.#waiting.get(to) ?? []
    waiting.push(message)
    this.#waiting.set(to, waiting)
    if (message.t === 'ask' || message.t === 'lease') this.#flush(to)
    else
      this.#gathering ??= setTimeout(() => {
        this.#gathering = undefined
        for (const id of [...this.#waiting.keys()]) this.#flush(id)
      }, gathering).unref()
  }

  #flush(to: string): void {
    const messages = this.#waiting.get(to)
    this.#waiting.delete(to)
    if (messages) this.#options.send(to, messages)
  }

  /** Asks one who was not asked before. */
  #sendErrand(want: Want, tried: Set<string>): void {
    const { members, sendErrand, random } = this.#options
    const others = [...members()].filter(member => !tried.has(member))
    const member = others[Math.floor(random() * others.length)]
    if (member === undefined) return
    tried.add(member)
    sendErrand(member, want)
  }

  receive(from: string, message: SpreadMessage): void {
    this.#clock.start()
    this.#spreads.receive(from, message)
    if (message.t === 'leave') this.#rest()
  }

  /** While there is nothing to do, no clock needs to go. */
  #rest(): void {
    if (this.#downloads.size === 0 && this.#spreads.coordinated === 0) this.#clock.stop()
  }

  /** A member is connected, for the first time or again. */
  arrived(member: string): void {
    this.#spreads.arrived(member)
  }

  left(member: string): void {
    this.#spreads.left(member)
    this.#rest()
  }

  /** A chunk that a peer asks for, if it may have it now. @param has what it has itself, one bit for each chunk */
  async openChunk(peer: string, digest: Digest, chunk: number, has?: Uint8Array): Promise<ChunkOffer> {
    const download = this.#downloads.get(digest)
    const spread = this.#spreads.of(digest)
    const slot = (download && spread?.serve(peer, chunk, has)) ?? 'lacks'
    if (!download || !spread || slot === 'lacks') return 'lacks'
    const { bits } = spread.have
    if (slot === 'busy') return { busy: true, has: bits }
    try {
      return { ...(await download.openChunk(chunk, slot)), has: bits }
    } catch {
      slot[Symbol.dispose]()
      return 'lacks'
    }
  }

  close(): void {
    this.#spreads.close()
    clearTimeout(this.#gathering)
    this.#clock.stop()
  }

  #get(from: string, digest: Digest, asked: Asked, done: (answer: ChunkAnswer) => void): Disposable {
    const abort = new AbortController()
    void this.#ask(from, digest, asked, abort.signal).then(answer => {
      if (abort.signal.aborted) {
        if (answer.kind === 'chunk') answer.drop()
      } else done(answer)
    })
    return { [Symbol.dispose]: () => abort.abort() }
  }

  async #ask(from: string, digest: Digest, { chunk, has }: Asked, signal: AbortSignal): Promise<ChunkAnswer> {
    const { client, peer, now, ban } = this.#options
    const member = peer(from)
    const download = this.#downloads.get(digest)
    if (!member || !download) return { kind: 'failed' }
    const { provider, address } = member
    const { size } = download
    const range = size > wholeUpTo ? download.rangeOf(chunk) : undefined
    const begin = now()
    provider.active++
    try {
      const body = await client.get(address, digest, { ...patience, ...(range && { range }), chunk, has, signal })
      if (body.status === 404 || body.status === 416) return { kind: 'lacks' }
      if (body.status === 503) {
        if (body.refusal === 'resting') provider.willing = false
        return { kind: body.refusal === 'busy' ? 'busy' : 'lacks', has: body.has }
      }
      if ((size > 0 && body.size !== size) || body.length > (size > 0 ? body.size : manifestLimit)) {
        body.abort()
        return { kind: 'failed' }
      }
      const bytes = this.#buffer(body.length)
      let count = 0
      await body.pipe(piece => {
        bytes.set(piece, count)
        count += piece.length
        return undefined
      })
      provider.gave(count, now() - begin)
      return {
        kind: 'chunk',
        has: body.has,
        hash: hash('sha256', bytes, 'hex'),
        keep: (author, then) => {
          const giver = author === '' ? provider : this.#authorOf(author, provider)
          void download.keep(chunk, bytes, giver, body.size).then(
            kept => {
              this.#giveBack(bytes)
              if (kept) then()
            },
            () => this.#giveBack(bytes),
          )
        },
        drop: () => this.#giveBack(bytes),
      }
    } catch (error) {
      if (error instanceof PeerViolation) ban(from, error.message, null)
      return { kind: 'failed' }
    } finally {
      provider.active--
    }
  }

  #authorOf(id: string, sender: Provider): Giver {
    const known = this.#authors.get(id)
    if (known) return known
    const provider = this.#options.provider(id) ?? sender
    const { ban } = this.#options
    const author: Giver = {
      kind: 'peer',
      label: provider.name,
      wrong: reason => ban(id, `told hashes of other bytes: ${reason}`, authorBan),
    }
    if (this.#authors.size > 1024) this.#authors.clear()
    this.#authors.set(id, author)
    return author
  }

  #buffer(length: number): Buffer {
    const index = this.#spare.findIndex(buffer => buffer.length >= length)
    const buffer = index < 0 ? Buffer.allocUnsafeSlow(length) : this.#spare.splice(index, 1)[0]!
    return buffer.length === length ? buffer : buffer.subarray(0, length)
  }

  #giveBack(bytes: Buffer): void {
    if (this.#spare.length < mostSpare) this.#spare.push(Buffer.from(bytes.buffer))
  }
}

type DownloadOptions = {
  readonly gives: boolean
  readonly open: (digest: Digest) => Promise<HeldBlob | undefined>
  /** Whether a member has all of it, and is likely to give it. */
  readonly held: () => boolean
  /** Asks another machine to fetch it. @param tried those who were asked before */
  readonly errand: (tried: Set<string>) => void
  readonly ended: () => void
  /** Somebody has signed hashes of other bytes than those of the blob. */
  readonly onDenier: (author: string) => void
}

/** One blob that is shared. */
class Download implements JointDownload, SpreadBlob {
  readonly digest: Digest
  readonly size: number
  readonly gives: boolean
  readonly #transfer: JointTransfer
  readonly #options: DownloadOptions
  /** While this machine has no way to the registry: looks whether others fetch it. */
  readonly #seeking: NodeJS.Timeout
  /** Members that were asked to. */
  readonly #errands = new Set<string>()
  #total = 0
  /** What an earlier run has left. */
  readonly #before: RangeSet
  #participation: Participation | undefined
  #spreads: Spreads | undefined
  /** Chunks that others gave, and that are being written. */
  #keeping: ChunkSet | undefined
  #whole = false
  #over = false

  constructor({ digest }: Want, size: number, transfer: JointTransfer, options: DownloadOptions) {
    this.digest = digest
    this.size = size
    this.gives = options.gives
    this.#before = new RangeSet(transfer.have)
    this.#transfer = transfer
    this.#options = options
    this.#seeking = setInterval(() => this.#seekLine(), errandEvery).unref()
  }

  begin(spreads: Spreads): void {
    this.#spreads = spreads
    this.#participation = spreads.join(this, () => this.#options.ended())
    if (!this.line()) this.#seekLine()
  }

  get alive(): boolean {
    return this.#participation?.spread?.alive ?? false
  }

  line(): boolean {
    return this.#transfer.line()
  }

  held(): boolean {
    return this.#options.held()
  }

  has(range: ByteRange): boolean {
    return this.size > 0 && this.#transfer.have.covers(range)
  }

  fetch(chunks: readonly (readonly [start: number, end: number])[]): void {
    if (this.#over) return
    const ranges = new RangeSet()
    for (const [first, end] of chunks) ranges.add({ start: this.rangeOf(first).start, end: this.rangeOf(end - 1).end })
    this.#transfer.fetch(ranges)
  }

  hash(chunk: number, done: (hash: string) => void): void {
    void this.#hash(chunk).then(done, () => {})
  }

  arrived({ start, end }: ByteRange): void {
    const participation = this.#participation
    const spread = participation?.spread
    if (!spread || this.#over) return
    const { chunk, count, size } = spread.chunks
    // What is one chunk is given to others when it is verified.
    if (size <= wholeUpTo) return void participation.arrives()
    this.#keeping ??= new ChunkSet(count)
    let ofSources = false
    for (let i = Math.floor(start / chunk); i < count && i * chunk < end; i++) {
      if (this.#keeping.has(i)) continue
      ofSources = true
      const range = spread.chunks.rangeOf(i)
      if (spread.have.has(i) || !this.#transfer.have.covers(range)) continue
      // What was there before may be wrong.
      if (this.#before.gaps(range)[0]?.end === range.end && this.#before.reach(range.start) === range.start)
        participation.fetched(i)
      else participation.kept(i)
    }
    if (ofSources) participation.arrives()
  }

  exhausted(): void {
    this.#participation?.exhausted()
  }

  end(whole: boolean): void {
    if (this.#over) return
    this.#over = true
    clearInterval(this.#seeking)
    this.#whole = whole
    if (whole && this.size <= wholeUpTo) this.#participation?.fetched(0)
    if (whole) for (const author of this.#participation?.spread?.deniers ?? []) this.#options.onDenier(author)
    this.#participation?.end(whole)
  }

  rangeOf(chunk: number): ByteRange {
    const chunks = this.#spreads?.of(this.digest)?.chunks
    if (!chunks || this.size === 0) return { start: 0, end: Number.MAX_SAFE_INTEGER }
    return chunks.rangeOf(chunk)
  }

  /** @returns whether it can be given to others as what it was said to be */
  async keep(chunk: number, bytes: Buffer, giver: Giver, size: number): Promise<boolean> {
    const transfer = this.#transfer
    const start = this.size > wholeUpTo ? this.rangeOf(chunk).start : 0
    const end = start + bytes.length
    const spread = this.#spreads?.of(this.digest)
    const mixed = transfer.have.gaps({ start, end })[0]?.end !== end || transfer.have.reach(start) > start
    if (spread && !mixed) (this.#keeping ??= new ChunkSet(spread.chunks.count)).add(chunk)
    try {
      await transfer.write(bytes, start, giver, size)
    } finally {
      this.#keeping?.delete(chunk)
    }
    // Some of it came from the sources: then it is this machine's own to say what it is.
    if (mixed && size > wholeUpTo) this.#participation?.fetched(chunk)
    return !mixed
  }

  async openChunk(chunk: number, slot: Disposable): Promise<OpenChunk> {
    const { range, size, read, close } = await this.#open(chunk)
    return {
      range,
      size,
      read,
      close: () => {
        close()
        slot[Symbol.dispose]()
      },
    }
  }

  #seekLine(): void {
    const { total } = this.#transfer.have
    const stands = total === this.#total
    this.#total = total
    if (this.#over || this.line() || !stands || this.#errands.size >= mostErrands) return
    this.#options.errand(this.#errands)
  }

  async #hash(chunk: number): Promise<string> {
    const { range, read, close } = await this.#open(chunk)
    const reader = read()
    try {
      const bytes = Buffer.allocUnsafe(range.end - range.start)
      if ((await fill(bytes, reader)) < bytes.length) throw new Error(`${this.digest} ends early`)
      return hash('sha256', bytes, 'hex')
    } finally {
      reader.close()
      close()
    }
  }

  /** A chunk that is there: in the store if all is, else on its way there. */
  async #open(chunk: number): Promise<OpenChunk> {
    const blob = this.#whole ? await this.#options.open(this.digest) : undefined
    if (this.#whole && !blob) throw new Error(`${this.digest} is not held any more`)
    // How long a manifest is, only what is there tells.
    const size = blob?.size ?? (this.size || this.#transfer.have.reach(0))
    const range = this.size > wholeUpTo ? this.rangeOf(chunk) : { start: 0, end: size }
    return {
      range,
      size,
      read: () => blob?.read(range) ?? this.#transfer.peek(range),
      close: () => blob?.close(),
    }
  }
}
