import { Buffer } from 'node:buffer'
import type { Digest } from '@shoal/oci/digest'
import type { ChunkAnswer, SpreadContext } from '@shoal/swarm/spread/spread-context'
import type { SpreadMessage } from '@shoal/swarm/spread/spread-message'
import { Spreads } from '@shoal/swarm/spread/spreads'
import type { Tuning } from '@shoal/swarm/spread/tuning'
import { Download } from './download.ts'
import { type Flow, Link } from './flows.ts'
import { Liar, type Lie } from './liar.ts'
import { lanLatency, messageCost, type Office, requestCost } from './office.ts'

export type MachineOptions = {
  /** In Mbit/s. @default 100 */
  readonly upload?: number
  readonly download?: number
  /** @default true */
  readonly gives?: boolean
  readonly line?: boolean
  readonly lie?: Lie
  readonly tuning?: Tuning
}

/** How long a request may be without a sign of life, in ms, as in the daemon. */
const patience = 4000

/** A chunk on its way to a machine. */
type Get = { readonly giver: Machine; flow: Flow | undefined; readonly end: (answer?: ChunkAnswer) => void }

/** A machine that runs the daemon's own code, in a world that is made up. */
export class Machine {
  readonly id: string
  readonly uplink: Link
  readonly downlink: Link
  readonly gives: boolean
  readonly spreads: Spreads
  readonly liar: Liar | undefined
  readonly downloads = new Map<Digest, Download>()
  /** Whom it is connected to, as far as it has seen. */
  readonly peers = new Set<string>()
  readonly banned = new Set<string>()
  /** Who has given it other bytes than it has said. */
  readonly caught = new Set<string>()
  /** Whom nothing gets to any more, although that is not seen yet. */
  readonly cut = new Set<string>()
  /** Which part of the LAN it is in. */
  side = 0
  up = true
  dead = false
  line: boolean
  /** Whether it has asked upstream before. */
  hasToken = false
  /** How long its processor has worked, in ms. */
  busy = 0
  readonly #office: Office
  readonly #gets = new Set<Get>()
  readonly #lost = new Set<string>()
  /** What is due while it sleeps. */
  #missed: (() => void)[] = []
  /** When its processor has done all that there is to do. */
  #free = 0

  constructor(office: Office, id: string, options: MachineOptions) {
    const { upload = 100, download = 100, gives = true, line = true, lie, tuning } = options
    this.#office = office
    this.id = id
    this.uplink = new Link(upload)
    this.downlink = new Link(download)
    this.gives = gives
    this.line = line
    this.liar = lie && new Liar(this, office.chance, lie)
    this.spreads = new Spreads(this.#context(), tuning)
  }

  /** Begins to want a blob. */
  want(digest: Digest, size: number, done: (now: number) => void = () => {}): Download {
    const download = new Download(this.#office, this, digest, size, done)
    this.downloads.set(digest, download)
    download.begin()
    return download
  }

  /** Has a blob already. */
  hold(digest: Digest, size: number): void {
    const download = new Download(this.#office, this, digest, size, () => {})
    this.downloads.set(digest, download)
    download.hold()
  }

  /** Its processor does something that takes a good one so many ms, after all that it has to do already. */
  work(cost: number, then: () => void): void {
    const { events, slowness } = this.#office
    this.#free = Math.max(events.now, this.#free) + cost * slowness
    this.busy += cost * slowness
    events.at(this.#free, () => this.run(then))
  }

  after(ms: number, then: () => void): Disposable {
    let over = false
    const timer = this.#office.events.after(ms, () =>
      this.run(() => {
        if (!over) then()
      }),
    )
    return {
      [Symbol.dispose]: () => {
        over = true
        timer[Symbol.dispose]()
      },
    }
  }

  /** Does something, or when it is awake again. */
  run(what: () => void): void {
    if (this.dead) return
    if (this.up) what()
    else this.#missed.push(what)
  }

  /** @param seenAfter how long it takes each other until it is seen, in ms */
  die(seenAfter: () => number): void {
    this.dead = true
    this.sleep(seenAfter)
  }

  sleep(seenAfter: () => number): void {
    this.up = false
    this.#office.moved(this, seenAfter)
  }

  wake(seenAfter: () => number): void {
    if (this.dead || this.up) return
    this.up = true
    this.#office.moved(this, seenAfter)
    for (const what of this.#missed.splice(0)) this.run(what)
  }

  /** Something that its downloads depend on is not what it was. */
  flowsChanged(): void {
    for (const download of this.downloads.values()) download.pump()
  }

  ban(whom: string): void {
    this.banned.add(whom)
    const other = this.#office.machines.get(whom)
    if (other && this.peers.has(whom)) this.#office.disconnect(this, other)
  }

  /** Whether another has been connected from the beginning. */
  stays(whom: string): boolean {
    return this.peers.has(whom) && !this.#lost.has(whom)
  }

  /** Nothing gets to another any more. */
  broken(other: Machine): void {
    this.cut.add(other.id)
    other.cut.add(this.id)
    for (const [one, two] of [
      [this, other],
      [other, this],
    ] as const)
      for (const get of one.#gets) if (get.giver === two) get.flow?.[Symbol.dispose]()
  }

  /** The connection has ended. */
  lose(other: Machine): void {
    this.cut.delete(other.id)
    this.#lost.add(other.id)
    if (!this.peers.delete(other.id)) return
    for (const get of [...this.#gets]) if (get.giver === other) get.end({ kind: 'failed' })
    for (const get of [...other.#gets]) if (get.giver === this) get.end({ kind: 'failed' })
    this.run(() => this.spreads.left(other.id))
  }

  #context(): SpreadContext {
    const { events, chance } = this.#office
    // No two clocks begin together.
    const begun = chance.between(0, 1000)
    return {
      self: this.id,
      now: () => begun + events.now,
      random: () => chance.next(),
      after: (ms, then) => this.after(ms, then),
      members: () => this.peers,
      send: (to, message) => {
        const told = this.liar ? this.liar.distort(to, message) : message
        if (told) this.#send(to, told)
      },
      get: (from, digest, chunk, has, done) => this.#get(from, digest, chunk, has, done),
      sign: bytes => signatureOf(this.id, bytes),
      verify: (author, bytes, signature) => Buffer.compare(signatureOf(author, bytes), signature) === 0,
      isBanned: member => this.banned.has(member),
      blame: (whom, reason) => this.blame(whom, reason),
    }
  }

  blame(whom: string, reason: string): void {
    this.#office.blames.push({ at: this.#office.events.now, by: this.id, whom, reason })
    this.ban(whom)
  }

  #send(to: string, message: SpreadMessage): void {
    const office = this.#office
    const other = office.machines.get(to)
    if (!other || !this.peers.has(to)) return
    office.messages++
    this.work(messageCost, () => {
      office.events.after(lanLatency, () => {
        if (!this.peers.has(to) || this.cut.has(to)) return
        other.work(messageCost, () => {
          if (other.peers.has(this.id)) other.spreads.receive(this.id, message)
        })
      })
    })
  }

  #get(from: string, digest: Digest, chunk: number, has: Uint8Array, done: (answer: ChunkAnswer) => void): Disposable {
    const office = this.#office
    const giver = office.machines.get(from)!
    office.requests++
    let over = false
    let slot: Disposable | undefined
    let moved = office.events.now
    const end = (answer?: ChunkAnswer) => {
      if (over) return
      over = true
      watch[Symbol.dispose]()
      get.flow?.[Symbol.dispose]()
      slot?.[Symbol.dispose]()
      this.#gets.delete(get)
      if (answer) this.run(() => done(answer))
    }
    const get: Get = { giver, flow: undefined, end }
    this.#gets.add(get)
    const look = () => {
      const { now } = office.events
      if (get.flow && !this.cut.has(from)) moved = now
      if (now - moved >= patience) end({ kind: 'failed' })
      else watch = this.after(500, look)
    }
    let watch = this.after(500, look)
    office.events.after(lanLatency, () => {
      if (over) return
      if (!this.peers.has(from)) return void this.after(1, () => end({ kind: 'failed' }))
      if (this.cut.has(from)) return
      giver.work(requestCost, () => {
        if (over || this.cut.has(from)) return
        const given = giver.#give(this.id, digest, chunk, has)
        const told = giver.liar ? undefined : giver.spreads.of(digest)?.have.bits
        if (given === undefined) return
        if (typeof given === 'string') {
          office.events.after(lanLatency, () => {
            if (!this.cut.has(from)) this.work(requestCost, () => end({ kind: given, has: told }))
          })
          return
        }
        slot = given.slot
        get.flow = office.flows.start(given.bytes, [giver.uplink, this.downlink], () => {
          slot?.[Symbol.dispose]()
          office.events.after(lanLatency, () =>
            this.work(requestCost, () => {
              if (!over && giver.liar?.lie === 'bytes') this.caught.add(from)
              end({ ...this.#answer(digest, chunk, given), has: told })
            }),
          )
        })
      })
    })
    return { [Symbol.dispose]: () => end() }
  }

  #answer(digest: Digest, chunk: number, { content, hash }: { content: string; hash: string }): ChunkAnswer {
    return {
      kind: 'chunk',
      hash,
      keep: (author, then) => this.downloads.get(digest)?.keep(chunk, content, author, then),
      drop: () => {},
    }
  }

  /** What another gets that asks for a chunk; nothing at all from some liars. */
  #give(
    to: string,
    digest: Digest,
    chunk: number,
    has: Uint8Array,
  ): 'lacks' | 'busy' | { bytes: number; content: string; hash: string; slot: Disposable } | undefined {
    const download = this.downloads.get(digest)
    if (this.liar && !this.liar.gives) return this.liar.refusal
    if (!download) return 'lacks'
    const spread = this.spreads.of(digest)
    let slot: ReturnType<NonNullable<typeof spread>['serve']> = { [Symbol.dispose]: () => {} }
    if (spread) slot = spread.serve(to, chunk, has)
    else if (!download.whole) return 'lacks'
    if (typeof slot === 'string') return slot
    const content = this.liar?.contentFor(to, download.contentOf(chunk)) ?? download.contentOf(chunk)
    return { bytes: download.bytesOf(chunk), content, hash: download.hashOf(chunk, content), slot }
  }
}

/** The one whose line brings the most. */
export function fetcherOf(machines: readonly Machine[]): Machine | undefined {
  const upstream = ({ downloads }: Machine) => downloads.values().reduce((sum, download) => sum + download.upstream, 0)
  return machines.filter(({ dead }) => !dead).sort((a, b) => upstream(b) - upstream(a))[0]
}

/** A signature that nobody else in this world would make. */
export function signatureOf(author: string, bytes: Uint8Array): Buffer {
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return Buffer.from(`${author} ${hash >>> 0}`)
}
