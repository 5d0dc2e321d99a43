import prettyBytes from 'pretty-bytes'
import { askDaemon } from '../admin/client.ts'
import type { Status, UpstreamStatus } from '../admin/status.ts'
import { plainTable } from '../plain-table.ts'
import { rate } from '../quantity.ts'
import type { Settings } from '../settings/schema.ts'
import { networkText } from './peers.ts'

/** `shoal status`: what the daemon does now. @throws DaemonError */
export async function statusCommand(args: {
  readonly settings: Settings
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): Promise<number> {
  const { settings, json, out } = args
  const status = await askDaemon<Status>(settings, 'status')
  if (json) {
    out(JSON.stringify(status))
    return 0
  }
  const { version, node, uptime_s, online, store, served, upstreams, clients, transfers } = status
  out(`shoal ${version} on ${node}, up ${formatSeconds(uptime_s)}, ${online ? 'online' : 'offline'}`)
  out(
    `store: ${store.blobs} blobs, ${prettyBytes(store.bytes)} of ${prettyBytes(store.max_bytes)}${transfers > 0 ? `; ${transfers} arriving` : ''}`,
  )
  if (store.problem !== null) out(`what is pulled passes through, and is not kept: ${store.problem}`)
  for (const line of swarmLines(status)) out(line)
  const { local, peer, upstream } = served
  for (const [source, { requests, bytes }] of Object.entries({ local, peer, upstream }))
    if (requests > 0) out(`served from ${source}: ${requests} requests, ${prettyBytes(bytes)}`)
  for (const { tool, requests, last_s } of clients)
    out(`client ${tool}: ${requests} requests, the last ${formatSeconds(last_s)} ago`)
  const table = plainTable(['REGISTRY', 'ENDPOINT', 'STATE', 'REQUESTS', 'ERRORS', 'RATE LIMIT'])
  for (const each of upstreams)
    table.push([each.registry, each.endpoint, stateOf(each), each.requests, each.errors, rateLimitOf(each)])
  out(table.toString())
  for (const line of limitLines(upstreams)) out(line)
  return 0
}

/** Whom it sees, and what peers get. */
export function swarmLines({
  network,
  peers,
  uploads,
  downloads,
}: Pick<Status, 'network' | 'peers' | 'uploads' | 'downloads'>): string[] {
  const downloadLimit =
    downloads.max_rate === null ? [] : [`downloads: at most ${rate.format(downloads.max_rate)} in all`]
  if (network === null) return ['peers: none, the swarm is off', ...downloadLimit]
  const count = (...wanted: readonly string[]) => peers.filter(({ state }) => wanted.includes(state)).length
  const there = count('connected', 'resting')
  const banned = count('banned')
  const more = banned > 0 ? `, ${banned} banned (see "shoal peers")` : ''
  const { share, resting, max, max_rate } = uploads
  const limit = max_rate === null ? '' : `, ${rate.format(max_rate)} in all`
  const given =
    share === 'none'
      ? 'none, swarm.share is "none"'
      : `at most ${max} at once${limit}${resting === null ? '' : `; they rest: ${resting}`}`
  return [`peers: ${there} in the ${networkText(network)}${more}`, `uploads: ${given}`, ...downloadLimit]
}

function stateOf({ state }: UpstreamStatus): string {
  return {
    closed: 'in use',
    open: 'failing, passed over',
    'half-open': 'failing, to be tried',
    limited: 'limits the rate',
  }[state]
}

/** Which registries have few pulls left, or none, and what comes of it. */
export function limitLines(upstreams: readonly UpstreamStatus[]): string[] {
  return upstreams.flatMap(({ endpoint, rate_limit }) => {
    if (!rate_limit || rate_limit.allowance === 'ample') return []
    const { allowance, from, remaining, reset_s } = rate_limit
    const who = `${new URL(endpoint).host} gives this office`
    const how = allowance === 'spent' ? 'no more pulls' : `${remaining} more pulls`
    const until = reset_s === null ? '' : `, for up to ${formatSeconds(reset_s)}`
    const says = from === 'peer' ? ', as a peer says' : ''
    const then =
      allowance === 'spent'
        ? 'what is held here or by peers is served'
        : 'manifests come from peers first, and tags are checked as ever'
    return [`${who} ${how}${until}${says}: ${then}`]
  })
}

function rateLimitOf({ rate_limit }: UpstreamStatus): string {
  return rate_limit ? `${rate_limit.remaining} of ${rate_limit.limit} left` : ''
}

function formatSeconds(seconds: number): string {
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 48 * 3600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`
}
