import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { Exchange } from './exchange.ts'
import type { Fault, Intercept } from './fault.ts'
import type { Log, ServerName } from './log.ts'

export type Tls = { key: string; cert: string }
export type Handler = (exchange: Exchange) => Promise<void>
export type EndpointOptions = {
  name: ServerName
  log: Log
  handler: Handler
  /** Asked about each request, before anything else. */
  intercept: Intercept
  /** Where it listens, and what its URL names. @default '127.0.0.1' */
  address?: string | undefined
  /** 0: any that is free. */
  port?: number | undefined
  tls?: Tls | undefined
}

/** A server that logs its requests, applies faults, and can go down and come up again on its port. */
export class Endpoint {
  readonly url: string
  readonly #server: Server
  readonly #sockets: Set<Socket>
  readonly #address: AddressInfo

  static async open(options: EndpointOptions): Promise<Endpoint> {
    const serve = (request: IncomingMessage, response: ServerResponse) => void answer(options, request, response)
    const server = options.tls ? createTlsServer(options.tls, serve) : createServer(serve)
    // Longer than any client's, so that no client sends a request into a connection that is just being closed.
    server.keepAliveTimeout = 120_000
    const sockets = new Set<Socket>()
    server.on('connection', socket => {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
    })
    const { address = '127.0.0.1', port = 0 } = options
    server.listen(port, address)
    await once(server, 'listening')
    return new Endpoint(server, sockets, `${options.tls ? 'https' : 'http'}://${address}`)
  }

  private constructor(server: Server, sockets: Set<Socket>, origin: string) {
    this.#server = server
    this.#sockets = sockets
    this.#address = server.address() as AddressInfo
    this.url = `${origin}:${this.#address.port}`
  }

  /** Closes the port and every connection. */
  async down(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  /** Listens again, on the same port. */
  async up(): Promise<void> {
    if (this.#server.listening) return
    this.#server.listen(this.#address.port, this.#address.address)
    await once(this.#server, 'listening')
  }
}

async function answer(options: EndpointOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { log, name } = options
  const entry = {
    time: Date.now(),
    server: name,
    client: request.socket.remoteAddress ?? '',
    method: request.method ?? '',
    path: request.url ?? '',
    headers: request.headers,
    status: 0,
    bytes: 0,
    user: 'anonymous',
    range: request.headers.range,
    userAgent: request.headers['user-agent'],
    finished: false,
    closed: false,
  }
  const gone = new AbortController()
  response.once('finish', () => {
    entry.finished = true
  })
  // A write into a connection that is just going; 'close' tells the rest.
  response.on('error', () => {})
  const closed = new Promise<void>(resolve => response.once('close', resolve)).then(() => gone.abort())
  log.open(entry)
  await respond(options, { request, response, entry, signal: gone.signal })
  await closed
  log.close(entry)
}

async function respond(
  { name, handler, intercept }: EndpointOptions,
  { request, response, entry, signal }: Pick<Exchange, 'request' | 'response' | 'entry' | 'signal'>,
): Promise<void> {
  try {
    const fault = intercept(entry)
    if (fault?.kind === 'hang') return
    if (fault?.kind === 'reset') return void response.destroy()
    if (fault?.kind === 'delay') await setTimeout(fault.ms, undefined, { signal })
    const exchange = new Exchange(request, response, { entry, fault, signal })
    await (fault ? sendFault(exchange, fault, handler) : handler(exchange))
  } catch (error) {
    if (signal.aborted) return
    process.stderr.write(`${name}: ${entry.method} ${entry.path}: ${error instanceof Error ? error.stack : error}\n`)
    response.destroy()
  }
}

/** Answers as a fault has it, or, if it is one of the body, as the handler does. */
async function sendFault(exchange: Exchange, fault: Fault, handler: Handler): Promise<void> {
  const reason = 'a fault made for a test'
  switch (fault.kind) {
    case 'status':
      return exchange.sendError(
        fault.status,
        fault.status === 429 ? 'TOOMANYREQUESTS' : 'UNKNOWN',
        reason,
        fault.headers,
      )
    case 'challenge': {
      const challenge = `Bearer realm="${fault.realm}",service="registry.docker.io",error="invalid_token"`
      return exchange.sendError(401, 'UNAUTHORIZED', reason, { 'www-authenticate': challenge })
    }
    case 'redirect':
      return exchange.send(307, { location: fault.to ?? exchange.entry.path })
    case 'portal':
      if (fault.login !== undefined) return exchange.send(302, { location: fault.login })
      return exchange.sendPage('<!doctype html><title>Welcome</title><p>Log in to use this network.</p>\n')
    default:
      return handler(exchange)
  }
}
