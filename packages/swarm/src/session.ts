import type { Connection, Stream } from '@libp2p/interface'
import { LengthPrefixedDecoder } from '@libp2p/utils'
import { Uint8ArrayList } from 'uint8arraylist'
import {
  decodeMessage,
  encodeMessage,
  type Hello,
  isSpreadMessage,
  longestFrame,
  type Message,
  MessageError,
} from './message.ts'

/** Until the other side has said hello, in ms. */
const helloTime = 5000

/** How often a session is looked at for life, in ms, and how long an answer may take. */
const pingEvery = 15_000
const pongTime = 8000

/** What may wait to be sent, in bytes: a peer that takes nothing is not waited for. */
const mostWaiting = 8 * 1024 * 1024

/**
 * Messages that a peer may send in {@link pingEvery}: about blobs that several want at once, and others; holdings have a
 * limit of their own.
 */
const mostMessages = 300
const mostOfSpreads = 20_000

export type SessionOptions = {
  /** This machine's peer id. */
  readonly self: string
  readonly connection: Connection
  readonly stream: Stream
  readonly hello: Hello
  /** In ms, never going back. */
  readonly now: () => number
  readonly events: {
    /** The other side has said who it is. */
    opened(session: Session): void
    received(session: Session, message: Exclude<Message, { t: 'hello' | 'ping' | 'pong' }>): void
    closed(session: Session, error: Error | undefined): void
  }
}

/** What two peers tell each other over one connection, from the first hello on: `/shoal/1/peer` of docs/protocol.md. */
export class Session {
  readonly connection: Connection
  readonly peerId: string
  readonly openedAt: number
  /** What the other side said of itself; set when the session is opened. */
  hello: Hello | undefined
  /** The last round trip, in ms. */
  rtt: number | undefined
  readonly #stream: Stream
  readonly #options: SessionOptions
  /** The ping that is not answered yet: when it was sent, and until when its answer must be there. */
  #pinged: { n: number; at: number; until: number } | undefined
  #pings = 0
  #received = 0
  #ofSpreads = 0
  #heardAt: number
  #timer: NodeJS.Timeout
  #closed = false

  constructor(options: SessionOptions) {
    const { connection, stream, now } = options
    this.#options = options
    this.#stream = stream
    this.connection = connection
    this.peerId = connection.remotePeer.toString()
    this.openedAt = now()
    this.#heardAt = now()
    const decoder = new LengthPrefixedDecoder({ maxDataLength: longestFrame, maxBufferSize: 2 * longestFrame })
    stream.addEventListener('message', ({ data }) => {
      try {
        for (const frame of decoder.decode(data)) this.#receive(frame.subarray())
      } catch (error) {
        this.close(error instanceof Error ? error : new Error(String(error)))
      }
    })
    stream.addEventListener('close', event => this.close(event.error))
    stream.addEventListener('remoteCloseWrite', () => this.close())
    this.#timer = setTimeout(() => {
      this.close(new MessageError('SILENT', `no hello within ${helloTime / 1000} s`))
    }, helloTime).unref()
    void this.send(options.hello)
  }

  get closed(): boolean {
    return this.#closed
  }

  /** When the other side was last heard of, in ms. */
  get heardAt(): number {
    return this.#heardAt
  }

  /** Sends messages, together. @returns a promise to wait for before sending much more */
  send(...messages: readonly Message[]): Promise<void> | undefined {
    if (this.#closed) return undefined
    const frames = messages.map(encodeMessage)
    try {
      const more = this.#stream.send(
        new Uint8ArrayList(...frames.flatMap(frame => [lengthPrefix(frame.length), frame])),
      )
      if (more) return undefined
      if (this.#stream.writeBufferLength > mostWaiting) {
        this.close(new MessageError('SLOW', 'it takes what it is sent too slowly'))
        return undefined
      }
      // Who waits looks whether the session is still open.
      return this.#stream.onDrain().catch(() => {})
    } catch (error) {
      this.close(error instanceof Error ? error : new Error(String(error)))
      return undefined
    }
  }

  /** Looks whether the other side is still there; if it does not answer within `patience` ms, the session ends. */
  ping(patience = pongTime): void {
    if (this.#closed || !this.hello) return
    const now = this.#options.now()
    const { n, at, until } = this.#pinged ?? { n: ++this.#pings, at: now, until: Number.POSITIVE_INFINITY }
    // Who is suspected again and again has no more time for that.
    this.#pinged = { n, at, until: Math.min(until, now + patience) }
    void this.send({ t: 'ping', n })
    clearTimeout(this.#timer)
    this.#timer = setTimeout(
      () => this.close(new MessageError('SILENT', 'a ping was not answered in time')),
      this.#pinged.until - now,
    ).unref()
  }

  /** Ends it, and its connection. */
  close(error?: Error): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#timer)
    // libp2p tells of a stream's end while it is ending the connection, and throws if that has ended meanwhile.
    queueMicrotask(() => void this.#disconnect(error))
    this.#options.events.closed(this, error)
  }

  async #disconnect(error: Error | undefined): Promise<void> {
    const { connection } = this
    try {
      if (error) connection.abort(error)
      else await connection.close().catch(() => connection.abort(new Error('closing took too long')))
    } catch {
      // It has ended already.
    }
  }

  #receive(bytes: Uint8Array): void {
    if (this.#closed) return
    this.#heardAt = this.#options.now()
    const message = decodeMessage(bytes)
    const ofSpread = message !== undefined && isSpreadMessage(message)
    if (ofSpread && ++this.#ofSpreads > mostOfSpreads)
      throw new MessageError('FLOOD', `more than ${mostOfSpreads} messages in ${pingEvery / 1000} s`)
    if (!ofSpread && message?.t !== 'holdings' && ++this.#received > mostMessages)
      throw new MessageError('FLOOD', `more than ${mostMessages} messages in ${pingEvery / 1000} s`)
    if (!message) return
    if (!this.hello) {
      if (message.t !== 'hello') throw new MessageError('NO_HELLO', 'the first message is not hello')
      this.hello = message
      this.#options.events.opened(this)
      this.ping()
    } else if (message.t === 'hello') throw new MessageError('HELLO_AGAIN', 'hello was said before')
    else if (message.t === 'ping') void this.send({ t: 'pong', n: message.n })
    else if (message.t === 'pong') this.#ponged(message.n)
    else this.#options.events.received(this, message)
  }

  #ponged(n: number): void {
    if (this.#pinged?.n !== n) return
    this.rtt = this.#options.now() - this.#pinged.at
    this.#pinged = undefined
    this.#received = 0
    this.#ofSpreads = 0
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#look(), this.#interval).unref()
  }

  /** The lower id asks first: by that the other hears, too, that all is well. */
  get #interval(): number {
    return this.#options.self < this.peerId ? pingEvery : pingEvery * 1.35
  }

  #look(): void {
    this.#received = 0
    this.#ofSpreads = 0
    const quiet = this.#options.now() - this.#heardAt
    if (quiet >= this.#interval * 0.9) this.ping()
    else this.#timer = setTimeout(() => this.#look(), this.#interval - quiet).unref()
  }
}

/** A frame's length: an unsigned varint (github.com/multiformats/unsigned-varint). */
export function lengthPrefix(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80)
  bytes.push(rest)
  return Uint8Array.from(bytes)
}
