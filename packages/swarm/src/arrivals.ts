import { isLoopback } from './lan-address.ts'

/** Connections from one address, loopback apart: twice the members that may come from there. */
const mostFromOneAddress = 64

/** What of a connection is needed. */
type Connection = Pick<EventTarget, 'addEventListener'> & { readonly status: string }

/**
 * Who has connected, from the first byte on: one address must not take all the places, neither of those who are still to
 * say who they are, nor of those who say nothing after that.
 */
export class Arrivals {
  readonly #counts = new Map<string, number>()

  /** @returns whether a connection may stay; it counts until it is closed */
  take(host: string, connection: Connection): boolean {
    if (connection.status !== 'open') return false
    if (isLoopback(host)) return true
    const count = this.#counts.get(host) ?? 0
    if (count >= mostFromOneAddress) return false
    this.#counts.set(host, count + 1)
    connection.addEventListener('close', () => this.#left(host), { once: true })
    return true
  }

  #left(host: string): void {
    const count = (this.#counts.get(host) ?? 0) - 1
    if (count > 0) this.#counts.set(host, count)
    else this.#counts.delete(host)
  }
}
