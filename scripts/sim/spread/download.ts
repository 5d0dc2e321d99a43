import type { ByteRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import { ChunkSet, Chunks, chunkSizeOf } from '@shoal/swarm/spread/chunks'
import type { SpreadBlob } from '@shoal/swarm/spread/spread-context'
import type { ChunkRun } from '@shoal/swarm/spread/spread-message'
import type { Participation } from '@shoal/swarm/spread/spreads'
import { type Flow, Link } from './flows.ts'
import type { Machine } from './machine.ts'
import { type Office, upstreamLatency } from './office.ts'

/** What bytes are that are as they should be. */
export const truth = 'true'

/** How long sources without a line try before they give up, in ms. */
const lineless = 1000

/** Round trips to upstream before the first byte: for a token, a redirect, and the bytes. */
const tripsBefore = 3

/** A blob that a machine wants: what the daemon does beside the code of the swarm. */
export class Download implements SpreadBlob {
  readonly digest: Digest
  readonly size: number
  readonly begunAt: number
  /** When it was there and right, in ms. */
  doneAt: number | undefined
  /** Times that it was begun. */
  begins = 0
  /** Times that all was there, and wrong. */
  failures = 0
  /** Bytes over the line, by this machine. */
  upstream = 0
  /** What the sources are to bring and have not brought. */
  asked: ChunkSet | undefined
  readonly #done: (now: number) => void
  readonly #office: Office
  readonly #machine: Machine
  #participation: Participation | undefined
  #chunks: Chunks | undefined
  /** What is there of each chunk, and who has said that it is so. */
  #kept: ({ readonly content: string; readonly author: string } | undefined)[] = []
  #count = 0
  #stream: { readonly chunk: number; flow: Flow | undefined; counts: boolean; readonly timer: Disposable } | undefined
  #last = -2
  #connection: Link | undefined
  #lineless: Disposable | undefined

  constructor(office: Office, machine: Machine, digest: Digest, size: number, done: (now: number) => void) {
    this.#done = done
    this.#office = office
    this.#machine = machine
    this.digest = digest
    this.size = size
    this.begunAt = office.events.now
  }

  get gives(): boolean {
    return this.#machine.gives
  }

  get whole(): boolean {
    return this.doneAt !== undefined
  }

  /** Chunks that are there. */
  get count(): number {
    return this.#count
  }

  /** Whether the line brings bytes for it now. */
  get streaming(): boolean {
    return this.#stream !== undefined && this.#machine.up && this.#machine.line
  }

  begin(): void {
    this.begins++
    this.#participation = this.#machine.spreads.join(this)
  }

  /** It is here already. */
  hold(): void {
    for (let chunk = 0; chunk < this.chunks.count; chunk++) this.#put(chunk, truth, this.#machine.id)
    this.doneAt = this.begunAt
  }

  has({ start, end }: ByteRange): boolean {
    if (this.#count === 0) {
      this.#chunks = undefined
      return false
    }
    const { chunk } = this.chunks
    if (end - start === Math.min(chunk, this.size - start)) return this.#kept[start / chunk] !== undefined
    // It is cut otherwise this time.
    this.#chunks = undefined
    this.#kept = []
    this.#count = 0
    return false
  }

  /** Is not wanted any more, and then is, with what is there. */
  again(): void {
    this.#participation?.end(false)
    this.asked = undefined
    this.#stop()
    this.#machine.after(1, () => this.begin())
  }

  /** Whether something is there that is not as it should be. */
  get wrong(): boolean {
    return this.#kept.some(kept => kept && kept.content !== truth)
  }

  held(): boolean {
    return false
  }

  line(): boolean {
    return this.#source() !== undefined
  }

  fetch(runs: readonly ChunkRun[]): void {
    // The first time it is called before `join` has returned.
    this.#machine.after(0, () => {
      const chunks = this.chunks
      this.asked = new ChunkSet(chunks.count, runs)
      for (const chunk of this.#kept.keys()) if (this.#kept[chunk]) this.asked.delete(chunk)
      this.pump()
    })
  }

  hash(chunk: number, done: (hash: string) => void): void {
    this.#machine.work(this.bytesOf(chunk) / 1e6, () => done(this.hashOf(chunk, this.contentOf(chunk))))
  }

  get chunks(): Chunks {
    this.#chunks ??= this.#participation?.spread?.chunks ?? new Chunks(this.size, chunkSizeOf(this.size))
    return this.#chunks
  }

  bytesOf(chunk: number): number {
    const { start, end } = this.chunks.rangeOf(chunk)
    return end - start
  }

  contentOf(chunk: number): string {
    return this.#kept[chunk]?.content ?? 'nothing'
  }

  hashOf(chunk: number, content: string): string {
    if (this.chunks.count > 1) return `${chunk}:${content}`
    return content === truth ? this.digest.slice(this.digest.indexOf(':') + 1) : content
  }

  keep(chunk: number, content: string, author: string, then: () => void): void {
    if (this.#put(chunk, content, author)) {
      then()
      this.#look()
    }
  }

  #put(chunk: number, content: string, author: string): boolean {
    if (this.whole || this.#kept[chunk]) return false
    this.#kept[chunk] = { content, author }
    this.#count++
    return true
  }

  /** Looks whether all is there, and right. */
  #look(): void {
    if (this.whole || this.#count < this.chunks.count) return
    const wrong = new Set<string>()
    this.#kept.forEach((kept, chunk) => {
      if (!kept || kept.content === truth) return
      wrong.add(kept.author)
      delete this.#kept[chunk]
      this.#count--
    })
    if (wrong.size === 0) {
      this.doneAt = this.#office.events.now
      this.#stop()
      for (const denier of this.#participation?.spread?.deniers ?? [])
        this.#machine.blame(denier, 'has signed hashes that are wrong')
      this.#participation?.end(true)
      this.#done(this.doneAt)
      return
    }
    // A liar among authors would fool itself.
    if (wrong.has(this.#machine.id)) return
    this.failures++
    for (const author of wrong)
      this.#machine.blame(author, 'is the author of hashes of a blob that is not what it should be')
    this.again()
  }

  #stop(): void {
    if (!this.#stream) return
    const { flow, timer, counts } = this.#stream
    timer[Symbol.dispose]()
    if (flow && counts) this.#countBytes(flow.come)
    flow?.[Symbol.dispose]()
    this.#stream = undefined
  }

  #countBytes(bytes: number): void {
    this.upstream += bytes
    this.#office.upstream += bytes
  }

  /** A peer that has all of it, or the line. */
  #source(): Link | undefined {
    const { machines, line } = this.#office
    const { peers, cut } = this.#machine
    for (const peer of peers) {
      const other = machines.get(peer)!
      if (!other.liar && other.gives && !cut.has(peer) && other.downloads.get(this.digest)?.whole) return other.uplink
    }
    return this.#machine.line ? line : undefined
  }

  /** Goes on with what the sources are to bring. */
  pump(): void {
    const { events } = this.#office
    const machine = this.#machine
    if (
      this.whole ||
      machine.dead ||
      (this.#stream && (!this.asked?.has(this.#stream.chunk) || !machine.up || !this.#source()))
    )
      this.#stop()
    if (this.whole || machine.dead || this.#stream || !this.asked || this.asked.total === 0 || !machine.up) return
    if (!this.#source()) {
      this.#giveUp()
      return
    }
    const [chunk = 0] = this.asked
    const trips = this.#last < 0 ? tripsBefore - (machine.hasToken ? 1 : 0) : chunk === this.#last + 1 ? 0 : 1
    const begin = () => this.#begin(chunk)
    this.#stream = { chunk, flow: undefined, counts: false, timer: events.after(trips * upstreamLatency, begin) }
  }

  #begin(chunk: number): void {
    const { flows, line, connection } = this.#office
    const machine = this.#machine
    const stream = this.#stream!
    const source = this.#source()
    if (!source) {
      this.pump()
      return
    }
    stream.counts = source === line
    machine.hasToken = true
    const way = [source, machine.downlink]
    if (stream.counts && connection) way.push((this.#connection ??= new Link(connection)))
    stream.flow = flows.start(this.bytesOf(chunk), way, () => {
      if (stream.counts) this.#countBytes(this.bytesOf(chunk))
      this.#stream = undefined
      this.#last = chunk
      this.asked?.delete(chunk)
      if (this.#put(chunk, machine.liar?.forgery ?? truth, machine.id)) {
        this.#participation?.fetched(chunk)
        this.#look()
      }
      this.pump()
    })
    const beat = () => {
      if (this.#stream !== stream) return
      if (stream.flow && stream.flow.rate > 0) this.#participation?.arrives()
      machine.after(200, beat)
    }
    beat()
  }

  /** There is nothing to get it from. */
  #giveUp(): void {
    this.#lineless ??= this.#machine.after(lineless, () => {
      this.#lineless = undefined
      if (!this.#source() && this.asked && this.asked.total > 0) this.#participation?.exhausted()
      else this.pump()
    })
  }
}
