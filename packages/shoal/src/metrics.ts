import type { MirrorServer, Served } from '@shoal/mirror/server'
import type { Cause, Evicted } from '@shoal/store/eviction'
import type { Store } from '@shoal/store/store'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Stall } from './event-loop.ts'
import type { ImagePopularity } from './image-popularity.ts'
import type { Peers } from './peers.ts'

/** Whom an answer came from, in `status` and in metrics. A stale one is this machine's. */
export type ServedFrom = 'local' | 'peer' | 'upstream'

export type ServedTotals = Record<ServedFrom, { requests: number; bytes: number }>

export function servedFrom({ provenance }: Served): ServedFrom | undefined {
  return provenance?.kind === 'stale' ? 'local' : provenance?.kind
}

/** What Prometheus sees, and the totals that `status` shows. */
export class Metrics {
  readonly registry = new Registry()
  readonly served: ServedTotals = {
    local: { requests: 0, bytes: 0 },
    peer: { requests: 0, bytes: 0 },
    upstream: { requests: 0, bytes: 0 },
  }
  readonly #requests = new Counter({
    name: 'shoal_requests_total',
    help: 'Requests of clients that were answered.',
    labelNames: ['kind', 'source', 'code'],
    registers: [this.registry],
  })
  readonly #servedBytes = new Counter({
    name: 'shoal_served_bytes_total',
    help: 'Bytes of bodies that were sent to clients.',
    labelNames: ['source'],
    registers: [this.registry],
  })
  readonly #seconds = new Histogram({
    name: 'shoal_request_seconds',
    help: 'Time until a request was answered, its body included.',
    labelNames: ['kind', 'source'],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300],
    registers: [this.registry],
  })
  readonly #upstream = new Counter({
    name: 'shoal_upstream_requests_total',
    help: 'Requests to endpoints, by status or by why there was none.',
    labelNames: ['endpoint', 'method', 'code'],
    registers: [this.registry],
  })
  readonly #wrong = new Counter({
    name: 'shoal_wrong_digests_total',
    help: 'Blobs that were thrown away because their bytes did not have the digest they were given for.',
    labelNames: ['source'],
    registers: [this.registry],
  })
  readonly #uploads = new Counter({
    name: 'shoal_uploads_total',
    help: 'Requests of peers that were answered.',
    labelNames: ['code'],
    registers: [this.registry],
  })
  readonly #sentBytes = new Counter({
    name: 'shoal_peer_sent_bytes_total',
    help: 'Bytes of bodies that were sent to peers.',
    registers: [this.registry],
  })
  readonly #pulls = new Counter({
    name: 'shoal_pulls_total',
    help: 'Images that clients of this machine have pulled.',
    registers: [this.registry],
  })
  readonly #refreshed = new Counter({
    name: 'shoal_prefetched_total',
    help: 'Tags that had moved, and were fetched ahead of the next pull.',
    registers: [this.registry],
  })
  readonly #refreshedBytes = new Counter({
    name: 'shoal_prefetched_bytes_total',
    help: 'Bytes that were fetched for these.',
    registers: [this.registry],
  })
  readonly #evictions = new Counter({
    name: 'shoal_evictions_total',
    help: 'Blobs that were removed, by why that had to be.',
    labelNames: ['cause'],
    registers: [this.registry],
  })
  readonly #evictedBytes = new Counter({
    name: 'shoal_evicted_bytes_total',
    help: 'Bytes of these.',
    labelNames: ['cause'],
    registers: [this.registry],
  })
  readonly #refusals = new Counter({
    name: 'shoal_refusals_total',
    help: 'Blobs that were pulled and not kept: all else was worth more, or nothing else could go.',
    labelNames: ['why'],
    registers: [this.registry],
  })
  readonly #stalls = new Counter({
    name: 'shoal_event_loop_stalls_total',
    help: 'Times that the daemon did not answer anybody for more than a second.',
    registers: [this.registry],
  })
  readonly #stalledSeconds = new Counter({
    name: 'shoal_event_loop_stalled_seconds_total',
    help: 'How long these took together.',
    registers: [this.registry],
  })

  constructor(store: Store) {
    collectDefaultMetrics({ register: this.registry })
    for (const source of ['local', 'peer', 'upstream']) this.#servedBytes.inc({ source }, 0)
    for (const cause of ['max_size', 'min_free', 'gc', 'rm']) this.#evictions.inc({ cause }, 0)
    gauge(this.registry, 'shoal_store_bytes', 'Bytes of the blobs that are held.', () => store.held.bytes)
    gauge(this.registry, 'shoal_store_blobs', 'Blobs that are held.', () => store.held.blobs)
    gauge(this.registry, 'shoal_transfers', 'Blobs that are arriving.', () => store.transfers.length)
  }

  /** Shows what a server has in progress. */
  follow(server: MirrorServer): void {
    gauge(this.registry, 'shoal_requests_in_progress', 'Requests of clients in progress.', () => server.active)
  }

  /** Shows who the peers are. */
  followPeers(peers: Peers): void {
    const count = (state: string) => peers.swarm?.peers.filter(peer => peer.state === state).length ?? 0
    gauge(this.registry, 'shoal_peers', 'Peers that are connected.', () => peers.swarm?.connected ?? 0)
    gauge(this.registry, 'shoal_banned_peers', 'Peers that are banned.', () => count('banned'))
    let seen = 0
    new Counter({
      name: 'shoal_peer_received_bytes_total',
      help: 'Bytes of bodies that were received from peers.',
      registers: [this.registry],
      collect() {
        const received = peers.receivedBytes
        this.inc(Math.max(0, received - seen))
        seen = received
      },
    })
  }

  /** Shows how many images are counted. */
  followPopularity(popularity: ImagePopularity): void {
    gauge(
      this.registry,
      'shoal_popularity_entries',
      'Images of which it is known how often they were pulled, here or by a peer.',
      () => popularity.entries,
    )
  }

  pull(): void {
    this.#pulls.inc()
  }

  refreshed(bytes: number): void {
    this.#refreshed.inc()
    this.#refreshedBytes.inc(bytes)
  }

  evicted({ size }: Evicted, cause: Cause): void {
    this.#evictions.inc({ cause })
    this.#evictedBytes.inc({ cause }, size)
  }

  refused(why: 'worth' | 'stuck'): void {
    this.#refusals.inc({ why })
  }

  upload({ status, bytes }: { readonly status: number; readonly bytes: number }): void {
    this.#uploads.inc({ code: String(status) })
    this.#sentBytes.inc(bytes)
  }

  request(served: Served): void {
    const { kind, status, bytes, ms } = served
    const from = servedFrom(served)
    const source = from ?? 'none'
    this.#requests.inc({ kind, source, code: String(status) })
    this.#seconds.observe({ kind, source }, ms / 1000)
    if (!from) return
    this.#servedBytes.inc({ source }, bytes)
    this.served[from].requests++
    this.served[from].bytes += bytes
  }

  upstreamRequest(endpoint: string, { method, code }: { method: string; code: string }): void {
    this.#upstream.inc({ endpoint, method, code })
  }

  stall({ ms }: Stall): void {
    this.#stalls.inc()
    this.#stalledSeconds.inc(ms / 1000)
  }

  wrongDigest(source: string): void {
    this.#wrong.inc({ source })
  }
}

function gauge(registry: Registry, name: string, help: string, value: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(value())
    },
  })
}
