import { networkOf, openNetwork, TokenError } from '@shoal/swarm/network'
import type { Logger } from '../log.ts'
import { type NetworkToken, networkTokenFile } from '../network-token.ts'
import type { Peers } from '../peers.ts'
import type { Settings } from '../settings/schema.ts'
import { type Action, ConflictError, InputError } from './server.ts'

/** The answer to `POST /api/v1/join` and `/leave`: the network that the daemon is in now, and whether it was before. */
export type NetworkChange = { readonly network: string; readonly changed: boolean }

/** `POST /api/v1/join` and `/leave`: other networks, at once and after restarts. */
export function networkChanges({
  peers,
  joined,
  settings: { data_dir, swarm },
  log,
}: {
  readonly peers: Peers
  /** What was joined by command. */
  readonly joined: NetworkToken
  readonly settings: Settings
  readonly log: Logger
}): { readonly join: Action; readonly leave: Action } {
  const mayChange = () => {
    if (!swarm.enabled) throw new ConflictError('the daemon takes part in no network: set swarm.enabled = true')
    if (swarm.token !== null)
      throw new ConflictError("the daemon's settings say which network it is in: change swarm.token there")
  }
  /** What is not kept would be undone by the next start: it is not begun. */
  const kept = async <T>(change: Promise<T>): Promise<T> => {
    try {
      return await change
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : cause
      const message = `${networkTokenFile(data_dir)} cannot be changed, and so the network is not: ${reason}`
      throw new ConflictError(message, { cause })
    }
  }
  const tell = async (accept: Parameters<Action>[0], network: string, before: string | undefined) => {
    const changed = network !== before
    if (changed) log.info({ network, before }, `this machine is now in the network ${network}`)
    await accept()({ network, changed } satisfies NetworkChange)
  }
  return {
    join: async (accept, _signal, input) => {
      mayChange()
      const token = textIn(input, 'token')
      try {
        networkOf(token)
      } catch (error) {
        throw error instanceof TokenError ? new InputError(error.message) : error
      }
      const before = peers.swarm?.network.name
      const network = await kept(joined.keep(token))
      await peers.enter(network)
      await tell(accept, network.name, before)
    },
    leave: async accept => {
      mayChange()
      const before = peers.swarm?.network.name
      await kept(joined.forget())
      await peers.enter(openNetwork)
      await tell(accept, openNetwork.name, before)
    },
  }
}

/** A text of what was sent with a request. @throws InputError */
export function textIn(input: unknown, key: string): string {
  const value =
    typeof input === 'object' && input !== null ? Object.entries(input).find(([name]) => name === key) : undefined
  if (typeof value?.[1] !== 'string') throw new InputError(`expected {"${key}": "…"}`)
  return value[1]
}
