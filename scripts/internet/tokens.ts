import { randomBytes } from 'node:crypto'
import type { Exchange } from './exchange.ts'
import type { Images } from './images.ts'

/** What a token allows. */
export type Grant = { user: string; repositories: Set<string>; expires: number }

/** The token service of Docker Hub (distribution documentation, "Token Authentication" and "OAuth2"). */
export class Tokens {
  /** How long a token holds, in seconds. @default 300 */
  ttl = 300
  /** Name → password. */
  readonly users: Map<string, string>
  readonly #images: Images
  readonly #grants = new Map<string, Grant>()

  constructor(images: Images, users: Map<string, string>) {
    this.#images = images
    this.users = users
  }

  /** The grant of a token that holds. */
  check(token: string): Grant | undefined {
    const grant = this.#grants.get(token)
    return grant && grant.expires > Date.now() ? grant : undefined
  }

  /** Every token that was given out is void from now on. */
  expire(): void {
    this.#grants.clear()
  }

  /** `GET` with basic authentication or none, or `POST` of a form with `grant_type=password`. */
  async handle(exchange: Exchange): Promise<void> {
    const { request, url, entry } = exchange
    if (url.pathname !== '/token') return exchange.sendJson(404, {}, { details: 'not found' })
    const form = request.method === 'POST' ? new URLSearchParams(await text(exchange)) : undefined
    const login = form
      ? { user: form.get('username'), password: form.get('password') }
      : basic(request.headers.authorization)
    if (login) {
      if (!login.user || login.password === null || this.users.get(login.user) !== login.password) {
        return exchange.sendJson(401, {}, { details: 'incorrect username or password' })
      }
      entry.user = login.user
    }
    const scopes = (form ?? url.searchParams).getAll('scope').flatMap(scope => scope.split(' '))
    const repositories = new Set(scopes.flatMap(scope => this.#allowed(scope, entry.user)))
    const token = randomBytes(48).toString('base64url')
    const now = Date.now()
    this.#grants.set(token, { user: entry.user, repositories, expires: now + this.ttl * 1000 })
    const validity = { expires_in: this.ttl, issued_at: new Date(now).toISOString() }
    await exchange.sendJson(200, {}, { token, access_token: token, ...validity })
  }

  /** As Docker Hub does, a scope that isn't allowed is left out in silence. */
  #allowed(scope: string, user: string): string[] {
    const [, name = '', actions = ''] = /^repository:([^:]+):([a-z,*]+)$/.exec(scope) ?? []
    const repository = this.#images.repositories.get(name)
    if (!repository || !actions.split(',').includes('pull')) return []
    return repository.private && user === 'anonymous' ? [] : [name]
  }
}

function basic(authorization: string | undefined): { user: string; password: string | null } | undefined {
  const [, encoded] = /^basic (.*)$/i.exec(authorization ?? '') ?? []
  if (encoded === undefined) return undefined
  const [user = '', ...rest] = Buffer.from(encoded, 'base64').toString().split(':')
  return { user, password: rest.length > 0 ? rest.join(':') : null }
}

async function text({ request }: Exchange): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part)
  return Buffer.concat(parts).toString()
}
