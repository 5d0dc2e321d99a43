import type { Ban } from '@shoal/swarm/peer-book'
import type { Logger } from './log.ts'
import { printable } from './printable.ts'

/** Lines at most within {@link span}, in ms; more is told at level `debug` alone, and that it was so. */
const mostLines = 40
const span = 60_000

/** How long nothing more is said of the same thing, in ms, once it has been said often enough. */
const silence = 10 * 60_000

/** How often a peer may come, and go, until it is one that does so all the time. */
const mostTimes = 3

/** Things that it is remembered of when they were last said. */
const mostRemembered = 1000

/** Tells of peers in the log. Peers that come and go all the time do not fill it, and neither does anybody on purpose. */
export class PeerLog {
  readonly #log: Logger
  readonly #now: () => number
  /** What was said: how often since when. */
  readonly #said = new Map<string, { times: number; readonly since: number }>()
  #spanBegan = Number.NEGATIVE_INFINITY
  #lines = 0

  /** @param now in ms, never going back */
  constructor(log: Logger, now: () => number) {
    this.#log = log
    this.#now = now
  }

  joined({ id, name, address }: { readonly id: string; readonly name: string; readonly address: string }): void {
    const level = this.#mayBeSaid(`joined ${id}`, mostTimes) ? 'info' : 'debug'
    this.#log[level]({ peer: id, address }, `peer ${nameOf(name, id)} has joined, at ${printable(address)}`)
  }

  left({ id, name }: { readonly id: string; readonly name: string }, why: string | undefined): void {
    const level = this.#mayBeSaid(`left ${id}`, mostTimes) ? 'info' : 'debug'
    const reason = why === undefined ? '' : `: ${printable(why)}`
    this.#log[level]({ peer: id }, `peer ${nameOf(name, id)} has left${reason}`)
  }

  banned({ id, name, reason, until }: Ban): void {
    const level = this.#mayBeSaid(`banned ${id}`) ? 'warn' : 'debug'
    const time = until === null ? '' : ` until ${new Date(until).toISOString()}`
    this.#log[level](
      { peer: id },
      `peer ${nameOf(name, id)} is banned${time}: ${printable(reason)}; to lift it: shoal peers --unban ${id}`,
    )
  }

  warning(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.#log[this.#mayBeSaid(message) ? 'warn' : 'debug'](fields, printable(message))
  }

  #mayBeSaid(what: string, most = 1): boolean {
    const now = this.#now()
    const known = this.#said.get(what)
    const said = known && now - known.since < silence ? known : { times: 0, since: now }
    if (said.times >= most) return false
    if (now - this.#spanBegan >= span) [this.#spanBegan, this.#lines] = [now, 0]
    this.#lines++
    if (this.#lines === mostLines)
      this.#log.warn('there is more to tell of peers than is told: "shoal peers" lists them')
    if (this.#lines >= mostLines) return false
    said.times++
    this.#said.delete(what)
    this.#said.set(what, said)
    for (const oldest of this.#said.keys()) {
      if (this.#said.size <= mostRemembered) break
      this.#said.delete(oldest)
    }
    return true
  }
}

function nameOf(name: string, id: string): string {
  return name === '' ? id : printable(name)
}
