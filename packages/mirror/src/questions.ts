import { SourceError } from '@shoal/store/source'
import type { Endpoint } from '@shoal/upstream/endpoint'
import type { NowhereError } from './filling.ts'

export type Failure = NowhereError['failures'][number]

/** What is asked of others, and may go on when the client that it was asked for no longer waits. */
export class Questions {
  readonly #abort = new AbortController()
  readonly #running = new Set<Promise<unknown>>()
  readonly #onFailure: (source: string, error: SourceError) => void

  /** @param onFailure told of an endpoint that could not be asked */
  constructor(onFailure: (source: string, error: SourceError) => void) {
    this.#onFailure = onFailure
  }

  /** Aborted when all is to end. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Asks one endpoint; what goes wrong is noted, and null. */
  async ask<T>(
    endpoint: Endpoint,
    failures: Failure[],
    ask: (signal: AbortSignal) => Promise<T | null>,
    signal = this.signal,
  ): Promise<T | null> {
    try {
      const answer = await ask(signal)
      if (answer === null) failures.push({ source: endpoint.label, error: undefined })
      return answer
    } catch (thrown) {
      this.signal.throwIfAborted()
      const error = signal.aborted ? new SourceError('timeout', `${endpoint.label} did not answer in time`) : thrown
      if (!(error instanceof SourceError)) throw error
      this.#onFailure(endpoint.label, error)
      failures.push({ source: endpoint.label, error })
      return null
    }
  }

  /** Has {@link close} wait for it. */
  track<T>(promise: Promise<T>): Promise<T> {
    const done: Promise<void> = promise.then(
      () => void this.#running.delete(done),
      () => void this.#running.delete(done),
    )
    this.#running.add(done)
    return promise
  }

  abort(reason: SourceError): void {
    this.#abort.abort(reason)
  }

  /** Resolves once nothing is under way. */
  async ended(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running)
  }
}
