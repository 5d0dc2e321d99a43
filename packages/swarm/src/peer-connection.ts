import type { SocketConstructorOpts } from 'node:net'
import { type ConnectionOptions, connect, type SecureContext, type TLSSocket } from 'node:tls'
import { type ByteRange, formatRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import { SourceError } from '@shoal/store/source'
import { peerAt } from './certificate.ts'
import { formatBits } from './chunk-bits.ts'
import { type AnswerHead, type Content, PeerViolation, parsePeerAnswer, type Refusal } from './peer-answer.ts'

/** Where a peer gives bytes: `host` is an IP address, a link-local IPv6 one with its `%zone`. */
export type PeerAddress = { readonly peerId: string; readonly host: string; readonly port: number }

export type PeerRequest = {
  /** @default all of it */
  readonly range?: ByteRange
  /** The number of the chunk that the range is, of a blob that is just spreading. */
  readonly chunk?: number
  /** Beside a chunk: those that this machine has, one bit for each. */
  readonly has?: Uint8Array
  /** Until the head of the answer is there, in ms. */
  readonly answerTimeout: number
  /** Between two pieces of the body, in ms; while the sink has it wait, no time passes. */
  readonly silenceTimeout: number
  readonly signal: AbortSignal
}

/** Takes a piece of a body; where it returns a promise, the next waits for it. */
export type Sink = (bytes: Uint8Array) => Promise<void> | undefined

/** The bytes of a blob as they come. They must be piped or aborted. */
export type PeerBody = Content & {
  /**
   * Gives the bytes to `sink`, piece by piece. A piece must not be used after the call: its memory takes the next.
   * @throws SourceError `timeout`, or `broken` if they end early; PeerViolation if there are more than the peer said;
   *   what the sink throws; the reason of an abort
   */
  pipe(sink: Sink): Promise<void>
  /** Ends the connection. @param reason @default SourceError `revoked` */
  abort(reason?: unknown): void
}

/** Thrown when a connection that was kept had been closed by the peer before it saw the request. */
export class StaleError extends Error {}

/** The longest head of an answer, in bytes. */
const headLimit = 8 * 1024

/** How long a connection is kept for the next request, in ms: less than the other side keeps it. */
const keepAlive = 20_000

/** A connection to one peer, for one request after another. */
export class PeerConnection {
  readonly #peer: string
  readonly #name: string
  readonly #socket: TLSSocket
  #error: Error | undefined
  #idle = false
  #idling: NodeJS.Timeout | undefined
  #exchange: Exchange | undefined

  /**
   * Begins to connect; {@link opened} tells how it went.
   * @param memory takes what is received, over this connection and others
   */
  constructor({ peerId, host, port }: PeerAddress, secureContext: SecureContext, memory: Buffer) {
    this.#peer = peerId
    this.#name = `peer ${peerId} at ${host}`
    const callback = (count: number) => this.#received(memory.subarray(0, count))
    // tls.connect() takes `onread` as net.connect() does; its types have yet to say so.
    const options: ConnectionOptions & Pick<SocketConstructorOpts, 'onread'> = {
      host,
      port,
      secureContext,
      // Nobody vouches for these certificates but they themselves: they are looked at once the handshake is done.
      rejectUnauthorized: false,
      onread: { buffer: memory, callback },
    }
    this.#socket = connect(options)
    this.#socket.setNoDelay(true)
    this.#socket.on('error', error => (this.#error = error))
    this.#socket.once('close', () => {
      clearTimeout(this.#idling)
      this.#exchange?.closed(this.#error)
    })
  }

  /**
   * Resolves once the connection stands, and leads to the peer that is meant: now, it may be asked.
   * @param timeout in ms
   * @throws SourceError `unreachable` if it does not; the signal's reason
   */
  async opened(timeout: number, signal: AbortSignal): Promise<void> {
    const socket = this.#socket
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const fail = (cause: Error) => {
      reject(new SourceError('unreachable', `${this.#name} cannot be reached: ${cause.message}`, { cause }))
    }
    socket.once('secureConnect', () => void peerAt(socket).then(resolve, fail))
    socket.once('close', () => fail(this.#error ?? new Error('it closes the connection')))
    const timer = setTimeout(() => fail(new Error('it does not answer in time')), timeout)
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      const peer = await promise
      if (peer !== this.#peer) throw new SourceError('unreachable', `${this.#name} is not there: ${peer} is`)
    } catch (error) {
      socket.destroy()
      throw error
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Whether it has nothing to do, and can be asked. */
  get idle(): boolean {
    return this.#idle && !this.#socket.destroyed
  }

  onClose(closed: () => void): void {
    this.#socket.once('close', closed)
  }

  /**
   * Resolves once the head of the answer is there.
   * @throws StaleError; and as {@link PeerClient.get} does
   */
  async ask(digest: Digest, request: PeerRequest): Promise<PeerBody | Refusal> {
    const { range, chunk, has, signal } = request
    const kept = this.#idle
    this.#idle = false
    clearTimeout(this.#idling)
    const exchange = new Exchange(this.#name, this.#socket, request, last => this.#ended(last))
    this.#exchange = exchange
    if (signal.aborted) exchange.abort(signal.reason)
    const part = range ? `range: ${formatRange(range)}\r\n` : ''
    const ours = has && formatBits(has)
    const wanted =
      chunk === undefined ? part : `${part}shoal-chunk: ${chunk}\r\n${ours ? `shoal-has: ${ours}\r\n` : ''}`
    if (this.#socket.destroyed) exchange.closed(this.#error)
    else this.#socket.write(`GET /v1/blobs/${digest} HTTP/1.1\r\nhost: ${this.#peer}\r\n${wanted}\r\n`)
    try {
      return await exchange.started
    } catch (error) {
      if (kept && exchange.cut && !signal.aborted) throw new StaleError()
      throw error
    }
  }

  close(reason: Error): void {
    this.#exchange?.abort(reason)
    this.#socket.destroy(reason)
  }

  #ended(last: boolean): void {
    this.#exchange = undefined
    if (last || this.#socket.destroyed) return void this.#socket.destroy()
    this.#idle = true
    this.#idling = setTimeout(() => this.#socket.destroy(), keepAlive).unref()
  }

  #received(bytes: Buffer): boolean {
    if (this.#exchange) return this.#exchange.received(bytes)
    // Nothing was asked.
    this.#socket.destroy()
    return false
  }
}

/** One request, and its answer as it comes. */
class Exchange {
  readonly #name: string
  readonly #socket: TLSSocket
  readonly #request: PeerRequest
  readonly #onEnd: (last: boolean) => void
  readonly #started = Promise.withResolvers<PeerBody | Refusal>()
  readonly #ended = Promise.withResolvers<void>()
  readonly #onAbort = () => this.abort(this.#request.signal.reason)
  /** Pieces that came while the sink had them wait. */
  readonly #waiting: Buffer[] = []
  #timer: NodeJS.Timeout
  #overdue: NodeJS.Immediate | undefined
  #head = ''
  #answer: AnswerHead | undefined
  /** Bytes of the body that are still to be received. */
  #missing = 0
  #sink: Sink | undefined
  /** Whether the sink has the rest wait; nobody has said where to, at first. */
  #paused = false
  #cut = false
  #over = false

  constructor(name: string, socket: TLSSocket, request: PeerRequest, onEnd: (last: boolean) => void) {
    this.#name = name
    this.#socket = socket
    this.#request = request
    this.#onEnd = onEnd
    this.#timer = this.#limit(request.answerTimeout)
    this.#started.promise.catch(() => {})
    this.#ended.promise.catch(() => {})
    request.signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  get started(): Promise<PeerBody | Refusal> {
    return this.#started.promise
  }

  /** Whether the connection has ended before the first byte of an answer. */
  get cut(): boolean {
    return this.#cut
  }

  /** @returns whether to go on reading */
  received(bytes: Buffer): boolean {
    try {
      let body: Buffer | undefined = bytes
      if (this.#answer) {
        clearImmediate(this.#overdue)
        this.#timer.refresh()
      } else body = this.#begin(bytes)
      if (body && body.length > 0) this.#take(body)
    } catch (error) {
      this.#fail(error)
    }
    return !this.#paused
  }

  pipe(sink: Sink): Promise<void> {
    this.#sink = sink
    this.#goOn()
    return this.#ended.promise
  }

  abort(reason: unknown): void {
    this.#fail(reason)
  }

  closed(cause: Error | undefined): void {
    if (this.#answer && this.#missing === 0) return
    this.#cut = !this.#answer && this.#head === ''
    const why = cause ? `: ${cause.message}` : ''
    this.#fail(new SourceError('broken', `${this.#name} broke off${why}`, { cause }))
  }

  /** Reads the head of the answer, or so much of it as there is. @returns what follows it */
  #begin(bytes: Buffer): Buffer | undefined {
    const known = this.#head.length
    this.#head += bytes.toString('latin1', 0, headLimit)
    const end = this.#head.indexOf('\r\n\r\n')
    if (end < 0 && this.#head.length < headLimit) return undefined
    if (end < 0) throw new PeerViolation(`the head of the answer has more than ${headLimit} bytes`)
    const answer = parsePeerAnswer(this.#head.slice(0, end), this.#request.range)
    this.#answer = answer
    this.#missing = answer.length
    clearTimeout(this.#timer)
    clearImmediate(this.#overdue)
    this.#timer = this.#limit(this.#request.silenceTimeout)
    const { says } = answer
    if ('start' in says) {
      this.#paused = true
      const pipe = (sink: Sink) => this.pipe(sink)
      const abort = (reason: unknown = new SourceError('revoked', 'no longer needed')) => this.abort(reason)
      this.#started.resolve({ ...says, pipe, abort })
    } else {
      this.#ended.promise.then(() => this.#started.resolve(says), this.#started.reject)
      this.pipe(() => undefined).catch(() => {})
    }
    return bytes.subarray(end + 4 - known)
  }

  #take(bytes: Buffer): void {
    // After an answer without a body; the answer stands.
    if (this.#over) return void this.#socket.destroy()
    if (bytes.length > this.#missing) throw new PeerViolation('the answer is longer than it says')
    this.#missing -= bytes.length
    if (this.#paused) this.#waiting.push(Buffer.from(bytes))
    else this.#give(bytes)
    if (!this.#paused && this.#missing === 0) this.#end()
  }

  #give(bytes: Buffer): void {
    const written = this.#sink?.(bytes)
    if (!written) return
    this.#paused = true
    written.then(
      () => this.#goOn(),
      error => this.#fail(error),
    )
  }

  #goOn(): void {
    this.#paused = false
    try {
      for (let bytes: Buffer | undefined; !this.#over && !this.#paused && (bytes = this.#waiting.shift()); )
        this.#give(bytes)
    } catch (error) {
      this.#fail(error)
    }
    if (this.#over || this.#paused) return
    if (this.#missing === 0) return void this.#end()
    this.#timer.refresh()
    this.#socket.resume()
  }

  /** Ends the exchange after so many ms, unless something comes, or the sink has it wait. */
  #limit(ms: number): NodeJS.Timeout {
    return setTimeout(() => {
      // What is there already, and was only not read yet, is in time.
      this.#overdue = setImmediate(() => {
        if (!this.#paused) this.#fail(new SourceError('timeout', `${this.#name} did not answer in time`))
      })
    }, ms)
  }

  #end(): void {
    this.#settle()
    this.#ended.resolve()
    // The next answer may be read at once.
    this.#socket.resume()
    this.#onEnd(this.#answer?.last ?? true)
  }

  #fail(error: unknown): void {
    if (this.#over) return
    this.#settle()
    this.#started.reject(error)
    this.#ended.reject(error)
    this.#onEnd(true)
  }

  #settle(): void {
    this.#over = true
    clearTimeout(this.#timer)
    clearImmediate(this.#overdue)
    this.#request.signal.removeEventListener('abort', this.#onAbort)
  }
}
