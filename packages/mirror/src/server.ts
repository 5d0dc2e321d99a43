import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { type Digest, DigestError, isDigest, parseDigest } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { type Name, NameError, parseName } from '@shoal/oci/name'
import { isTag } from '@shoal/oci/reference'
import { SpecError } from '@shoal/oci/spec-error'
import { abortable } from '@shoal/store/abortable'
import { answer, BodySender, whenOver } from '@shoal/store/blob-responder'
import type { Reader } from '@shoal/store/reader'
import { formatCacheStatus, type Provenance } from './cache-status.ts'
import { isOwnHost, registryOf, toolOf } from './client-rules.ts'
import { listen } from './listen.ts'
import type { Pulls } from './pulls.ts'
import type { Resolver } from './resolver.ts'
import type { Users } from './users.ts'

/** One request as it was answered. `bytes` of the body; `ms` until it was answered or broken off. */
export type Served = {
  readonly method: string
  readonly path: string
  /** `refused`: there were too many at once, so it was not looked at. */
  readonly kind: 'ping' | 'manifest' | 'blob' | 'listing' | 'other' | 'refused'
  readonly status: number
  readonly provenance: Provenance | undefined
  readonly bytes: number
  readonly ms: number
  /** The client's tool: `docker`, `containerd`, …. */
  readonly tool: string
  /** Why it was answered with an error, or broken off. */
  readonly error?: unknown
}

export type MirrorOptions = {
  readonly resolver: Resolver
  /** A certificate and its key, PEM, to speak TLS. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer }
  /** Who may ask; everybody if it is left out. */
  readonly users?: Users
  /** Told of the manifests that clients get. */
  readonly pulls: Pulls
  /** Told of content that was held when a client asked for it, and goes to it. */
  readonly onUsed: (digest: Digest) => void
  readonly onServed: (served: Served) => void
  /** How many files and connections the process may have open. @default without limit */
  readonly descriptors?: number
  /** In ms, never going back. */
  readonly now: () => number
}

/** A request in progress, as it is told of afterwards. */
type Exchange = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly url: URL
  /** When it came, in ms. */
  readonly begin: number
  kind: Served['kind']
  provenance?: Provenance
  bytes: number
  error?: unknown
}

const apiVersion = { 'docker-distribution-api-version': 'registry/2.0', 'x-content-type-options': 'nosniff' }

/** How long a client waits for an answer to begin, in ms: then it had better ask elsewhere. */
const longestWait = 12_000

/** The same, if no source has given a sign of life meanwhile. */
const longestSilence = 2900

/** How long a client may take to receive an answer that is sent at once, in ms. */
const patience = 120_000

/** How long a client may take to send a request, its TLS handshake apart, which may take as long; in ms. */
const requestTime = 10_000

/** How often it is looked who has taken longer than that, in ms. */
const requestCheck = 2000

/**
 * Requests in progress at once; those beyond are refused. With so many the daemon has been seen to take 470 MB, their
 * buffers 150 of them, and a turn of its event loop a second. The tools of one machine make tens.
 */
const mostRequests = 1024

/** What a request may take: its connection, a file, a connection upstream, and the connection of one that is refused. */
const descriptorsEach = 4

/** For all else: the index, the listeners, the runtime. */
const descriptorsApart = 64

/** When to ask again who was refused, in s. */
const retryAfter = 5

/** The Registry v2 server for clients (OCI distribution-spec 1.1: pull and content discovery). */
export class MirrorServer {
  readonly #options: MirrorOptions
  readonly #server: Server
  readonly #bodies = new BodySender()
  readonly #most: number
  #active = 0
  #idle: (() => void) | undefined

  constructor(options: MirrorOptions) {
    this.#options = options
    const listener: RequestListener = (request, response) => void this.#serve(request, response)
    const times = {
      headersTimeout: requestTime,
      requestTimeout: requestTime,
      connectionsCheckingInterval: requestCheck,
      // Longer than clients keep theirs, so that it is not the server that closes a connection in use.
      keepAliveTimeout: 75_000,
    }
    this.#server = options.tls
      ? createTlsServer({ ...options.tls, ...times, handshakeTimeout: requestTime }, listener)
      : createServer(times, listener)
    const { descriptors = Number.POSITIVE_INFINITY } = options
    this.#most = Math.max(1, Math.min(mostRequests, Math.floor((descriptors - descriptorsApart) / descriptorsEach)))
    // Room for the refused and the idle. Those beyond are closed at once, which clients take for a mirror that is away.
    this.#server.maxConnections = 2 * this.#most
  }

  /** Requests in progress: until the answer has left, or the client. */
  get active(): number {
    return this.#active
  }

  /** @throws the system's error, such as EADDRINUSE */
  listen(host: string, port: number): Promise<AddressInfo> {
    return listen(this.#server, host, port)
  }

  /** Takes no more requests, and lets those under way end, for at most `grace` ms. */
  async close(grace: number): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeIdleConnections()
    if (this.#active > 0) {
      const timer = new Promise(resolve => setTimeout(resolve, grace).unref())
      await Promise.race([timer, new Promise<void>(resolve => (this.#idle = resolve))])
    }
    this.#server.closeAllConnections()
    await closed
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { onServed, now } = this.#options
    const begin = now()
    const exchange: Exchange = { request, response, url: parseTarget(request.url), begin, kind: 'other', bytes: 0 }
    // A client may send many requests on one connection before it has an answer, and each listens to it.
    request.socket.setMaxListeners(0)
    try {
      if (this.#active++ >= this.#most) throw tooMany(exchange)
      if (await this.#admits(request)) await this.#route(exchange)
      else sendText(exchange, 401, { ...apiVersion, 'www-authenticate': 'Basic realm="shoal"' }, '')
    } catch (error) {
      exchange.error = error
      refuse(exchange, error)
    } finally {
      whenOver(exchange, () => {
        if (--this.#active === 0) this.#idle?.()
      })
      onServed({
        method: request.method ?? '',
        path: request.url ?? '',
        kind: exchange.kind,
        status: response.statusCode,
        provenance: exchange.provenance,
        bytes: exchange.bytes,
        ms: now() - begin,
        tool: toolOf(request.headers['user-agent']),
        ...(exchange.error !== undefined && { error: exchange.error }),
      })
    }
  }

  async #admits({ headers }: IncomingMessage): Promise<boolean> {
    const { users } = this.#options
    return !users || users.admit(headers.authorization)
  }

  #route(exchange: Exchange): Promise<void> | void {
    const { request, url } = exchange
    const { host, origin, 'sec-fetch-site': site } = request.headers
    // A name that a certificate stands for cannot be rebound to this machine.
    if (!(this.#options.tls || isOwnHost(host)) || origin !== undefined || site === 'cross-site')
      throw new SpecError('UNSUPPORTED', 'this mirror answers container tools, not pages of other sites', 421)
    const { method } = request
    const path = url.pathname
    if (path !== '/v2' && !path.startsWith('/v2/'))
      throw new SpecError('UNSUPPORTED', 'this is a registry mirror: its paths begin with /v2/', 404)
    if (method !== 'GET' && method !== 'HEAD')
      throw new SpecError('UNSUPPORTED', 'shoal is a mirror: push to the registry itself, or delete there')
    if (path === '/v2' || path === '/v2/') return this.#ping(exchange)
    const match = /^\/v2\/(.+)\/(manifests|blobs|tags|referrers)\/([^/]+)$/.exec(path)
    const [, repository = '', noun, encoded = ''] = match ?? []
    const reference = decodeURIComponent(encoded)
    const mirrors = (registry: string) => this.#options.resolver.mirrors(registry)
    const name = match && parseName(registryOf(url.searchParams.get('ns'), mirrors), repository)
    if (name && noun === 'manifests') return this.#manifest(exchange, name, reference)
    if (name && noun === 'blobs') return this.#blob(exchange, name, reference)
    if (name && noun === 'tags' && reference === 'list') return this.#tags(exchange, name)
    if (name && noun === 'referrers') return this.#referrers(exchange, name, reference)
    throw new SpecError('UNSUPPORTED', `there is nothing at ${path.slice(0, 200)}`, 404)
  }

  #ping(exchange: Exchange): void {
    exchange.kind = 'ping'
    sendText(exchange, 200, { ...apiVersion, 'content-type': 'application/json' }, '{}')
  }

  async #manifest(exchange: Exchange, name: Name, reference: string): Promise<void> {
    exchange.kind = 'manifest'
    const { resolver } = this.#options
    const digest = isDigest(reference) ? reference : undefined
    if (!digest && reference.includes(':')) parseDigest(reference)
    if (!digest && !isTag(reference)) throw new SpecError('MANIFEST_UNKNOWN', `"${reference.slice(0, 80)}" is no tag`)
    const moves = !digest
    const { method, headers } = exchange.request
    if (method === 'HEAD') {
      const found = await this.#inTime(exchange, name, signal =>
        digest ? resolver.describe(name, digest, signal) : resolver.describeTag(name, reference, signal),
      )
      exchange.provenance = found.provenance
      head(exchange, answer('HEAD', headers, { ...found, contentType: found.mediaType, moves }))
      end(exchange.response)
      this.#count(exchange, name, reference, found.digest)
      return
    }
    const hot = digest && resolver.hotManifest(digest)
    const found =
      hot ??
      (await this.#inTime(exchange, name, signal =>
        digest ? resolver.manifest(name, digest, signal) : resolver.taggedManifest(name, reference, signal),
      ))
    exchange.provenance = found.provenance
    const { bytes, manifest } = found
    const plan = answer('GET', headers, {
      digest: found.digest,
      size: bytes.length,
      contentType: manifest.mediaType,
      moves,
    })
    head(exchange, plan)
    const { range } = plan
    if (range) exchange.bytes = range.end - range.start
    end(exchange.response, range && bytes.subarray(range.start, range.end))
    if (plan.status === 416) return
    this.#count(exchange, name, reference, found.digest)
    if (found.provenance.kind === 'local' || found.provenance.kind === 'stale') this.#options.onUsed(found.digest)
  }

  #count({ begin }: Exchange, name: Name, reference: string, digest: Digest): void {
    const { pulls } = this.#options
    if (reference === digest) pulls.byDigest(name, digest, begin)
    else pulls.byTag(name, reference, digest, begin)
  }

  async #blob(exchange: Exchange, name: Name, reference: string): Promise<void> {
    exchange.kind = 'blob'
    const { resolver } = this.#options
    const digest = parseDigest(reference)
    const { method, headers } = exchange.request
    const contentType = 'application/octet-stream'
    if (method === 'HEAD') {
      const { size, provenance } = await this.#inTime(exchange, name, signal => resolver.blobSize(name, digest, signal))
      exchange.provenance = provenance
      head(exchange, answer('HEAD', headers, { digest, size, contentType }))
      end(exchange.response)
      return
    }
    const found = await this.#inTime(exchange, name, signal => resolver.blob(name, digest, signal))
    exchange.provenance = found.provenance
    try {
      const plan = answer('GET', headers, { digest, size: found.size, contentType })
      head(exchange, plan)
      if (!plan.range) return end(exchange.response)
      if ('held' in found) this.#options.onUsed(digest)
      await this.#body(exchange, 'held' in found ? found.held.read(plan.range) : found.transfer.read(plan.range))
    } finally {
      if ('held' in found) found.held.close()
      else found.interest[Symbol.dispose]()
    }
  }

  async #body(exchange: Exchange, reader: Reader): Promise<void> {
    const { bytes, error } = await this.#bodies.send(exchange.response, reader)
    exchange.bytes = bytes
    if (error !== undefined) exchange.error = error
  }

  /** Finds what to answer, while the client waits, and no longer than it should. */
  async #inTime<T>({ response, kind }: Exchange, name: Name, find: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { resolver } = this.#options
    const controller = new AbortController()
    const code = kind === 'manifest' ? 'MANIFEST_UNKNOWN' : kind === 'blob' ? 'BLOB_UNKNOWN' : 'NAME_UNKNOWN'
    const giveUp = (why: string) => controller.abort(new SpecError(code, `it is not held here; ${why}`))
    const answers = resolver.answersFor(name)
    const silence = setTimeout(() => {
      if (resolver.answersFor(name) === answers)
        giveUp(`no source of ${name.registry} has answered within ${longestSilence / 1000} s`)
    }, longestSilence)
    const wait = setTimeout(() => giveUp(`no source has it after ${longestWait / 1000} s`), longestWait)
    const onClose = () => giveUp('the client has left')
    response.once('close', onClose)
    try {
      return await abortable(find(controller.signal), controller.signal)
    } finally {
      clearTimeout(silence)
      clearTimeout(wait)
      response.off('close', onClose)
    }
  }

  async #tags(exchange: Exchange, name: Name): Promise<void> {
    const { searchParams } = exchange.url
    const query = new URLSearchParams()
    const n = searchParams.get('n')
    if (n !== null) {
      if (!/^\d{1,5}$/.test(n) || Number(n) > 10_000)
        throw new SpecError('UNSUPPORTED', 'n is a whole number, at most 10000', 400)
      query.set('n', n)
    }
    const last = searchParams.get('last')
    if (last !== null) query.set('last', last)
    await this.#listing(exchange, name, `tags/list${query.size > 0 ? `?${query}` : ''}`)
  }

  async #referrers(exchange: Exchange, name: Name, reference: string): Promise<void> {
    const digest = parseDigest(reference)
    const type = exchange.url.searchParams.get('artifactType')
    const query = type === null ? '' : `?${new URLSearchParams({ artifactType: type })}`
    await this.#listing(exchange, name, `referrers/${digest}${query}`)
  }

  async #listing(exchange: Exchange, name: Name, pathAndQuery: string): Promise<void> {
    exchange.kind = 'listing'
    const { resolver } = this.#options
    const listing = await this.#inTime(exchange, name, () => resolver.listing(name, pathAndQuery))
    const { body, link, filters, provenance } = listing
    exchange.provenance = provenance
    const headers = {
      ...apiVersion,
      'content-type': pathAndQuery.startsWith('tags/') ? 'application/json' : mediaTypes.ociIndex,
      'cache-status': formatCacheStatus(provenance),
      ...ownLink(link),
      ...(filters !== undefined && { 'oci-filters-applied': filters }),
    }
    sendText(exchange, 200, headers, body)
  }
}

/** A request's target as a URL; what makes no sense leads nowhere. */
function parseTarget(target = '/'): URL {
  return URL.parse(`http://mirror${target.startsWith('/') ? target : `/${target}`}`) ?? new URL('http://mirror/')
}

function head({ response, provenance }: Exchange, { status, headers }: ReturnType<typeof answer>): void {
  const cacheStatus = provenance && { 'cache-status': formatCacheStatus(provenance) }
  response.writeHead(status, { ...apiVersion, ...headers, ...cacheStatus })
}

function sendText(exchange: Exchange, status: number, headers: Record<string, string>, body: string): void {
  const { request, response } = exchange
  const length = Buffer.byteLength(body)
  response.writeHead(status, { ...headers, 'content-length': length })
  if (request.method === 'HEAD') end(response)
  else {
    exchange.bytes = length
    end(response, body)
  }
}

/** Ends an answer, and the connection of a client that does not take it. */
function end(response: ServerResponse, body?: string | Buffer): void {
  response.end(body)
  // What the system has taken at once needs no waiting for.
  if (response.writableFinished || response.socket?.writableLength === 0) return
  const timer = setTimeout(() => response.destroy(), patience)
  response.once('close', () => clearTimeout(timer))
}

/** Pings, too: the sooner a client hears of it, the sooner it asks elsewhere. */
function tooMany(exchange: Exchange): SpecError {
  exchange.kind = 'refused'
  return new SpecError('UNAVAILABLE', 'more requests are in progress than this mirror takes at once')
}

/** A registry's link to the next page, as one of this mirror: its path alone. */
function ownLink(link: string | undefined): { link?: string } {
  const [, target] = /^\s*<([^>]*)>\s*;\s*rel="?next"?\s*$/i.exec(link ?? '') ?? []
  if (target === undefined || !URL.canParse(target, 'http://registry/')) return {}
  const { pathname, search } = new URL(target, 'http://registry/')
  return { link: `<${pathname}${search}>; rel="next"` }
}

function refuse(exchange: Exchange, error: unknown): void {
  const { response } = exchange
  // A head that is out cannot be taken back: the client must see that the answer is not whole.
  if (response.headersSent) return void response.destroy()
  const refusal = asSpecError(error)
  const headers: Record<string, string> = { ...apiVersion, 'content-type': 'application/json' }
  if (refusal.status === 405) headers['allow'] = 'GET, HEAD'
  if (refusal.status === 503) headers['retry-after'] = '1'
  if (exchange.kind === 'refused') {
    headers['retry-after'] = String(retryAfter)
    headers['connection'] = 'close'
  }
  sendText(exchange, refusal.status, headers, refusal.body())
}

function asSpecError(error: unknown): SpecError {
  if (error instanceof SpecError) return error
  if (error instanceof NameError) return new SpecError('NAME_INVALID', error.message)
  if (error instanceof DigestError) return new SpecError('DIGEST_INVALID', error.message)
  if (error instanceof URIError) return new SpecError('NAME_INVALID', 'the path is not well formed')
  return new SpecError('UNAVAILABLE', error instanceof Error ? error.message : String(error))
}
