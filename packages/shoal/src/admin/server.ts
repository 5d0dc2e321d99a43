import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isOwnHost } from '@shoal/mirror/client-rules'
import { listen } from '@shoal/mirror/listen'
import type { Secret } from './secret.ts'

/**
 * Something that changes what the daemon has, and tells how it goes.
 * @param accept begins the answer, and gives what sends one value of it as a line of JSON; before that, an error is the
 *   answer
 * @param signal aborts when the client has left, or the daemon stops
 * @param input the JSON that was sent with the request; undefined if nothing was
 */
export type Action = (
  accept: () => (line: unknown) => Promise<void>,
  signal: AbortSignal,
  input: unknown,
) => Promise<void>

/** Thrown by an {@link Action} for input that it cannot use. */
export class InputError extends Error {
  readonly code = 'INPUT'
}

/** Thrown by an {@link Action} that cannot be done now: because of another, or as things are. */
export class ConflictError extends Error {
  readonly code = 'CONFLICT'
}

/** What the admin side answers with. */
export type AdminOptions = {
  readonly ready: () => boolean
  /** What `/healthz` tells beside that the process answers. */
  readonly health: () => Readonly<Record<string, unknown>>
  readonly metrics: () => Promise<{ contentType: string; body: string }>
  /** GET /api/v1/NAME answers with what the function of that name gives, as JSON. */
  readonly api: Readonly<Record<string, () => unknown>>
  /** POST /api/v1/NAME does what the function of that name does, for those who bear the secret. */
  readonly actions: Readonly<Record<string, Action>>
  readonly secret: Secret
}

/** How long a request may take to come, in ms, and how often that is looked at. */
const times = { headersTimeout: 10_000, requestTimeout: 10_000, connectionsCheckingInterval: 2000 }

/** How long a connection may stand still while it is answered, in ms. */
const patience = 120_000

/** What may be sent with a request, in bytes. */
const inputLimit = 4096

/** More than the commands, a dashboard and what collects metrics need. */
const mostConnections = 64

/** The admin side: health, metrics, and the API that the other commands speak to. */
export class AdminServer {
  readonly #options: AdminOptions
  readonly #server: Server
  readonly #running = new Set<Promise<void>>()

  constructor(options: AdminOptions) {
    this.#options = options
    this.#server = createServer(times, (request, response) => {
      response.setTimeout(patience, () => response.destroy())
      this.#serve(request, response).catch(error => {
        if (response.headersSent) response.destroy()
        else if (error instanceof ConflictError) send(response, 409, { error: error.message })
        else if (error instanceof InputError) send(response, 400, { error: error.message })
        else send(response, 500, { error: error instanceof Error ? error.message : String(error) })
      })
    })
    this.#server.maxConnections = mostConnections
  }

  /** @throws the system's error, such as EADDRINUSE */
  listen(host: string, port: number): Promise<AddressInfo> {
    return listen(this.#server, host, port)
  }

  async close(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
    await Promise.allSettled(this.#running)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { host, origin, 'sec-fetch-site': site } = request.headers
    if (!isOwnHost(host) || (origin !== undefined && !isSameOrigin(origin, host)) || site === 'cross-site')
      return send(response, 421, { error: 'the admin side answers this machine, under its own names' })
    const { ready, metrics, api, actions } = this.#options
    const path = (request.url ?? '/').split('?', 1)[0] ?? '/'
    const name = /^\/api\/v1\/([a-z]+)$/.exec(path)?.[1]
    const action = name !== undefined && Object.hasOwn(actions, name) ? actions[name] : undefined
    if (action) return this.#act(request, response, action)
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return send(response, 405, { error: 'only GET and HEAD' }, { allow: 'GET, HEAD' })
    if (path === '/healthz') return send(response, 200, { status: 'ok', ...this.#options.health() })
    if (path === '/readyz')
      return ready() ? send(response, 200, { status: 'ready' }) : send(response, 503, { status: 'starting' })
    if (path === '/metrics') {
      const { contentType, body } = await metrics()
      response.writeHead(200, { 'content-type': contentType })
      response.end(body)
      return
    }
    const answer = name !== undefined && Object.hasOwn(api, name) ? api[name] : undefined
    if (!answer) return send(response, 404, { error: `there is nothing at ${path.slice(0, 200)}` })
    send(response, 200, await answer())
  }

  async #act(request: IncomingMessage, response: ServerResponse, action: Action): Promise<void> {
    if (request.method !== 'POST') return send(response, 405, { error: 'only POST' }, { allow: 'POST' })
    if (!this.#options.secret.admits(request.headers.authorization)) {
      const error = 'this needs "Authorization: Bearer SECRET", with the secret of admin.token in the data folder'
      return send(response, 401, { error }, { 'www-authenticate': 'Bearer realm="shoal"' })
    }
    const left = new AbortController()
    response.once('close', () => left.abort(new Error('the client has left')))
    const { signal } = left
    const input = await inputOf(request)
    const accept = () => {
      response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
      response.flushHeaders()
      return async (line: unknown) => {
        signal.throwIfAborted()
        if (!response.write(`${JSON.stringify(line)}\n`)) await once(response, 'drain', { signal })
      }
    }
    const running = action(accept, signal, input)
    this.#running.add(running)
    try {
      await running
      response.end()
    } finally {
      this.#running.delete(running)
    }
  }
}

/** @throws InputError */
async function inputOf(request: IncomingMessage): Promise<unknown> {
  const pieces: Buffer[] = []
  let length = 0
  for await (const piece of request) {
    length += piece.length
    // The rest is read, or there would be no answer.
    if (length <= inputLimit) pieces.push(piece)
  }
  if (length === 0) return undefined
  if (length > inputLimit) throw new InputError(`expected at most ${inputLimit} bytes`)
  try {
    return JSON.parse(Buffer.concat(pieces).toString())
  } catch (cause) {
    throw new InputError('expected JSON', { cause })
  }
}

/** Whether a page was loaded from here: another port of this machine is another's. */
function isSameOrigin(origin: string, host: string | undefined): boolean {
  return URL.canParse(origin) && new URL(origin).host === host
}

function send(response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers })
  response.end(`${JSON.stringify(body)}\n`)
}
