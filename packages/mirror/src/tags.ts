import type { Digest } from '@shoal/oci/digest'
import { formatName, type Name } from '@shoal/oci/name'
import { abortable } from '@shoal/store/abortable'
import type { Sighting } from '@shoal/store/refs'
import type { Store } from '@shoal/store/store'
import type { Endpoint, Tagged } from '@shoal/upstream/endpoint'
import type { Registry } from '@shoal/upstream/registry'
import { notFound } from './client-rules.ts'
import { NowhereError } from './filling.ts'
import type { Publicity } from './publicity.ts'
import type { Failure, Questions } from './questions.ts'
import { soon } from './soon.ts'

/** How long a client whose image is held waits to hear whether its tag has moved, in ms. */
const checkTime = 1000

/** How long the authority may take to say what a tag is, if it is asked first, in ms. */
const authorityTime = 2000

/** How long peers may take to say what they have seen a tag to be, in ms, if upstream can be asked as well. */
const peersTime = 50

/** Before the name of a peer, where the host of an endpoint would be: no host has a space. */
const peerMark = 'peer '

/** What peers have seen tags to be. */
export type PeerTags = {
  /** What a peer has checked within the time that a tag is believed. */
  fresh(name: Name, tag: string, signal: AbortSignal): Promise<Sighting | undefined>
  /** The newest that a peer knows. */
  last(name: Name, tag: string, signal: AbortSignal): Promise<Sighting | undefined>
}

export type TagsOptions = {
  readonly store: Store
  readonly registries: ReadonlyMap<string, Registry>
  /** How long a tag is believed, in ms, and when the authority is asked. */
  readonly policy: { readonly ttl: number; readonly authority: 'after' | 'before' | 'never' }
  readonly peers: PeerTags | undefined
  /** Brings a manifest into the store. @returns whether it is there */
  readonly bring: (name: Name, digest: Digest) => Promise<boolean>
  /** The same, if peers have it. */
  readonly bringFromPeers: (name: Name, digest: Digest) => Promise<boolean>
  readonly questions: Questions
  readonly publicity: Publicity
  /** In ms since the epoch. */
  readonly now: () => number
  readonly onFailure: (what: string, error: unknown) => void
}

/** What a tag is; `stale` if that could not be checked. */
export type FoundTag = { readonly sighting: Sighting; readonly stale: boolean }

/** No sighting if nobody could say, or the authority says that there is no such tag. */
type TagCheck = { readonly sighting?: Sighting; readonly stale?: boolean; readonly failures: readonly Failure[] }

/** `soon` gives up waiting after a while. */
type TagQuestion = { readonly answer: Promise<TagCheck>; readonly soon: Promise<TagCheck> }

/**
 * What tags are: what was seen lately is believed, else peers are asked who have checked it lately, else the endpoints;
 * and if none of those can say, it is what was last known, here or to a peer.
 */
export class Tags {
  readonly #options: TagsOptions
  readonly #checks = new Map<string, TagQuestion>()
  #peerAnswers = 0

  constructor(options: TagsOptions) {
    this.#options = options
  }

  /** How often peers have known a tag, as a sign of life. */
  get peerAnswers(): number {
    return this.#peerAnswers
  }

  /** What a tag is, as far as can be told now. @throws SpecError MANIFEST_UNKNOWN */
  async find(name: Name, tag: string): Promise<FoundTag> {
    const { store, policy, now } = this.#options
    const seen = store.refs.seen(name, tag)
    const fresh = seen && Math.abs(now() - seen.at) < policy.ttl
    if (fresh) return await this.#served(name, tag, { sighting: seen, failures: [] })
    const question = this.#check(name, tag)
    if (!seen) return await this.#served(name, tag, await question.answer)
    const check = await question.soon
    if (isSure(check) || store.refs.held(name, tag)) return await this.#served(name, tag, check)
    const recalled = this.#recall(name, tag)
    recalled.catch(() => {})
    const sooner = await Promise.race([recalled, question.answer.then(() => undefined)])
    if (sooner) return { sighting: sooner, stale: true }
    const answer = await question.answer
    const later = isSure(answer) ? undefined : await recalled
    return later ? { sighting: later, stale: true } : await this.#served(name, tag, answer)
  }

  /** Has what a check brought, or what is held instead. @throws SpecError MANIFEST_UNKNOWN */
  async #served(name: Name, tag: string, { sighting, stale = false, failures }: TagCheck): Promise<FoundTag> {
    const held = this.#options.store.refs.held(name, tag)
    if (sighting && !(held && (await this.#outOfReach(name, sighting)))) return { sighting, stale }
    if (held) return { sighting: held, stale: true }
    throw notFound('MANIFEST_UNKNOWN', new NowhereError(failures))
  }

  /** What was last seen of a tag that is not held, here or by a peer, if peers have it. */
  async #recall(name: Name, tag: string): Promise<Sighting | undefined> {
    const { store, questions, bringFromPeers } = this.#options
    const seen = store.refs.seen(name, tag)
    return seen && (await questions.track(bringFromPeers(name, seen.descriptor.digest))) ? seen : undefined
  }

  /**
   * Asks what a tag is now, whatever was seen lately: the authority, or who is asked in its place if it never is.
   * @returns undefined if there is no such tag, or nobody could say
   */
  async look(name: Name, tag: string): Promise<Sighting | undefined> {
    const { registries, policy, questions } = this.#options
    const registry = registries.get(name.registry)
    if (!registry) return undefined
    if (policy.authority !== 'never') return questions.track(this.#askAuthority(name, tag, registry.authority))
    const check = await this.#check(name, tag).answer
    return isSure(check) ? check.sighting : undefined
  }

  /**
   * What a question brings, if that is soon, and something else if not. The question goes on: it finds out when a
   * registry that was silent answers again.
   */
  soon<T>(name: Name, question: Promise<T>, otherwise: T): Promise<T> {
    const { policy, registries } = this.#options
    const patience = policy.authority === 'before' ? authorityTime + checkTime : checkTime
    return soon(question, registries.get(name.registry)?.silent ? 0 : patience, otherwise)
  }

  /** Asks what a tag is; many who want to know share one question. */
  #check(name: Name, tag: string): TagQuestion {
    const key = `${formatName(name)}:${tag}`
    let check = this.#checks.get(key)
    if (!check) {
      const answer = this.#options.questions.track(this.#checkTag(name, tag).finally(() => this.#checks.delete(key)))
      // Who joins a question waits for the rest of its time only.
      const soon = this.soon(name, answer, { failures: [] })
      soon.catch(() => {})
      check = { answer, soon }
      this.#checks.set(key, check)
    }
    return check
  }

  /**
   * Whether the content of a tag is not held, and cannot be had now because its registry limits the rate: then the
   * HEAD must not promise what the GET would be refused. Somebody else may have it, so it is brought to find out.
   */
  async #outOfReach(name: Name, { descriptor, from }: Sighting): Promise<boolean> {
    const { store, registries, bring, questions } = this.#options
    const { digest } = descriptor
    const authority = registries.get(name.registry)?.authority
    if (!authority || from !== authority.label || store.sizeOf(digest) !== undefined) return false
    if (authority.state.state !== 'limited' && authority.allowance !== 'spent') return false
    return !(await this.soon(name, questions.track(bring(name, digest)), false))
  }

  /** Asks peers, and the endpoints by HEAD, what a tag is, and notes the answer. */
  async #checkTag(name: Name, tag: string): Promise<TagCheck> {
    const { store, registries, questions } = this.#options
    const failures: Failure[] = []
    const registry = registries.get(name.registry)
    if (!registry) return { failures }
    const peers = this.#peersFor(name, registry)
    const fresh = peers && (await this.#fresh(peers, name, tag, registry))
    if (fresh) return { sighting: fresh, failures }
    using last = new LastResort(signal => peers?.last(name, tag, signal), questions.signal)
    const sighting = await this.#askEndpoints(name, tag, registry, failures, last)
    if (sighting) return { sighting, failures }
    if (deniedBy(registry.authority, failures)) {
      // A plain 404 of the authority, and nobody else knows better: the tag is gone. Whatever else went wrong is no answer.
      store.refs.remove(name, tag)
      return { failures }
    }
    return { ...(await this.#last(last, name, tag)), failures }
  }

  async #askEndpoints(
    name: Name,
    tag: string,
    registry: Registry,
    failures: Failure[],
    last: LastResort,
  ): Promise<Sighting | undefined> {
    const { store, policy, questions, onFailure } = this.#options
    const { authority } = registry
    const ask = async (endpoint: Endpoint, signal = questions.signal): Promise<Tagged | null> => {
      const tagged = await questions.ask(endpoint, failures, signal => endpoint.head(name, tag, signal), signal)
      // It may take the others long to say nothing, too.
      if (!tagged && failures.at(-1)?.error) last.begin()
      return tagged
    }
    let answers: readonly Endpoint[] = registry.endpoints
    if (policy.authority === 'before') {
      const tagged = await ask(authority, AbortSignal.any([questions.signal, AbortSignal.timeout(authorityTime)]))
      if (tagged) return this.#see(name, tag, tagged, authority)
      // That there is no such tag is an answer, too.
      answers = failures[0]?.error ? registry.endpoints.slice(0, -1) : []
    }
    for (const endpoint of answers) {
      const tagged = await ask(endpoint)
      if (!tagged) continue
      if (policy.authority === 'after' && endpoint !== authority) {
        questions.track(this.#askAuthority(name, tag, authority)).catch(error => onFailure(`checking ${tag}`, error))
        // What the authority has said holds until it says something else: the tags of a mirror lag.
        const known = store.refs.seen(name, tag)
        if (known?.from === authority.label && known.descriptor.digest !== tagged.descriptor.digest) return known
      }
      return this.#see(name, tag, tagged, endpoint)
    }
    return undefined
  }

  async #askAuthority(name: Name, tag: string, authority: Endpoint): Promise<Sighting | undefined> {
    const failures: Failure[] = []
    const { questions, store } = this.#options
    const tagged = await questions.ask(authority, failures, signal => authority.head(name, tag, signal))
    if (tagged) return this.#see(name, tag, tagged, authority)
    if (failures.every(({ error }) => !error)) store.refs.remove(name, tag)
    return undefined
  }

  #see(name: Name, tag: string, { descriptor, ...tagged }: Tagged, { label }: Endpoint): Sighting {
    const { store, publicity, now } = this.#options
    const visibility = publicity.found(name, descriptor.digest, tagged.visibility)
    const sighting = { descriptor, visibility, from: label, at: now() }
    store.refs.see(name, tag, sighting)
    return sighting
  }

  /**
   * Peers, if they may be asked: the question tells them the name. If this machine has credentials for the registry,
   * that may be one of a private repository, unless it is known to be public.
   */
  #peersFor(name: Name, { shared, credentialed }: Registry): PeerTags | undefined {
    const { peers, store } = this.#options
    return shared && (!credentialed || store.refs.isPublic(name)) ? peers : undefined
  }

  async #fresh(peers: PeerTags, name: Name, tag: string, { authority }: Registry): Promise<Sighting | undefined> {
    const { store, policy, questions, now } = this.#options
    const signal = AbortSignal.any([questions.signal, AbortSignal.timeout(peersTime)])
    const sighting = await this.#ofPeer(peers.fresh(name, tag, signal), signal)
    const seen = store.refs.seen(name, tag)
    if (!sighting || now() - sighting.at >= policy.ttl || sighting.at <= (seen?.at ?? 0)) return undefined
    // The peer may have asked a mirror whose tags lag; who is right, the authority can say.
    if (seen?.from === authority.label && seen.descriptor.digest !== sighting.descriptor.digest) return undefined
    store.refs.see(name, tag, sighting)
    return sighting
  }

  /** What a peer knows, if that is newer than what is held. */
  async #last(last: LastResort, name: Name, tag: string): Promise<Omit<TagCheck, 'failures'>> {
    const { store, policy, questions, now } = this.#options
    const sighting = await this.#ofPeer(last.answer, questions.signal)
    if (!sighting || sighting.at <= (store.refs.held(name, tag)?.at ?? 0)) return {}
    if (sighting.at > (store.refs.seen(name, tag)?.at ?? 0)) store.refs.see(name, tag, sighting)
    return { sighting, stale: now() - sighting.at >= policy.ttl }
  }

  /** What a peer says, as a sighting that is told apart from an endpoint's. That it says nothing is no error. */
  async #ofPeer(answer: Promise<Sighting | undefined>, signal: AbortSignal): Promise<Sighting | undefined> {
    const sighting = await abortable(answer, signal).catch(() => undefined)
    this.#options.questions.signal.throwIfAborted()
    if (!sighting) return undefined
    this.#peerAnswers++
    return { ...sighting, at: Math.min(sighting.at, this.#options.now()), from: `${peerMark}${sighting.from}` }
  }
}

/** Whether somebody has checked it now. */
function isSure({ sighting, stale = false }: TagCheck): boolean {
  return sighting !== undefined && !stale
}

/** Whether a peer has said what the tag is. */
export function isOfPeer({ from }: Sighting): boolean {
  return from.startsWith(peerMark)
}

/** Whether an endpoint says that there is no such thing. */
function deniedBy(endpoint: Endpoint, failures: readonly Failure[]): boolean {
  return failures.some(({ source, error }) => source === endpoint.label && !error)
}

/** A question that is only asked if need be, and once. */
class LastResort implements Disposable {
  readonly #over = new AbortController()
  readonly #ask: () => Promise<Sighting | undefined> | undefined
  #answer: Promise<Sighting | undefined> | undefined

  constructor(ask: (signal: AbortSignal) => Promise<Sighting | undefined> | undefined, signal: AbortSignal) {
    this.#ask = () => ask(AbortSignal.any([signal, this.#over.signal]))
  }

  begin(): void {
    if (this.#answer) return
    this.#answer = this.#ask() ?? Promise.resolve(undefined)
    this.#answer.catch(() => {})
  }

  get answer(): Promise<Sighting | undefined> {
    this.begin()
    return this.#answer ?? Promise.resolve(undefined)
  }

  [Symbol.dispose](): void {
    this.#over.abort()
  }
}
