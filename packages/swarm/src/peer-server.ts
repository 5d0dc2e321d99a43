import { constants } from 'node:crypto'
import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket, type TlsOptions, type Server as TlsServer } from 'node:tls'
import type { ByteRange } from '@shoal/oci/byte-range'
import { type Digest, isDigest } from '@shoal/oci/digest'
import { answer, BodySender, whenOver } from '@shoal/store/blob-responder'
import type { Reader } from '@shoal/store/reader'
import type { HeldBlob } from '@shoal/store/store'
import { type Certificate, peerAt, peerTls } from './certificate.ts'
import { formatBits, parseBits } from './chunk-bits.ts'
import type { ChunkOffer } from './joint-downloads.ts'
import { plainAddress } from './lan-address.ts'
import { type Pace, paced } from './pace.ts'
import { UploadSlots } from './upload-slots.ts'

/** A request of a member as it was answered. `bytes` of the body; `ms` until it was answered or broken off. */
export type Upload = {
  readonly peer: string
  /** Undefined where none was asked for. */
  readonly digest: Digest | undefined
  readonly status: number
  readonly bytes: number
  readonly ms: number
  /** Why it was answered with 500, or broken off. */
  readonly error?: unknown
}

/** What a server bears, so that strangers and members alike cannot have it take what it needs for others. */
export type PeerServerLimits = {
  /** Connections in all; those beyond are closed at once. */
  readonly connections: number
  /** Connections from one address: several daemons may share it. */
  readonly perAddress: number
  /** Connections of one peer. */
  readonly perPeer: number
  /** Requests on one connection. */
  readonly requests: number
  /** Until the first request is there, TLS included, in ms. */
  readonly arrival: number
  /** From an answer until the next request is there, in ms: longer than peers keep their connections. */
  readonly idle: number
}

export const peerServerLimits: PeerServerLimits = {
  connections: 512,
  perAddress: 64,
  perPeer: 32,
  requests: 10_000,
  arrival: 10_000,
  idle: 30_000,
}

export type PeerServerOptions = {
  readonly certificate: Certificate
  /** Whether connections from this address, IPv4 or IPv6, are taken at all. */
  readonly admitsAddress: (ip: string) => boolean
  /** Whether this peer is a member now. */
  readonly admits: (peerId: string) => boolean
  /** A blob that peers may have, and its type; undefined if it is not held, or not to be shared. */
  readonly open: (digest: Digest) => Promise<{ blob: HeldBlob; contentType: string } | undefined>
  /** A chunk of a blob that is just spreading, if the peer, which has so many itself, may have it now. @default none */
  readonly openChunk?: (peer: string, digest: Digest, chunk: number, has?: Uint8Array) => Promise<ChunkOffer>
  /** Uploads at once, chunks apart. */
  readonly maxUploads: number
  /** Why no bytes are given now over the line with this address of this machine; undefined if they are. */
  readonly resting: (localAddress: string) => string | undefined
  /** Of all uploads together. @default without limit */
  readonly pace?: Pace
  readonly onServed: (upload: Upload) => void
  /** In ms, never going back. */
  readonly now: () => number
  /** @default {@link peerServerLimits} */
  readonly limits?: PeerServerLimits
}

/** The longest head of a request, in bytes. */
const headLimit = 8 * 1024

/** Requests of one connection at once: the next may be there before the last has been seen to have left. */
const exchangesEach = 2

/** When to ask again who was refused, in s. */
const retryAfter = 1

/** The connection of a member. */
type Line = {
  readonly peer: string
  exchanges: number
  /** Ends it unless a request comes in time. */
  timer: NodeJS.Timeout | undefined
}

/** A request in progress, as it is told of afterwards. */
type Exchange = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly peer: string
  digest?: Digest
  bytes: number
  error?: unknown
}

/**
 * Gives members the bytes of blobs that this machine holds: `GET` and `HEAD` of `/v1/blobs/<digest>` over HTTPS with
 * mutual TLS. A connection passes three servers: TCP, where its address is looked at; TLS, after which its certificate
 * is; and HTTP, which sees those of members alone.
 */
export class PeerServer {
  readonly #options: PeerServerOptions
  readonly #limits: PeerServerLimits
  readonly #tcp: Server
  readonly #tls: TlsServer
  readonly #http: HttpServer
  readonly #bodies = new BodySender()
  readonly #slots: UploadSlots
  /** All that are open, and whence they come. */
  readonly #sockets = new Map<Socket, string>()
  readonly #lines = new Map<Socket, Line>()
  #active = 0
  #closing = false
  #idle: (() => void) | undefined

  constructor(options: PeerServerOptions) {
    this.#options = options
    this.#limits = options.limits ?? peerServerLimits
    this.#slots = new UploadSlots({ most: options.maxUploads, now: options.now })
    const { connections, requests, arrival } = this.#limits
    this.#tcp = createServer({ noDelay: true }, socket => this.#accept(socket))
    this.#tcp.maxConnections = connections
    this.#tls = createTlsServer(
      {
        ...tlsOptions(options.certificate),
        requestCert: true,
        // Nobody vouches for these certificates but they themselves: they are looked at below.
        rejectUnauthorized: false,
        handshakeTimeout: arrival,
      },
      socket => void this.#identify(socket),
    )
    this.#tls.on('tlsClientError', (_error, socket) => socket.destroy())
    // The times of a line are kept here: its requests may come slowly, or not at all.
    const times = { keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 }
    this.#http = createHttpServer({ ...times, maxHeaderSize: headLimit }, (request, response) => {
      void this.#serve(request, response)
    })
    this.#http.maxRequestsPerSocket = requests
  }

  /**
   * Begins to take connections, and resolves to where; port 0 lets the system choose. `0.0.0.0` and `::` stand for every
   * address of the machine, of both families: peers that have met over IPv6 fetch over it, too.
   * @throws the system's error, such as EADDRINUSE
   */
  listen(host: string, port: number): Promise<AddressInfo> {
    // Without a host, Node takes both families where there is IPv6, else IPv4.
    const where = host === '0.0.0.0' || host === '::' ? { port } : { host, port }
    return new Promise((resolve, reject) => {
      this.#tcp.once('error', reject)
      this.#tcp.listen(where, () => {
        this.#tcp.off('error', reject)
        // What goes wrong later, with one connection that cannot be accepted, is that peer's trouble alone.
        this.#tcp.on('error', () => {})
        resolve(this.#tcp.address() as AddressInfo)
      })
    })
  }

  /** Shows another certificate on connections to come. */
  renew(certificate: Certificate): void {
    this.#tls.setSecureContext(tlsOptions(certificate))
  }

  /** Takes no more requests, and lets those under way end, for at most `grace` ms. */
  async close(grace: number): Promise<void> {
    this.#closing = true
    const closed = new Promise<void>(resolve => this.#tcp.close(() => resolve()))
    for (const [socket, { exchanges }] of this.#lines) if (exchanges === 0) socket.destroy()
    const timer = setTimeout(() => this.#disconnect(), grace)
    if (this.#active > 0) await new Promise<void>(resolve => (this.#idle = resolve))
    clearTimeout(timer)
    this.#disconnect()
    await closed
  }

  #disconnect(): void {
    for (const socket of this.#sockets.keys()) socket.destroy()
  }

  #accept(socket: Socket): void {
    const { perAddress } = this.#limits
    const address = plainAddress(socket.remoteAddress ?? '')
    let same = 0
    for (const other of this.#sockets.values()) if (other === address) same++
    socket.on('error', () => {})
    if (same >= perAddress || !this.#options.admitsAddress(address)) return void socket.destroy()
    this.#sockets.set(socket, address)
    socket.once('close', () => this.#sockets.delete(socket))
    this.#tls.emit('connection', socket)
  }

  async #identify(socket: TLSSocket): Promise<void> {
    socket.on('error', () => {})
    let peer: string
    try {
      peer = await peerAt(socket)
    } catch {
      return void socket.destroy()
    }
    let same = 0
    for (const line of this.#lines.values()) if (line.peer === peer) same++
    if (this.#closing || same >= this.#limits.perPeer || !this.#options.admits(peer) || socket.destroyed)
      return void socket.destroy()
    const line: Line = { peer, exchanges: 0, timer: undefined }
    this.#lines.set(socket, line)
    socket.once('close', () => {
      clearTimeout(line.timer)
      this.#lines.delete(socket)
    })
    line.timer = setTimeout(() => socket.destroy(), this.#limits.arrival)
    this.#http.emit('connection', socket)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request
    const line = this.#lines.get(socket)
    // A peer may be a member no longer.
    if (!line || this.#closing || line.exchanges === exchangesEach || !this.#options.admits(line.peer))
      return void socket.destroy()
    clearTimeout(line.timer)
    line.exchanges++
    this.#active++
    const { onServed, now } = this.#options
    const begin = now()
    const exchange: Exchange = { request, response, peer: line.peer, bytes: 0 }
    try {
      await this.#answer(exchange)
    } catch (error) {
      exchange.error = error
      // A head that is out cannot be taken back: the peer must see that the answer is not whole.
      if (response.headersSent) response.destroy()
      else refuse(response, 500)
    } finally {
      if (--line.exchanges === 0 && !socket.destroyed)
        line.timer = setTimeout(() => socket.destroy(), this.#limits.idle)
      whenOver(exchange, () => {
        if (--this.#active === 0) this.#idle?.()
      })
      onServed({
        peer: exchange.peer,
        digest: exchange.digest,
        status: response.statusCode,
        bytes: exchange.bytes,
        ms: now() - begin,
        ...(exchange.error !== undefined && { error: exchange.error }),
      })
    }
  }

  async #answer(exchange: Exchange): Promise<void> {
    const { request, response } = exchange
    const { method = '', url = '', headers } = request
    if (method !== 'GET' && method !== 'HEAD') return refuse(response, 405, { allow: 'GET, HEAD' })
    const reference = url.startsWith(blobs) ? url.slice(blobs.length) : ''
    if (!isDigest(reference)) return refuse(response, 404)
    exchange.digest = reference
    const chunk = headers['shoal-chunk']
    if (chunk !== undefined) return this.#answerChunk(exchange, reference, String(chunk))
    const held = await this.#options.open(reference)
    if (!held) return refuse(response, 404)
    const { blob, contentType } = held
    try {
      const plan = answer(method, headers, { digest: blob.digest, size: blob.size, contentType })
      if (plan.range)
        return await this.#give(exchange, blob, plan.range, () => response.writeHead(plan.status, plan.headers))
      response.writeHead(plan.status, plan.headers)
      response.end()
    } finally {
      blob.close()
    }
  }

  /** The requests for chunks of one blob have their own limit, which its spread keeps. */
  async #answerChunk(exchange: Exchange, digest: Digest, number: string): Promise<void> {
    const { request, response, peer } = exchange
    const { method = '', headers } = request
    if (method !== 'GET' || !/^\d{1,10}$/.test(number)) return refuse(response, 404)
    if (this.#rests(request)) return turnAway(response, 'resting')
    const theirs = parseBits(headers['shoal-has']?.toString())
    const chunk = (await this.#options.openChunk?.(peer, digest, Number(number), theirs)) ?? 'lacks'
    if (chunk === 'lacks') return refuse(response, 404)
    const ours = formatBits(chunk.has)
    const has: Readonly<Record<string, string>> = ours === undefined ? {} : { 'shoal-has': ours }
    if ('busy' in chunk) return turnAway(response, 'busy', has)
    try {
      const { size, range } = chunk
      const plan = answer(method, headers, { digest, size, contentType: 'application/octet-stream' })
      const asked = plan.range
      if (asked?.start !== range.start || asked.end !== range.end) return refuse(response, 404)
      response.writeHead(plan.status, { ...plan.headers, ...has })
      await this.#send(exchange, chunk.read())
    } finally {
      chunk.close()
    }
  }

  #rests({ socket }: IncomingMessage): boolean {
    return this.#options.resting(plainAddress(socket.localAddress ?? '')) !== undefined
  }

  async #give(exchange: Exchange, blob: HeldBlob, range: ByteRange, writeHead: () => void): Promise<void> {
    const { request, response, peer } = exchange
    if (this.#rests(request)) return turnAway(response, 'resting')
    using slot = this.#slots.take(peer)
    if (!slot) return turnAway(response, 'busy')
    writeHead()
    await this.#send(exchange, blob.read(range))
  }

  async #send(exchange: Exchange, reader: Reader): Promise<void> {
    const { response } = exchange
    const { pace } = this.#options
    const { bytes, error } = await this.#bodies.send(response, pace ? paced(reader, pace) : reader)
    exchange.bytes = bytes
    if (error !== undefined) exchange.error = error
  }
}

const blobs = '/v1/blobs/'

/** No peer resumes a session: what Node says of who sent which certificate holds for whole handshakes alone. */
function tlsOptions({ cert, key }: Certificate): TlsOptions {
  return { ...peerTls, cert, key, secureOptions: constants.SSL_OP_NO_TICKET }
}

function refuse(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string | number>> = {},
): void {
  response.writeHead(status, { ...headers, 'content-length': 0 })
  response.end()
}

function turnAway(
  response: ServerResponse,
  refusal: 'busy' | 'resting',
  headers: Readonly<Record<string, string>> = {},
): void {
  refuse(response, 503, { ...headers, 'retry-after': retryAfter, 'shoal-refusal': refusal })
}
