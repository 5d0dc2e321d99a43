import prettyBytes from 'pretty-bytes'
import { askDaemon } from '../admin/client.ts'
import type { Status, UpstreamStatus } from '../admin/status.ts'
import { plainTable } from '../plain-table.ts'
import type { Settings } from '../settings/schema.ts'

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
  const { local, peer, upstream } = served
  for (const [source, { requests, bytes }] of Object.entries({ local, peer, upstream }))
    if (requests > 0) out(`served from ${source}: ${requests} requests, ${prettyBytes(bytes)}`)
  for (const { tool, requests, last_s } of clients)
    out(`client ${tool}: ${requests} requests, the last ${formatSeconds(last_s)} ago`)
  const table = plainTable(['REGISTRY', 'ENDPOINT', 'STATE', 'REQUESTS', 'ERRORS', 'RATE LIMIT'])
  for (const each of upstreams)
    table.push([each.registry, each.endpoint, stateOf(each), each.requests, each.errors, rateLimitOf(each)])
  out(table.toString())
  return 0
}

function stateOf({ state }: UpstreamStatus): string {
  return {
    closed: 'in use',
    open: 'failing, passed over',
    'half-open': 'failing, to be tried',
    limited: 'limits the rate',
  }[state]
}

function rateLimitOf({ rate_limit }: UpstreamStatus): string {
  return rate_limit ? `${rate_limit.remaining} of ${rate_limit.limit} left` : ''
}

function formatSeconds(seconds: number): string {
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 48 * 3600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`
}
