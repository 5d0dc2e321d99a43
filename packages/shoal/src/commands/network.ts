import { createToken, networkOf, TokenError } from '@shoal/swarm/network'
import { haveDaemonTell } from '../admin/client.ts'
import type { NetworkChange } from '../admin/network.ts'
import type { LoadedSettings } from '../settings/load.ts'
import { networkText } from './peers.ts'
import { UsageError } from './usage-error.ts'

export const networkActions = ['create', 'join', 'leave'] as const

/**
 * `shoal network create`, which needs no daemon and writes nothing, `join TOKEN` and `leave`.
 * @param args.token `-` to read it with `readInput`
 * @throws UsageError, DaemonError
 */
export async function networkCommand(args: {
  readonly action: (typeof networkActions)[number]
  readonly token?: string | undefined
  readonly loaded: LoadedSettings
  readonly json?: boolean | undefined
  readonly readInput: () => Promise<string>
  readonly out: (line: string) => void
}): Promise<number> {
  const { action, token, loaded, json, readInput, out } = args
  if (action !== 'join' && token !== undefined) throw new UsageError(`"network ${action}" takes no token`)
  if (action === 'create') {
    const token = createToken()
    out(json ? JSON.stringify({ token }) : token)
    return 0
  }
  if (action === 'join' && token === undefined)
    throw new UsageError('name the token, or "-" to read it from standard input')
  const wanted = token === '-' ? await readInput() : token
  if (wanted !== undefined) check(wanted)
  const { settings, origins } = loaded
  if (settings.swarm.token !== null) {
    const place = origins['swarm.token']?.replace(/^\w+ /, '')
    throw new Error(`swarm.token says which network this machine is in: change it at ${place}`)
  }
  const change = wanted === undefined ? {} : { token: wanted.trim() }
  const { network, changed } = await haveDaemonTell<NetworkChange>(settings, action, change)
  const now = changed ? 'is now' : 'was already'
  out(json ? JSON.stringify({ network }) : `This machine ${now} in the ${networkText(network)}.`)
  return 0
}

/** @throws UsageError */
function check(token: string): void {
  try {
    networkOf(token)
  } catch (error) {
    throw error instanceof TokenError ? new UsageError(error.message, { cause: error }) : error
  }
}
