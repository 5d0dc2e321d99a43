import type { PeerStatus } from '@shoal/swarm/swarm'
import prettyBytes from 'pretty-bytes'
import { askDaemon, haveDaemonTell } from '../admin/client.ts'
import type { Status } from '../admin/status.ts'
import type { Unbanned } from '../admin/unban.ts'
import { plainTable } from '../plain-table.ts'
import { printable } from '../printable.ts'
import type { Settings } from '../settings/schema.ts'

/** `shoal peers`: who is there, and who was. @param args.unban a peer whose ban is lifted in place of that @throws DaemonError */
export async function peersCommand(args: {
  readonly settings: Settings
  readonly unban?: string | undefined
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): Promise<number> {
  const { settings, unban, json, out } = args
  if (unban !== undefined) {
    const unbanned = await haveDaemonTell<Unbanned>(settings, 'unban', { peer: unban })
    out(json ? JSON.stringify(unbanned) : `${printable(unbanned.name ?? unbanned.id)} is no longer banned.`)
    return 0
  }
  const { network, peers } = await askDaemon<Status>(settings, 'status')
  if (json) out(JSON.stringify(peers))
  else for (const line of peerLines(network, peers)) out(line)
  return 0
}

/** What a user is shown. */
export function peerLines(network: string | null, peers: readonly PeerStatus[]): string[] {
  if (network === null) return ['This machine takes part in no network: swarm.enabled is false.']
  if (peers.length === 0)
    return [`No peers yet in the ${networkText(network)}; "shoal doctor" says what may be the matter.`]
  const table = plainTable(['NAME', 'ADDRESS', 'STATE', 'BLOBS', 'ROUND TRIP', 'GIVEN', 'TAKEN'])
  // An id, of 52 characters, would be most of the width of a terminal: it is shown where it is needed.
  for (const { id, name, addresses, state, blobs, rtt_ms, sent_bytes, received_bytes } of peers)
    table.push([
      printable(name ?? id),
      printable(addresses[0] ?? ''),
      state,
      state === 'connected' || state === 'resting' ? blobs : '',
      rtt_ms === null ? '' : `${rtt_ms} ms`,
      prettyBytes(sent_bytes),
      prettyBytes(received_bytes),
    ])
  const bans = peers.flatMap(({ id, name, ban }) => {
    if (!ban) return []
    const until = ban.until === null ? '' : `, until ${time(ban.until)}`
    const why = `${printable(name ?? id)} is banned since ${time(ban.at)}${until}: ${printable(ban.reason)}`
    return [why, `  to lift it: shoal peers --unban ${id}`]
  })
  return [table.toString(), ...bans]
}

/** `open` or `private:1a2b3c4d` in words. */
export function networkText(network: string): string {
  return network === 'open' ? 'open network of the LAN' : `private network ${network.replace(/^private:/, '')}`
}

function time(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z')
}
