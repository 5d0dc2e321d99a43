import { promises as dns, type LookupAddress } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { getCACertificates } from 'node:tls'
import { SourceError } from '@shoal/store/source'
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici'
import { type AddressPolicy, isPublicAddress } from './address-policy.ts'
import { reusingConnector } from './connector.ts'

/** How long an idle connection is kept, in ms, whatever the server proposes. */
const keepAliveTimeout = 20_000

export type Headers = Readonly<Record<string, string | string[] | undefined>>

export type Request = {
  readonly method: 'GET' | 'HEAD'
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly signal: AbortSignal
  /** Whether the answer may be long: of these only so many are under way at once. @default false */
  readonly bulk?: boolean
}

export type TransportOptions = {
  readonly policy: AddressPolicy
  /** A PEM bundle to trust beside the system's. */
  readonly ca: string | undefined
  /** Until a connection stands, TLS included, in ms. */
  readonly connectTimeout: number
  /** Until the headers have come, in ms; the time for the connection is part of it. */
  readonly answerTimeout: number
  /** Between two pieces of a body, in ms, and until one that is wanted as a whole is there. */
  readonly bodyTimeout: number
  /** Long answers at once from one host and port. */
  readonly connections: number
  /** `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in either case. */
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Sends requests over HTTP/1.1, only to where the address policy allows. */
export class Transport {
  readonly #options: TransportOptions
  readonly #named: Dispatcher
  readonly #public: Dispatcher
  readonly #turns = new Map<string, Turns>()

  constructor(options: TransportOptions) {
    this.#options = options
    const lookup = singleLookup()
    this.#named = agent(options, lookup)
    this.#public = agent(options, publicOnly(lookup))
  }

  /**
   * Resolves once the headers have come. The body must then be read, discarded or aborted.
   * @throws SourceError
   */
  async request({ method, url, headers, signal, bulk = false }: Request): Promise<Response> {
    const { policy, answerTimeout, bodyTimeout } = this.#options
    const dispatcher = policy.admit(url) === 'named' ? this.#named : this.#public
    signal.throwIfAborted()
    // The time that this takes is not the server's, so it does not count against it.
    const turns = bulk ? this.#turnsAt(url.origin) : undefined
    if (turns) await turns.take(signal)
    const response = new Exchange(method, url, bodyTimeout)
    // An answer that is there already, and was only not read yet, is in time.
    let overdue: NodeJS.Immediate | undefined
    const timer = setTimeout(() => {
      overdue = setImmediate(() => response.abort(timedOut(url)))
    }, answerTimeout)
    const onAbort = () => response.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    const onEnd = () => {
      signal.removeEventListener('abort', onAbort)
      // undici takes a turn of the event loop until the connection is free for the next.
      if (turns) setImmediate(() => turns.giveBack())
    }
    response.ended.then(onEnd, onEnd)
    try {
      dispatcher.dispatch(
        { method, origin: url.origin, path: `${url.pathname}${url.search}`, headers, headersTimeout: 0, bodyTimeout },
        response,
      )
      return await response.started
    } finally {
      clearTimeout(timer)
      clearImmediate(overdue)
    }
  }

  #turnsAt(origin: string): Turns {
    const known = this.#turns.get(origin)
    if (known) return known
    const turns = new Turns(this.#options.connections)
    this.#turns.set(origin, turns)
    return turns
  }

  async close(): Promise<void> {
    await Promise.all([this.#named.destroy(), this.#public.destroy()])
  }
}

/** Lets so many have a turn at once; the others get theirs in the order in which they came. */
class Turns {
  #free: number
  readonly #waiting = new Set<() => void>()

  constructor(count: number) {
    this.#free = count
  }

  /** @throws the signal's reason */
  async take(signal: AbortSignal): Promise<void> {
    if (this.#free > 0) this.#free--
    else await this.#turn(signal)
    if (!signal.aborted) return
    this.giveBack()
    throw signal.reason
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(onTurn)
        reject(signal.reason)
      }
      const onTurn = () => {
        signal.removeEventListener('abort', onAbort)
        resolve()
      }
      signal.addEventListener('abort', onAbort, { once: true })
      this.#waiting.add(onTurn)
    })
  }

  giveBack(): void {
    const [next] = this.#waiting
    if (next) {
      this.#waiting.delete(next)
      next()
    } else this.#free++
  }
}

export interface Response {
  readonly status: number
  readonly headers: Headers
  /** A header's value; the first if it came more than once. */
  header(name: string): string | undefined
  /**
   * Gives the body to `sink`, piece by piece; where it returns a promise, the rest waits for it. A piece must not be
   * used after the call: its memory takes the next bytes.
   */
  pipe(sink: (bytes: Uint8Array) => Promise<void> | undefined): Promise<void>
  /** The whole body. @throws SourceError `broken` if it has more than `limit` bytes */
  bytes(limit: number): Promise<Buffer>
  /** Reads on to the end if that is near, so that the connection can be used again, else ends it. */
  discard(): void
  abort(reason?: unknown): void
}

class Exchange implements Response, Dispatcher.DispatchHandler {
  status = 0
  headers: Headers = {}
  readonly #method: 'GET' | 'HEAD'
  readonly #url: URL
  readonly #bodyTimeout: number
  readonly #started = Promise.withResolvers<Response>()
  readonly #ended = Promise.withResolvers<void>()
  #controller: Dispatcher.DispatchController | undefined
  #aborted: unknown
  #sink: ((bytes: Uint8Array) => Promise<void> | undefined) | undefined

  constructor(method: 'GET' | 'HEAD', url: URL, bodyTimeout: number) {
    this.#method = method
    this.#url = url
    this.#bodyTimeout = bodyTimeout
    this.#started.promise.catch(() => {})
    this.#ended.promise.catch(() => {})
  }

  get started(): Promise<Response> {
    return this.#started.promise
  }

  get ended(): Promise<void> {
    return this.#ended.promise
  }

  header(name: string): string | undefined {
    const value = this.headers[name]
    return Array.isArray(value) ? value[0] : value
  }

  pipe(sink: (bytes: Uint8Array) => Promise<void> | undefined): Promise<void> {
    this.#sink = sink
    this.#controller?.resume()
    return this.#ended.promise
  }

  async bytes(limit: number): Promise<Buffer> {
    const pieces: Uint8Array[] = []
    let length = 0
    // One that comes byte by byte is never silent.
    const timer = setTimeout(() => this.abort(timedOut(this.#url)), this.#bodyTimeout)
    try {
      await this.pipe(piece => {
        length += piece.length
        if (length > limit) throw new SourceError('broken', `${this.#url.host} answers with more than ${limit} bytes`)
        // The piece is there for the length of this call only.
        pieces.push(Buffer.from(piece))
        return undefined
      })
    } finally {
      clearTimeout(timer)
    }
    return Buffer.concat(pieces)
  }

  discard(): void {
    let left = 64 * 1024
    this.pipe(({ length }) => {
      left -= length
      if (left < 0) this.abort()
      return undefined
    }).catch(() => {})
  }

  abort(reason: unknown = new SourceError('revoked', 'no longer needed')): void {
    this.#aborted ??= reason
    const error = reason instanceof Error ? reason : new Error(String(reason))
    if (this.#controller) this.#controller.abort(error)
    else this.#fail(error)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#aborted !== undefined) this.abort(this.#aborted)
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, headers: Headers): void {
    // 103 and its like come before the answer.
    if (status < 200) return
    this.status = status
    this.headers = headers
    if (this.#method !== 'HEAD') controller.pause()
    this.#started.resolve(this)
  }

  onResponseData(controller: Dispatcher.DispatchController, bytes: Uint8Array): void {
    let written: Promise<void> | undefined
    try {
      written = this.#sink?.(bytes)
    } catch (error) {
      this.abort(error)
      return
    }
    if (!written) return
    controller.pause()
    written.then(
      () => controller.resume(),
      error => this.abort(error),
    )
  }

  onResponseEnd(): void {
    this.#ended.resolve()
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    this.#fail(error)
  }

  #fail(error: Error): void {
    const failure = this.#aborted !== undefined ? error : sourceError(error, this.#url, this.status !== 0)
    this.#started.reject(failure)
    this.#ended.reject(failure)
  }
}

function timedOut(url: URL): SourceError {
  return new SourceError('timeout', `${url.host} did not answer in time`)
}

const unreachable = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENETDOWN',
  'EHOSTDOWN',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EAI_FAIL',
  'EADDRNOTAVAIL',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
])

/** What undici's and Node's errors mean for the choice of a source. */
function sourceError(error: Error, url: URL, answered: boolean): SourceError {
  if (error instanceof SourceError) return error
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  if (code === 'UND_ERR_BODY_TIMEOUT') return new SourceError('timeout', `${url.host} fell silent`, { cause: error })
  if (unreachable.has(code) || (error instanceof AggregateError && !answered))
    return new SourceError('unreachable', `${url.host} cannot be reached (${code || error.message})`, { cause: error })
  const what = answered ? 'broke off' : 'did not answer as it should'
  return new SourceError('broken', `${url.host} ${what} (${code || error.name}: ${error.message})`, { cause: error })
}

type Lookup = (hostname: string) => Promise<LookupAddress[]>

/** One question at a time for each name: a resolver that does not answer must not take all of Node's few threads. */
function singleLookup(): Lookup {
  const running = new Map<string, Promise<LookupAddress[]>>()
  return hostname => {
    const known = running.get(hostname)
    if (known) return known
    const lookup = dns.lookup(hostname, { all: true }).finally(() => running.delete(hostname))
    running.set(hostname, lookup)
    return lookup
  }
}

function publicOnly(lookup: Lookup): Lookup {
  return async hostname => {
    const addresses = (await lookup(hostname)).filter(({ address }) => isPublicAddress(address))
    if (addresses.length === 0)
      throw new SourceError('broken', `an answer leads to ${hostname}, which is refused: its address is not public`)
    return addresses
  }
}

function asLookupFunction(lookup: Lookup): LookupFunction {
  return (hostname, { all, family }, callback) => {
    lookup(hostname).then(
      found => {
        const addresses = found.filter(address => !family || address.family === family)
        const [first] = addresses
        if (all && first) callback(null, addresses)
        else if (first) callback(null, first.address, first.family)
        else callback(Object.assign(new Error(`${hostname} has no such address`), { code: 'ENOTFOUND' }), '')
      },
      error => callback(error, ''),
    )
  }
}

function agent(options: TransportOptions, lookup: Lookup): Dispatcher {
  const { ca, connectTimeout, env } = options
  const tls = { ...(ca !== undefined && { ca: [...getCACertificates(), ca] }), timeout: connectTimeout, allowH2: false }
  const connect = { ...tls, lookup: asLookupFunction(lookup) }
  const agentOptions: Agent.Options = {
    allowH2: false,
    pipelining: 1,
    keepAliveTimeout,
    keepAliveMaxTimeout: keepAliveTimeout,
    connect,
  }
  const httpProxy = env['http_proxy'] ?? env['HTTP_PROXY']
  const httpsProxy = env['https_proxy'] ?? env['HTTPS_PROXY']
  if (!httpProxy && !httpsProxy) return new Agent({ ...agentOptions, connect: reusingConnector(connect) })
  return new EnvHttpProxyAgent({
    ...agentOptions,
    requestTls: tls,
    httpProxy: httpProxy ?? '',
    httpsProxy: httpsProxy ?? '',
    noProxy: env['no_proxy'] ?? env['NO_PROXY'] ?? '',
  })
}
