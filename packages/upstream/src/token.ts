import { abortable } from '@shoal/store/abortable'
import { SourceError } from '@shoal/store/source'
import type { AddressPolicy } from './address-policy.ts'
import type { Transport } from './transport.ts'

export type Credentials = { readonly username: string; readonly password: string }

/** What a registry asks for in a 401 (RFC 9110, 11.6.1; Distribution's token authentication specification). */
export type Challenge =
  | { readonly scheme: 'bearer'; readonly realm: URL; readonly service: string | undefined }
  | { readonly scheme: 'basic' }

/** How long a token is taken to live if the token service does not say, in ms (token specification: 60 seconds). */
const defaultLife = 60_000

const largestAnswer = 1024 * 1024

/** Reads a `WWW-Authenticate` header. Undefined for a scheme that Shoal does not speak. */
export function parseChallenge(header: string | undefined): Challenge | undefined {
  if (header === undefined) return undefined
  if (/^\s*basic\b/i.test(header)) return { scheme: 'basic' }
  if (!/^\s*bearer\s/i.test(header)) return undefined
  const parameters = new Map<string, string>()
  // The first of a name: another challenge may follow in the same header.
  for (const [, name, quoted, bare] of header.matchAll(/([a-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/gi))
    if (name !== undefined && !parameters.has(name.toLowerCase()))
      parameters.set(name.toLowerCase(), quoted?.replaceAll(/\\(.)/g, '$1') ?? bare ?? '')
  const realm = parameters.get('realm')
  if (realm === undefined || !URL.canParse(realm)) return undefined
  return { scheme: 'bearer', realm: new URL(realm), service: parameters.get('service') }
}

export type TokensOptions = {
  readonly transport: Transport
  readonly policy: AddressPolicy
  readonly credentials: Credentials | undefined
  readonly userAgent: string
  readonly now: () => number
}

type Token = { readonly value: string; readonly until: number }

/** Gets tokens for one endpoint, and keeps them by scope until they expire. Many who need one share one request. */
export class Tokens {
  readonly #endpoint: URL
  readonly #transport: Transport
  readonly #policy: AddressPolicy
  readonly #credentials: Credentials | undefined
  readonly #userAgent: string
  readonly #now: () => number
  readonly #tokens = new Map<string, Token>()
  readonly #requests = new Map<string, Promise<Token>>()
  #challenge: Challenge | undefined

  constructor(endpoint: URL, { transport, policy, credentials, userAgent, now }: TokensOptions) {
    this.#endpoint = endpoint
    this.#transport = transport
    this.#policy = policy
    this.#credentials = credentials
    this.#userAgent = userAgent
    this.#now = now
  }

  /**
   * The `Authorization` header for a scope; undefined as long as the endpoint has not asked for one.
   * @throws SourceError
   */
  async authorization(scope: string, signal: AbortSignal): Promise<string | undefined> {
    const challenge = this.#challenge
    if (!challenge) return undefined
    if (challenge.scheme === 'basic') return this.#credentials && basic(this.#credentials)
    const known = this.#tokens.get(scope)
    if (known && known.until > this.#now()) return `Bearer ${known.value}`
    let request = this.#requests.get(scope)
    if (!request) {
      // Not the first caller's signal: the others wait for it too. The transport's deadlines end it.
      request = this.#request(challenge, scope).finally(() => this.#requests.delete(scope))
      request.catch(() => {})
      this.#requests.set(scope, request)
    }
    return `Bearer ${(await abortable(request, signal)).value}`
  }

  /**
   * Takes a 401 to heart.
   * @param used the `Authorization` header that was refused, if there was one
   * @returns whether it is worth asking again
   */
  refused(challenge: Challenge | undefined, scope: string, used: string | undefined): boolean {
    if (!challenge) return false
    const known = this.#tokens.get(scope)
    // Another may have got a newer one in the meantime.
    if (known && used === `Bearer ${known.value}`) this.#tokens.delete(scope)
    const first = this.#challenge === undefined || used === undefined
    this.#challenge = challenge
    return challenge.scheme === 'bearer' || (first && this.#credentials !== undefined)
  }

  async #request(challenge: Challenge & { scheme: 'bearer' }, scope: string): Promise<Token> {
    const { realm, service } = challenge
    if (!this.#policy.realmBelongs(realm, this.#endpoint)) {
      // It may be a captive portal's, so the endpoint itself is asked again next time.
      this.#challenge = undefined
      throw new SourceError('broken', `${this.#endpoint.host} sends for tokens to ${realm.host}, which is not its own`)
    }
    const url = new URL(realm)
    if (service !== undefined) url.searchParams.set('service', service)
    url.searchParams.set('scope', scope)
    const headers: Record<string, string> = {
      accept: 'application/json',
      'accept-encoding': 'identity',
      'user-agent': this.#userAgent,
    }
    if (this.#credentials) {
      url.searchParams.set('account', this.#credentials.username)
      headers['authorization'] = basic(this.#credentials)
    }
    const response = await this.#transport.request({
      method: 'GET',
      url,
      headers,
      signal: new AbortController().signal,
    })
    const body = await response.bytes(largestAnswer)
    if (response.status === 401 || response.status === 403)
      throw new SourceError('denied', `${realm.host} refuses a token for ${scope} (${response.status})`)
    if (response.status === 429) throw new SourceError('limited', `${realm.host} limits the rate of tokens (429)`)
    if (response.status !== 200) throw new SourceError('failing', `${realm.host} gives no token (${response.status})`)
    return this.#read(body, scope, realm)
  }

  #read(body: Buffer, scope: string, realm: URL): Token {
    let answer: unknown
    try {
      answer = JSON.parse(body.toString())
    } catch {
      answer = undefined
    }
    const { token, access_token, expires_in } = (answer ?? {}) as Readonly<Record<string, unknown>>
    const value = token ?? access_token
    // What cannot be a header would be an error later, and in another place.
    if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value))
      throw new SourceError('broken', `${realm.host} answers with no token`)
    const life = typeof expires_in === 'number' && expires_in > 0 ? expires_in * 1000 : defaultLife
    const found = { value, until: this.#now() + life - Math.min(life / 10, 10_000) }
    for (const [key, { until }] of this.#tokens) if (until <= this.#now()) this.#tokens.delete(key)
    this.#tokens.set(scope, found)
    return found
  }
}

function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}
