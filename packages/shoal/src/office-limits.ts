import { limitKey } from '@shoal/swarm/limit-key'
import type { LimitMessage } from '@shoal/swarm/message'
import { allowanceOf, lowWater, type RateLimit } from '@shoal/upstream/rate-limit'
import type { Registry } from '@shoal/upstream/registry'
import type { Logger } from './log.ts'

/** How long changes are gathered until peers are told, in ms, unless they bring the limit nearer to its end. */
const gathering = 1000

type Known = {
  readonly rateLimit: RateLimit
  /** What peers were told last, and when. */
  told: { readonly rateLimit: RateLimit; readonly at: number } | undefined
  timer: NodeJS.Timeout | undefined
}

export type OfficeLimitsOptions = {
  readonly registries: ReadonlyMap<string, Registry>
  readonly log: Logger
  /** Tells all peers. */
  readonly tell: (limit: LimitMessage) => void
  /** In ms since the epoch, never going back. */
  readonly now: () => number
}

/**
 * The limits of pulls that registries count for a whole office, which is behind one address, or one account: what one
 * machine is told of it, all learn.
 */
export class OfficeLimits implements Disposable {
  readonly #options: OfficeLimitsOptions
  /** What peers may know, by endpoint. */
  readonly #known = new Map<string, Known>()
  /** What was said in the log, by endpoint: nothing if all is well. */
  readonly #logged = new Map<string, 'low' | 'spent'>()

  constructor(options: OfficeLimitsOptions) {
    this.#options = options
  }

  /** An endpoint has said what is left. Peers are told, if what the registry has may be shared. */
  said({ shared }: { readonly shared: boolean }, endpoint: string, rateLimit: RateLimit): void {
    this.#write(endpoint, rateLimit)
    if (!shared) return
    const { now } = this.#options
    const { told, timer } = this.#known.get(endpoint) ?? { told: undefined, timer: undefined }
    const known: Known = { rateLimit, told, timer }
    this.#known.set(endpoint, known)
    if (told && isSame(told.rateLimit, rateLimit)) return
    const turned = !told || allowanceOf(told.rateLimit, now()) !== allowanceOf(rateLimit, now())
    const pause = told && !turned ? told.at + gathering - now() : 0
    if (pause <= 0) this.#tell(endpoint)
    else known.timer ??= setTimeout(() => this.#tell(endpoint), pause).unref()
  }

  /** A peer says what an endpoint has told it. Whom this machine is not counted together with is none of its concern. */
  heard({ key, limit, remaining, window, age }: LimitMessage): void {
    const at = this.#options.now() - age
    for (const { shared, endpoints } of this.#options.registries.values())
      for (const endpoint of shared ? endpoints : []) {
        const source = endpoint.state.rateLimit?.source
        if (source === undefined || !limitKey(endpoint.label, source).equals(key)) continue
        endpoint.hear({ limit, remaining, window, source, at })
      }
  }

  /** All that peers may know. */
  get known(): readonly LimitMessage[] {
    return [...this.#known].flatMap(([endpoint, { rateLimit }]) => this.#message(endpoint, rateLimit) ?? [])
  }

  [Symbol.dispose](): void {
    for (const { timer } of this.#known.values()) clearTimeout(timer)
  }

  #tell(endpoint: string): void {
    const known = this.#known.get(endpoint)
    if (!known) return
    const { now, tell } = this.#options
    clearTimeout(known.timer)
    known.timer = undefined
    known.told = { rateLimit: known.rateLimit, at: now() }
    const message = this.#message(endpoint, known.rateLimit)
    if (message) tell(message)
  }

  #message(endpoint: string, { limit, remaining, window, source, at }: RateLimit): LimitMessage | undefined {
    if (source === undefined || window === undefined) return undefined
    const age = Math.max(0, Math.round(this.#options.now() - at))
    if (age >= window * 1000) return undefined
    return { t: 'limit', key: limitKey(endpoint, source), limit, remaining, window, age }
  }

  /** Says once that a limit comes near, once that it is reached, and once that it is over. */
  #write(endpoint: string, rateLimit: RateLimit): void {
    const { log, now } = this.#options
    const { limit, remaining, window = 0, source, at } = rateLimit
    const allowance = allowanceOf(rateLimit, now())
    const before = this.#logged.get(endpoint)
    const fields = { endpoint, limit, remaining, source }
    const whom = source === undefined ? 'this machine' : `all behind ${source}`
    const until = `until ${new Date(at + window * 1000).toISOString()} at the latest`
    if (allowance === 'spent' && before !== 'spent') {
      this.#logged.set(endpoint, 'spent')
      log.warn(
        fields,
        `${endpoint} gives ${whom} no more pulls, ${until}: what is held here or by peers is served, and tags are checked as ever`,
      )
    } else if (allowance === 'low' && before === undefined) {
      this.#logged.set(endpoint, 'low')
      log.warn(
        fields,
        `${endpoint} gives ${whom} ${remaining} more pulls of ${limit}, ${until}: manifests come from peers first, and tags are checked as ever`,
      )
    } else if (allowance === 'ample' && before !== undefined && remaining > 2 * lowWater(limit)) {
      // As pulls are forgotten one by one, it would else be said again and again.
      this.#logged.delete(endpoint)
      log.info(fields, `${endpoint} gives ${whom} pulls as ever: ${remaining} of ${limit} are left`)
    }
  }
}

function isSame(one: RateLimit, other: RateLimit): boolean {
  return (
    one.remaining === other.remaining &&
    one.limit === other.limit &&
    one.window === other.window &&
    one.source === other.source
  )
}
