import type { Endpoint } from './endpoint.ts'

/** A registry: who answers for it, in the order in which they are asked. The last is its authority. */
export class Registry {
  readonly host: string
  readonly endpoints: readonly Endpoint[]
  readonly #close: () => Promise<void>

  constructor(host: string, endpoints: readonly [Endpoint, ...Endpoint[]], close: () => Promise<void>) {
    this.host = host
    this.endpoints = endpoints
    this.#close = close
  }

  /** Who knows best what a tag is, and what tags there are. */
  get authority(): Endpoint {
    return this.endpoints[this.endpoints.length - 1]!
  }

  /** Requests that any of them has answered, however: a sign of life. */
  get answers(): number {
    return this.endpoints.reduce((sum, { answers }) => sum + answers, 0)
  }

  /** Whether none of them has answered its last request. */
  get silent(): boolean {
    return this.endpoints.every(({ silent }) => silent)
  }

  close(): Promise<void> {
    return this.#close()
  }
}
