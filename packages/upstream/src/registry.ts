import type { Endpoint } from './endpoint.ts'

/** A registry: who answers for it, in the order in which they are asked. The last is its authority. */
export class Registry {
  readonly host: string
  /** Whether peers may have what it gives to everybody. */
  readonly shared: boolean
  readonly endpoints: readonly Endpoint[]
  readonly #close: () => Promise<void>

  constructor(
    { host, shared }: { readonly host: string; readonly shared: boolean },
    endpoints: readonly [Endpoint, ...Endpoint[]],
    close: () => Promise<void>,
  ) {
    this.host = host
    this.shared = shared
    this.endpoints = endpoints
    this.#close = close
  }

  /** Who knows best what a tag is, and what tags there are. */
  get authority(): Endpoint {
    return this.endpoints[this.endpoints.length - 1]!
  }

  /** Whether some of what it gives may need credentials that this machine has. */
  get credentialed(): boolean {
    return this.endpoints.some(({ credentialed }) => credentialed)
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
