import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isOwnHost } from '@shoal/mirror/client-rules'
import { listen } from '@shoal/mirror/listen'

/** What the admin side answers with. */
export type AdminOptions = {
  readonly ready: () => boolean
  readonly metrics: () => Promise<{ contentType: string; body: string }>
  /** GET /api/v1/NAME answers with what the function of that name gives, as JSON. */
  readonly api: Readonly<Record<string, () => unknown>>
}

/** The admin side: health, metrics, and the API that the other commands speak to. */
export class AdminServer {
  readonly #options: AdminOptions
  readonly #server: Server

  constructor(options: AdminOptions) {
    this.#options = options
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch(error => {
        if (response.headersSent) response.destroy()
        else send(response, 500, { error: error instanceof Error ? error.message : String(error) })
      })
    })
  }

  /** @throws the system's error, such as EADDRINUSE */
  listen(host: string, port: number): Promise<AddressInfo> {
    return listen(this.#server, host, port)
  }

  async close(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { host, origin, 'sec-fetch-site': site } = request.headers
    if (!isOwnHost(host) || (origin !== undefined && !isSameOrigin(origin, host)) || site === 'cross-site')
      return send(response, 421, { error: 'the admin side answers this machine, under its own names' })
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return send(response, 405, { error: 'only GET and HEAD' }, { allow: 'GET, HEAD' })
    const { ready, metrics, api } = this.#options
    const path = (request.url ?? '/').split('?', 1)[0] ?? '/'
    if (path === '/healthz') return send(response, 200, { status: 'ok' })
    if (path === '/readyz')
      return ready() ? send(response, 200, { status: 'ready' }) : send(response, 503, { status: 'starting' })
    if (path === '/metrics') {
      const { contentType, body } = await metrics()
      response.writeHead(200, { 'content-type': contentType })
      response.end(body)
      return
    }
    const name = /^\/api\/v1\/([a-z]+)$/.exec(path)?.[1]
    const answer = name !== undefined && Object.hasOwn(api, name) ? api[name] : undefined
    if (!answer) return send(response, 404, { error: `there is nothing at ${path.slice(0, 200)}` })
    send(response, 200, await answer())
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
