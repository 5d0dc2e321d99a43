import { hostname } from 'node:os'
import type { Store } from '@shoal/store/store'
import type { PeerStatus } from '@shoal/swarm/swarm'
import { type Allowance, allowanceOf } from '@shoal/upstream/rate-limit'
import type { Registry } from '@shoal/upstream/registry'
import type { Metrics, ServedTotals } from '../metrics.ts'
import type { Peers } from '../peers.ts'
import type { Politeness } from '../politeness.ts'
import type { Settings } from '../settings/schema.ts'
import type { Storing } from '../storing.ts'
import { version } from '../version.ts'

/** `GET /api/v1/status`; docs/api.md. Bytes, seconds. */
export type Status = {
  readonly version: string
  readonly node: string
  readonly peer_id: string | null
  readonly uptime_s: number
  /** `open`, or `private:` and the token's fingerprint; null if the swarm is off. */
  readonly network: string | null
  readonly online: boolean
  readonly store: {
    readonly blobs: number
    readonly bytes: number
    readonly max_bytes: number
    /** Why what is pulled is not stored; null if it is. */
    readonly problem: string | null
  }
  readonly peers: readonly PeerStatus[]
  /** What peers are given. `resting`: why nothing is just now; null if it is. `max_rate` in bytes a second; null without limit. */
  readonly uploads: {
    readonly share: 'public' | 'none'
    readonly resting: string | null
    readonly max: number
    readonly max_rate: number | null
  }
  readonly downloads: { readonly max_rate: number | null }
  readonly served: ServedTotals
  readonly upstreams: readonly UpstreamStatus[]
  /** Blobs that are arriving. */
  readonly transfers: number
  /** The tools that have asked for content, and how long ago they last did. */
  readonly clients: readonly { readonly tool: string; readonly requests: number; readonly last_s: number }[]
}

export type UpstreamStatus = {
  readonly registry: string
  readonly endpoint: string
  /** `closed`: in use; `open`: failed lately, passed over; `half-open`: about to be tried; `limited`: answered 429, or no pulls left. */
  readonly state: 'closed' | 'open' | 'half-open' | 'limited'
  readonly requests: number
  readonly errors: number
  /** `from`: whether the endpoint has told this machine so, or a peer whose pulls it counts together with its own. */
  readonly rate_limit: {
    readonly limit: number
    readonly remaining: number
    readonly reset_s: number | null
    readonly allowance: Allowance
    readonly from: 'registry' | 'peer'
  } | null
}

export type Clients = ReadonlyMap<string, { readonly requests: number; readonly last: number }>

export function statusOf(daemon: {
  readonly settings: Settings
  readonly store: Store
  readonly storing: Storing
  readonly registries: ReadonlyMap<string, Registry>
  readonly metrics: Metrics
  readonly peers: Peers
  readonly politeness: Politeness
  readonly clients: Clients
  readonly maxBytes: number
  readonly startedAt: number
  readonly now: () => number
}): Status {
  const { settings, store, storing, registries, metrics, peers, politeness, clients, maxBytes, startedAt, now } = daemon
  const { share, max_uploads, max_upload_rate, max_download_rate } = settings.swarm
  const upstreams = [...registries.values()].flatMap(registry =>
    registry.endpoints.map((endpoint): UpstreamStatus => {
      const { state, requests, errors, heard, limitedUntil } = endpoint.state
      const rateLimit = heard ?? endpoint.state.rateLimit
      const left = Math.ceil((limitedUntil - now()) / 1000)
      const reset = left > 0 ? left : null
      return {
        registry: registry.host,
        endpoint: endpoint.url.origin,
        state,
        requests,
        errors,
        rate_limit: rateLimit
          ? {
              limit: rateLimit.limit,
              remaining: rateLimit.remaining,
              reset_s: reset ?? rateLimit.window ?? null,
              allowance: allowanceOf(rateLimit, now()),
              from: heard ? 'peer' : 'registry',
            }
          : null,
      }
    }),
  )
  return {
    version,
    node: hostname(),
    peer_id: peers.swarm?.peerId ?? null,
    uptime_s: Math.round((now() - startedAt) / 1000),
    network: peers.swarm?.network.name ?? null,
    online: upstreams.some(({ state }) => state !== 'open'),
    store: { ...store.held, max_bytes: maxBytes, problem: storing.problem ?? null },
    peers: peers.swarm?.peers ?? [],
    uploads: { share, resting: politeness.resting() ?? null, max: max_uploads, max_rate: max_upload_rate },
    downloads: { max_rate: max_download_rate },
    served: metrics.served,
    upstreams,
    transfers: store.transfers.length,
    clients: [...clients].map(([tool, { requests, last }]) => {
      return { tool, requests, last_s: Math.round((now() - last) / 1000) }
    }),
  }
}
