import { setTimeout as sleep } from 'node:timers/promises'
import { type ByteRange, formatRange } from '@shoal/oci/byte-range'
import { type Digest, isDigest } from '@shoal/oci/digest'
import type { Descriptor } from '@shoal/oci/manifest'
import { manifestLimit } from '@shoal/oci/manifest'
import { acceptManifests, essence, isManifestType } from '@shoal/oci/media-type'
import type { Name } from '@shoal/oci/name'
import type { Visibility } from '@shoal/store/index'
import { type Offer, rangeOf, type Source, SourceError, type Want } from '@shoal/store/source'
import type { AddressPolicy } from './address-policy.ts'
import { Breaker } from './breaker.ts'
import { BufferedOffer, contentLength, HttpOffer } from './offer.ts'
import { type Allowance, allowanceOf, parseRateLimit, parseRetryAfter, type RateLimit } from './rate-limit.ts'
import { isRedirect, redirectTarget } from './redirect.ts'
import { type Credentials, parseChallenge, Tokens } from './token.ts'
import type { Response, Transport } from './transport.ts'

const mostRedirects = 5

/** How long a rate limit is taken to hold if the registry does not say, in ms. */
const defaultLimitPause = 30_000

/** How often in a minute it is asked how much is left of its limit, because peers know something else. */
const mostLooks = 4

/** How long such a question may take, in ms. */
const lookTime = 10_000

/** Listings (tags, referrers) that are passed on, in bytes at most. */
const listingLimit = 8 * 1024 * 1024

export type EndpointOptions = {
  readonly url: URL
  readonly transport: Transport
  readonly policy: AddressPolicy
  readonly credentials: Credentials | undefined
  /** Whether no other is asked after it. One that is not the last is given less patience. */
  readonly last: boolean
  readonly userAgent: string
  /** Told of each answer, or of each request that had none (`code` is then a {@link SourceError}'s). */
  readonly onRequest: (request: { method: string; code: string }) => void
  /** Told what it says of its limit of pulls, with each answer that says so. @default nobody is */
  readonly onRateLimit?: (rateLimit: RateLimit) => void
  readonly now: () => number
  readonly random: () => number
}

/** A tag as a registry has it. */
export type Tagged = { readonly descriptor: Descriptor; readonly visibility: Visibility }

export type ListingAnswer = {
  readonly body: string
  readonly link?: string
  readonly filters?: string
}

type Ask = {
  readonly method: 'GET' | 'HEAD'
  readonly path: string
  readonly name: Name
  readonly headers?: Readonly<Record<string, string>>
  /** Whether Docker Hub counts it: a GET of a manifest. */
  readonly counted?: boolean
  /** Whether the answer may be long: a GET of a blob. */
  readonly bulk?: boolean
  /** Whether no credentials may be used, and the answer is not to count for anything else. */
  readonly anonymous?: boolean
  readonly signal: AbortSignal
}

/** One server that answers for a registry. */
export class Endpoint implements Source {
  readonly url: URL
  /** One for what is answered at once, and one for blobs: a server may answer, and then give no bytes. */
  readonly #circuits: { readonly questions: Breaker; readonly blobs: Breaker }
  readonly #options: EndpointOptions
  readonly #tokens: Tokens
  /** Got without credentials, though there are some. */
  readonly #anonymousTokens: Tokens
  #rateLimit: RateLimit | undefined
  /** What was asked for when it last told its limit: of content that it does not count, it tells none. */
  #limitTold: Ask | undefined
  /** What a peer that it counts together with this machine was told last. */
  #heard: RateLimit | undefined
  /** When it was asked because of what a peer was told, in ms. */
  readonly #looks: number[] = []
  #limitedUntil = 0
  #requests = 0
  #answers = 0
  #silent = false
  #errors = 0

  constructor(options: EndpointOptions) {
    this.#options = options
    this.#tokens = new Tokens(options.url, options)
    this.#anonymousTokens = new Tokens(options.url, { ...options, credentials: undefined })
    const breaker = () => new Breaker(options.now, options.random)
    this.#circuits = { questions: breaker(), blobs: breaker() }
    this.url = options.url
  }

  /** The host, for logs and `Cache-Status`; with the port where it is not the scheme's. */
  get label(): string {
    return this.url.host
  }

  /**
   * What it was asked and said so far. `limitedUntil` in ms since the epoch; in the past if there is no limit. `heard`: of
   * its rate limit, from a peer, if that is newer than what it said itself.
   */
  get state() {
    const { questions, blobs } = this.#circuits
    const states = [questions.state, blobs.state]
    const circuit = (['open', 'half-open'] as const).find(state => states.includes(state)) ?? ('closed' as const)
    const spent = circuit === 'closed' && this.allowance === 'spent'
    return {
      state: this.#options.now() < this.#limitedUntil || spent ? ('limited' as const) : circuit,
      requests: this.#requests,
      errors: this.#errors,
      rateLimit: this.#rateLimit,
      heard: this.#newlyHeard,
      limitedUntil: this.#limitedUntil,
    }
  }

  /** What is left of its limit of pulls, as it said itself. */
  get allowance(): Allowance {
    return allowanceOf(this.#rateLimit, this.#options.now())
  }

  /**
   * Hears what a peer that it counts together with this machine was told of the limit. Peers may lie, and what the endpoint
   * says costs nothing to hear: a peer's word is never more than a reason to ask.
   */
  hear(rateLimit: RateLimit): void {
    const { now } = this.#options
    if (rateLimit.at <= (this.#rateLimit?.at ?? 0)) return
    if (rateLimit.at > (this.#heard?.at ?? 0)) this.#heard = rateLimit
    if (allowanceOf(rateLimit, now()) === this.allowance || !this.#limitTold) return
    while (this.#looks[0] !== undefined && now() - this.#looks[0] > 60_000) this.#looks.shift()
    if (this.#looks.length >= mostLooks) return
    this.#looks.push(now())
    const look = this.#ask({ ...this.#limitTold, signal: AbortSignal.timeout(lookTime) })
    // Whoever needs the answer asks anew.
    look.then(
      response => response?.discard(),
      () => {},
    )
  }

  get #newlyHeard(): RateLimit | undefined {
    return this.#heard && this.#heard.at > (this.#rateLimit?.at ?? 0) ? this.#heard : undefined
  }

  /** Requests that it has answered, however. */
  get answers(): number {
    return this.#answers
  }

  /** Whether the last request had no answer. */
  get silent(): boolean {
    return this.#silent
  }

  /** Whether it is asked with credentials. */
  get credentialed(): boolean {
    return this.#options.credentials !== undefined
  }

  /** Whether it answers as a registry does. @throws SourceError */
  async ping(signal: AbortSignal): Promise<void> {
    const { transport, url, userAgent } = this.#options
    const headers = { 'user-agent': userAgent, 'accept-encoding': 'identity' }
    const response = await transport.request({ method: 'GET', url: new URL('/v2/', url), headers, signal })
    response.discard()
    if (response.status !== 200 && response.status !== 401)
      throw new SourceError('broken', `${url.host} answers ${response.status} to GET /v2/: it is no registry`)
  }

  /**
   * Asks what a tag is, by HEAD.
   * @returns null if there is no such tag
   * @throws SourceError
   */
  async head(name: Name, reference: string, signal: AbortSignal): Promise<Tagged | null> {
    const path = `/v2/${name.repository}/manifests/${reference}`
    const response = await this.#ask({ method: 'HEAD', path, name, headers: { accept: acceptManifests }, signal })
    if (!response) return null
    response.discard()
    return { descriptor: this.#describe(reference, response), visibility: this.#visibility }
  }

  /**
   * Whether everybody may have a manifest: asks for it by HEAD, which Docker Hub does not count, and without
   * credentials. Nobody waits for the answer, so that how it goes tells nothing of how the endpoint does; nor is the
   * rate limit of the nameless the one that holds for who has credentials.
   * @throws SourceError if it could not say
   */
  async isPublic(name: Name, digest: Digest, signal: AbortSignal): Promise<boolean> {
    if (this.#circuits.questions.state !== 'closed')
      throw new SourceError('skipped', `${this.label} failed lately, and is given a rest`)
    const path = `/v2/${name.repository}/manifests/${digest}`
    const ask: Ask = { method: 'HEAD', path, name, headers: { accept: acceptManifests }, anonymous: true, signal }
    try {
      const response = this.#judge(ask, await this.#authorized(ask))
      if (!response) return false
      response.discard()
      this.#describe(digest, response)
      return true
    } catch (error) {
      if (error instanceof SourceError && error.code === 'denied') return false
      throw error
    }
  }

  /** What the answer to a HEAD of a manifest says of it. @throws SourceError `broken` */
  #describe(reference: string, response: Response): Descriptor {
    const mediaType = essence(response.header('content-type') ?? '')
    const asked = isDigest(reference) ? reference : undefined
    const digest = response.header('docker-content-digest') ?? asked ?? ''
    const size = contentLength(response)
    if (!isManifestType(mediaType)) throw this.#broken(`a manifest of type "${mediaType}"`)
    if (!isDigest(digest) || (asked !== undefined && digest !== asked))
      throw this.#broken('a HEAD of a manifest without its digest')
    if (size === undefined || size > manifestLimit) throw this.#broken('a HEAD of a manifest without its length')
    return { mediaType, digest, size }
  }

  /** A blob's size in bytes, by HEAD; null if there is no such blob. @throws SourceError */
  async sizeOf(name: Name, digest: Digest, signal: AbortSignal): Promise<number | null> {
    const path = `/v2/${name.repository}/blobs/${digest}`
    const response = await this.#ask({ method: 'HEAD', path, name, signal })
    if (!response) return null
    response.discard()
    const size = contentLength(response)
    if (size === undefined) throw this.#broken('a HEAD of a blob without its length')
    return size
  }

  /** `tags/list` or `referrers`, as it is; null for 404. @throws SourceError */
  async listing(name: Name, pathAndQuery: string, signal: AbortSignal): Promise<ListingAnswer | null> {
    const response = await this.#ask({ method: 'GET', path: `/v2/${name.repository}/${pathAndQuery}`, name, signal })
    if (!response) return null
    const body = (await response.bytes(listingLimit)).toString()
    try {
      JSON.parse(body)
    } catch {
      throw this.#broken('a listing that is not JSON')
    }
    const link = response.header('link')
    const filters = response.header('oci-filters-applied')
    return { body, ...(link !== undefined && { link }), ...(filters !== undefined && { filters }) }
  }

  async find(want: Want, signal: AbortSignal): Promise<Offer | null> {
    try {
      return await this.#find(want, signal)
    } catch (error) {
      // The rest of a blob is fetched with a Range, but a manifest comes as a whole.
      if (want.kind !== 'manifest' || !(error instanceof SourceError) || !closedEarly(error)) throw error
      return this.#find(want, signal)
    }
  }

  async #find(want: Want, signal: AbortSignal): Promise<Offer | null> {
    const { kind } = want
    const response = await this.get(want, rangeOf(want), signal)
    if (!response) return null
    const origin = { kind: 'upstream' as const, host: this.label, visibility: this.#visibility }
    try {
      if (kind === 'manifest') {
        const mediaType = essence(response.header('content-type') ?? '')
        if (!isManifestType(mediaType)) throw this.#broken(`a manifest of type "${mediaType}"`)
        return new BufferedOffer(origin, await response.bytes(manifestLimit), mediaType)
      }
      return await HttpOffer.open(this, want, origin, response, signal)
    } catch (error) {
      response.abort()
      if (kind === 'blob') this.#circuits.blobs.gaveUp()
      throw error
    }
  }

  /** Asks for content, or a range of it; null for 404. @throws SourceError */
  get(want: Want, range: ByteRange | undefined, signal: AbortSignal): Promise<Response | null> {
    const { name, digest, kind, size } = want
    const open = range && range.end === Number.MAX_SAFE_INTEGER
    return this.#ask({
      method: 'GET',
      path: `/v2/${name.repository}/${kind === 'manifest' ? 'manifests' : 'blobs'}/${digest}`,
      name,
      headers: {
        ...(kind === 'manifest' && { accept: acceptManifests }),
        ...(range && { range: formatRange(range, open ? range.end : size) }),
      },
      counted: kind === 'manifest',
      bulk: kind === 'blob',
      signal,
    })
  }

  get #visibility(): Visibility {
    return this.credentialed ? 'private' : 'public'
  }

  /** One question, and what its answer means; null for 404. */
  async #ask(ask: Ask): Promise<Response | null> {
    const { now } = this.#options
    if (ask.counted && now() < this.#limitedUntil) {
      const seconds = Math.ceil((this.#limitedUntil - now()) / 1000)
      throw new SourceError('limited', `${this.label} limits the rate of pulls for another ${seconds} s`)
    }
    if (ask.counted && this.#mayRefuse && !(await this.#grants(ask))) return null
    const circuit = ask.bulk ? this.#circuits.blobs : this.#circuits.questions
    if (!circuit.admits()) throw new SourceError('skipped', `${this.label} failed lately, and is given a rest`)
    try {
      const response = await this.#answer(ask)
      // How a blob goes is known when its body has ended.
      if (response.status < 500 && !(ask.bulk && (response.status === 200 || response.status === 206)))
        circuit.succeeded()
      return this.#judge(ask, response)
    } catch (error) {
      if (!(error instanceof SourceError) || error.code === 'revoked' || ask.signal.aborted) {
        circuit.gaveUp()
        throw error
      }
      this.#errors++
      if (error.code === 'unreachable' || error.code === 'timeout') {
        this.#silence(this.#circuits.questions)
        this.#silence(this.#circuits.blobs)
      } else if (error.code === 'failing') circuit.failed()
      else circuit.gaveUp()
      throw error
    }
  }

  /** Whether a GET that counts is likely to be refused: nothing was left, as it said itself, or as a peer has heard. */
  get #mayRefuse(): boolean {
    return this.allowance === 'spent' || allowanceOf(this.#newlyHeard, this.#options.now()) === 'spent'
  }

  /**
   * Asks by HEAD, which is not counted, whether a GET would be refused.
   * @returns false if there is nothing to be got
   * @throws SourceError `limited` if it would
   */
  async #grants(ask: Ask): Promise<boolean> {
    const response = await this.#ask({ ...ask, method: 'HEAD', counted: false })
    if (!response) return false
    response.discard()
    // Where it tells no limit, the content does not count.
    const { now } = this.#options
    if (allowanceOf(parseRateLimit(response.headers, now()), now()) !== 'spent') return true
    throw new SourceError('limited', `${this.label} limits the rate of pulls, and has none left for now`)
  }

  bodyEnded(error: SourceError | undefined): void {
    const { blobs, questions } = this.#circuits
    if (!error) {
      blobs.succeeded()
      questions.succeeded()
    } else if (error.code === 'timeout') this.#silence(blobs)
    else blobs.gaveUp()
    if (error && error.code !== 'revoked') this.#errors++
  }

  #silence(circuit: Breaker): void {
    if (this.#options.last) circuit.failed()
    else circuit.fellSilent()
  }

  /** Sends a question, once more if that is likely to help. GET and HEAD change nothing, so they can be repeated. */
  async #answer(ask: Ask): Promise<Response> {
    try {
      const response = await this.#authorized(ask)
      if (![500, 502, 503, 504].includes(response.status)) return response
      response.discard()
    } catch (error) {
      if (!(error instanceof SourceError) || ask.signal.aborted) throw error
      // A connection that was kept alive may have been closed just now, or the token service fails; where this endpoint led
      // to is silent, one connection may have been lost, and if there is no other endpoint it is worth another try.
      const again =
        error.code === 'failing' || closedEarly(error) || (error instanceof AstrayError && this.#options.last)
      if (!again) throw error
    }
    await sleep(50 + this.#options.random() * 150)
    return this.#authorized(ask)
  }

  #judge(ask: Ask, response: Response): Response | null {
    const { now } = this.#options
    const { status } = response
    if (status === 200 || status === 206) {
      const coding = response.header('content-encoding') ?? 'identity'
      if (coding === 'identity') return response
      response.abort()
      throw this.#broken(`content in the coding "${coding}", which was not asked for`)
    }
    response.discard()
    if (status === 404) return null
    if (status === 429) {
      const pause = parseRetryAfter(response.headers, now()) ?? defaultLimitPause
      if (ask.counted) this.#limitedUntil = now() + pause
      throw new SourceError('limited', `${this.label} limits the rate of pulls (429)`)
    }
    if (status === 401 || status === 403)
      throw new SourceError('denied', `${this.label} denies access to ${ask.name.repository} (${status})`)
    if (status >= 500) throw new SourceError('failing', `${this.label} fails (${status})`)
    throw this.#broken(`status ${status}`)
  }

  async #authorized(ask: Ask): Promise<Response> {
    const scope = `repository:${ask.name.repository}:pull`
    const tokens = ask.anonymous ? this.#anonymousTokens : this.#tokens
    for (let tries = 0; ; tries++) {
      const authorization = await tokens.authorization(scope, ask.signal)
      const { response, redirected } = await this.#redirected(ask, authorization)
      // What another host says is neither this one's limit nor its challenge.
      if (redirected) return response
      const rateLimit = parseRateLimit(response.headers, this.#options.now())
      if (rateLimit && !ask.anonymous) {
        this.#rateLimit = rateLimit
        if (ask.counted || ask.method === 'HEAD') this.#limitTold = { ...ask, method: 'HEAD', counted: false }
        this.#options.onRateLimit?.(rateLimit)
      }
      if (response.status !== 401 || tries > 0) return response
      const challenge = parseChallenge(response.header('www-authenticate'))
      if (!tokens.refused(challenge, scope, authorization)) return response
      response.discard()
    }
  }

  async #redirected(ask: Ask, authorization: string | undefined): Promise<{ response: Response; redirected: boolean }> {
    const { transport, userAgent } = this.#options
    const { method, signal, bulk = false, anonymous = false } = ask
    let url = new URL(ask.path, this.url)
    const plain = { ...ask.headers, 'user-agent': userAgent, 'accept-encoding': 'identity' }
    let headers: Record<string, string> = authorization === undefined ? plain : { ...plain, authorization }
    for (let hops = 0; hops <= mostRedirects; hops++) {
      const request = transport.request({ method, url, headers, signal, bulk })
      const response = await (hops === 0 ? this.#counted(method, request, anonymous) : request.catch(astray))
      if (!isRedirect(response.status)) return { response, redirected: hops > 0 }
      response.discard()
      url = redirectTarget(url, response.header('location'))
      // Credentials and tokens are for the host that asked for them.
      headers = plain
    }
    throw this.#broken(`more than ${mostRedirects} redirects`)
  }

  /** Counts a request to this endpoint itself. */
  async #counted(method: string, request: Promise<Response>, anonymous: boolean): Promise<Response> {
    const { onRequest } = this.#options
    this.#requests++
    try {
      const response = await request
      onRequest({ method, code: String(response.status) })
      this.#answers++
      this.#silent = false
      return response
    } catch (error) {
      if (error instanceof SourceError) {
        onRequest({ method, code: error.code })
        if (!anonymous && (error.code === 'unreachable' || error.code === 'timeout')) this.#silent = true
      }
      throw error
    }
  }

  #broken(what: string): SourceError {
    return new SourceError('broken', `${this.label} answers with ${what}`)
  }
}

/** Where an endpoint led to is silent, though it is well itself. */
class AstrayError extends SourceError {}

function astray(error: unknown): never {
  const silent = error instanceof SourceError && error.code === 'timeout'
  throw silent ? new AstrayError('timeout', error.message, { cause: error }) : error
}

function closedEarly({ cause }: SourceError): boolean {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  return code === 'ECONNRESET' || code === 'EPIPE' || code === 'UND_ERR_SOCKET'
}
