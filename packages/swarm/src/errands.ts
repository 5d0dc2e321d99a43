import type { Digest } from '@shoal/oci/digest'
import { type Name, NameError, parseFullName } from '@shoal/oci/name'
import type { Want } from '@shoal/store/source'
import type { ErrandMessage } from './message.ts'

/** Errands at once, in all and for one peer. */
const mostAtOnce = 8
const mostEach = 4

/** Errands begun for one peer in an hour. */
const mostAnHour = 500
const hour = 3_600_000

export type ErrandsOptions = {
  /** Fetches something; resolves when that is over, however. */
  readonly run: (want: Want) => Promise<void>
  /** In ms, never going back. */
  readonly now: () => number
}

type Account = { running: number; begun: number; since: number }

/** What this machine fetches for peers that have no way to the registry themselves. */
export class Errands {
  readonly #options: ErrandsOptions
  readonly #accounts = new Map<string, Account>()
  readonly #running = new Set<Digest>()

  constructor(options: ErrandsOptions) {
    this.#options = options
  }

  /** Runs an errand, unless there are too many. The peer sees by what is announced whether it was run. */
  receive(peer: string, { name, digest, kind, size }: ErrandMessage): void {
    const parsed = nameOf(name)
    const account = this.#accountOf(peer)
    if (!parsed || this.#running.has(digest) || this.#running.size >= mostAtOnce) return
    if (account.running >= mostEach || account.begun >= mostAnHour) return
    account.running++
    account.begun++
    this.#running.add(digest)
    const over = () => {
      account.running--
      this.#running.delete(digest)
    }
    this.#options.run({ name: parsed, digest, kind, ...(size > 0 && { size }) }).then(over, over)
  }

  #accountOf(peer: string): Account {
    const now = this.#options.now()
    for (const [other, { running, since }] of this.#accounts)
      if (running === 0 && now - since > hour) this.#accounts.delete(other)
    const account = this.#accounts.get(peer) ?? { running: 0, begun: 0, since: now }
    this.#accounts.set(peer, account)
    if (now - account.since > hour) Object.assign(account, { begun: 0, since: now })
    return account
  }
}

/** @param name `registry/repository` */
function nameOf(name: string): Name | undefined {
  try {
    return parseFullName(name)
  } catch (error) {
    if (error instanceof NameError) return undefined
    throw error
  }
}
