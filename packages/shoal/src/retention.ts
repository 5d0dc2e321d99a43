import { type Copies, Eviction } from '@shoal/store/eviction'
import type { Store } from '@shoal/store/store'
import { EvictionLog } from './eviction-log.ts'
import type { ImagePopularity } from './image-popularity.ts'
import type { Logger } from './log.ts'
import type { Metrics } from './metrics.ts'
import { sizeOn } from './quantity.ts'
import type { Settings } from './settings/schema.ts'
import type { Storing } from './storing.ts'

/** What is kept, how much of it at most, and what is told of what goes. */
export class Retention implements AsyncDisposable {
  readonly eviction: Eviction
  /** What may be kept, in bytes. */
  readonly maxBytes: number
  readonly #log: EvictionLog

  private constructor(eviction: Eviction, maxBytes: number, log: EvictionLog) {
    this.eviction = eviction
    this.maxBytes = maxBytes
    this.#log = log
  }

  static async open(options: {
    readonly settings: Settings['store']
    readonly store: Store
    readonly storing: Storing
    readonly popularity: ImagePopularity
    readonly copies: Copies
    readonly metrics: Metrics
    readonly log: Logger
  }): Promise<Retention> {
    const { settings, store, storing, popularity, copies, metrics, log } = options
    const { total } = await store.space()
    const maxBytes = sizeOn(settings.max_size, total)
    const evictionLog = new EvictionLog(log)
    const eviction = new Eviction({
      store,
      maxBytes,
      minFree: sizeOn(settings.min_free, total),
      demands: () => popularity.demands(),
      copies,
      now: Date.now,
      random: Math.random,
      events: {
        evicted: (blob, cause) => {
          metrics.evicted(blob, cause)
          evictionLog.evicted(blob, cause)
          storing.freed()
        },
        refused: (digest, why) => {
          metrics.refused(why)
          if (why === 'stuck') storing.stuck()
          else log.debug({ digest }, 'not kept: all that would have to go for it is worth more')
        },
        failed: error => log.warn({ err: error }, 'making room in the store failed'),
      },
    })
    return new Retention(eviction, maxBytes, evictionLog)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.eviction[Symbol.asyncDispose]()
    this.#log[Symbol.dispose]()
  }
}
