import type { OutgoingHttpHeaders } from 'node:http'
import { Cdn } from './cdn.ts'
import { Endpoint, type Handler, type Tls } from './endpoint.ts'
import type { Exchange } from './exchange.ts'
import type { Intercept } from './fault.ts'
import type { Images } from './images.ts'
import type { Entry, Log, ServerName } from './log.ts'
import { isRead, parseRoute, sendManifest, sendReferrers, sendTags, version } from './registry.ts'
import { type Grant, Tokens } from './tokens.ts'

const service = 'registry.docker.io'

/** How many manifests may be got in 6 hours, and how many are left; `retryAfter` in seconds, by default 60. */
export type RateLimit = { limit: number; remaining: number; retryAfter?: number }

export type HubOptions = {
  images: Images
  log: Log
  tls?: Tls | undefined
  address?: string | undefined
  port?: number | undefined
  tokenPort?: number | undefined
  cdnPort?: number | undefined
  /** Name → password. */
  users: Map<string, string>
}

/** Docker Hub: registry-1.docker.io, auth.docker.io, and the CDN that blobs come from. */
export class Hub {
  /** Of this machine's address, for those who haven't logged in. @default 100 of 100 */
  rateLimit: RateLimit = { limit: 100, remaining: 100 }
  /** Of those who have logged in, all together. @default 200 of 200 */
  accountRateLimit: RateLimit = { limit: 200, remaining: 200 }
  /** Hears of requests to all three servers. */
  intercept: Intercept | undefined
  readonly #images: Images
  readonly #tokens: Tokens
  readonly #cdn: Cdn
  #endpoints: { hub: Endpoint; token: Endpoint; cdn: Endpoint } | undefined

  static async open(options: HubOptions): Promise<Hub> {
    const hub = new Hub(options)
    const { log, tls, address } = options
    const shared = { log, tls, address, intercept: (request: Entry) => hub.intercept?.(request) }
    await using opened = new AsyncDisposableStack()
    const listen = async (name: ServerName, port: number | undefined, handler: Handler) => {
      const endpoint = await Endpoint.open({ ...shared, name, port, handler })
      opened.defer(() => endpoint.down())
      return endpoint
    }
    hub.#endpoints = {
      hub: await listen('hub', options.port, exchange => hub.#handle(exchange)),
      token: await listen('token', options.tokenPort, exchange => hub.#tokens.handle(exchange)),
      cdn: await listen('cdn', options.cdnPort, exchange => hub.#cdn.handle(exchange)),
    }
    opened.move()
    return hub
  }

  private constructor({ images, users }: HubOptions) {
    this.#images = images
    this.#tokens = new Tokens(images, users)
    this.#cdn = new Cdn(images)
  }

  /** Of the registry, without a path: `http://127.0.0.1:40001`. */
  get url(): string {
    return this.#open.hub.url
  }

  /** Of the token service; the realm is `/token` there. */
  get tokenUrl(): string {
    return this.#open.token.url
  }

  get cdnUrl(): string {
    return this.#open.cdn.url
  }

  /** Name → password of those who may log in. */
  get users(): Map<string, string> {
    return this.#tokens.users
  }

  /** How long a new token holds, in seconds. @default 300 */
  get tokenTtl(): number {
    return this.#tokens.ttl
  }

  set tokenTtl(seconds: number) {
    this.#tokens.ttl = seconds
  }

  /** Every token given out so far is void: `invalid_token`. */
  expireTokens(): void {
    this.#tokens.expire()
  }

  /** Every address at the CDN given out so far is void: 403. */
  expireUrls(): void {
    this.#cdn.expire()
  }

  /** Closes all three ports, or one server's, and every connection. */
  async down(server?: 'hub' | 'token' | 'cdn'): Promise<void> {
    const closing = server ? [this.#open[server]] : Object.values(this.#open)
    await Promise.all(closing.map(endpoint => endpoint.down()))
  }

  async up(): Promise<void> {
    await Promise.all(Object.values(this.#open).map(endpoint => endpoint.up()))
  }

  get #open() {
    if (!this.#endpoints) throw new Error('the hub is not open')
    return this.#endpoints
  }

  async #handle(exchange: Exchange): Promise<void> {
    Object.assign(exchange.headers, version)
    const route = parseRoute(exchange.url.pathname)
    if (!route) return exchange.sendError(404, 'NOT_FOUND', 'page not found')
    const [, token] = /^bearer (.+)$/i.exec(exchange.request.headers.authorization ?? '') ?? []
    const grant = token === undefined ? undefined : this.#tokens.check(token)
    exchange.entry.user = grant?.user ?? 'anonymous'

    // A repository that doesn't exist is in no grant: Docker Hub doesn't tell it from a private one.
    if (route.kind === 'ping' ? !grant : !grant?.repositories.has(route.repository)) {
      const scope = route.kind === 'ping' ? '' : `,scope="repository:${route.repository}:pull"`
      const error = token === undefined ? '' : `,error="${grant ? 'insufficient_scope' : 'invalid_token'}"`
      const challenge = `Bearer realm="${this.tokenUrl}/token",service="${service}"${scope}${error}`
      return exchange.sendError(401, 'UNAUTHORIZED', 'authentication required', { 'www-authenticate': challenge })
    }
    if (!isRead(exchange)) return exchange.sendError(405, 'UNSUPPORTED', 'The operation is unsupported.')
    if (route.kind === 'ping') return exchange.sendJson(200, {}, {})

    const repository = this.#images.repositories.get(route.repository)
    if (!repository || !grant) return exchange.sendError(404, 'NAME_UNKNOWN', 'repository name not known to registry')
    switch (route.kind) {
      case 'manifests': {
        const { allowed, headers } = this.#count(exchange, grant)
        if (!allowed) {
          return exchange.sendError(429, 'TOOMANYREQUESTS', 'You have reached your pull rate limit.', headers)
        }
        const digest = repository.tags.get(route.reference) ?? route.reference
        return sendManifest(exchange, repository.manifests.get(digest), headers)
      }
      case 'blobs': {
        const content = repository.blobs.get(route.reference)
        if (!content) return exchange.sendError(404, 'BLOB_UNKNOWN', 'blob unknown to registry')
        return exchange.send(307, { location: this.cdnUrl + this.#cdn.sign(content) })
      }
      case 'tags':
        return sendTags(exchange, route.repository, repository.tags.keys())
      case 'referrers':
        return sendReferrers(exchange, repository.referrers.get(route.reference) ?? [])
    }
  }

  /** Counts a GET of a manifest, never a HEAD (docs.docker.com, "Docker Hub pull usage and limits"). */
  #count(exchange: Exchange, { user }: Grant): { allowed: boolean; headers: OutgoingHttpHeaders } {
    const anonymous = user === 'anonymous'
    const rate = anonymous ? this.rateLimit : this.accountRateLimit
    const counts = exchange.entry.method === 'GET'
    const allowed = !counts || rate.remaining > 0
    if (counts && allowed) rate.remaining--
    const headers = {
      'ratelimit-limit': `${rate.limit};w=21600`,
      'ratelimit-remaining': `${rate.remaining};w=21600`,
      'docker-ratelimit-source': anonymous ? (exchange.request.socket.remoteAddress ?? '') : user,
      ...(allowed ? {} : { 'retry-after': String(rate.retryAfter ?? 60) }),
    }
    return { allowed, headers }
  }
}
