import { createSecureContext } from 'node:tls'
import { Pulls } from '@shoal/mirror/pulls'
import { Refresher } from '@shoal/mirror/refresher'
import { Resolver } from '@shoal/mirror/resolver'
import { MirrorServer, type Served } from '@shoal/mirror/server'
import { Users } from '@shoal/mirror/users'
import { NoRoomError } from '@shoal/store/room'
import { SharedBlobs } from '@shoal/store/sharing'
import { Store } from '@shoal/store/store'
import { networkOf } from '@shoal/swarm/network'
import { Pace } from '@shoal/swarm/pace'
import { collections } from './admin/collection.ts'
import { imagesOf } from './admin/images.ts'
import { networkChanges } from './admin/network.ts'
import { pinnings } from './admin/pinning.ts'
import { popularImages } from './admin/popular.ts'
import { removals } from './admin/removal.ts'
import { Secret, secretFile } from './admin/secret.ts'
import { AdminServer } from './admin/server.ts'
import { statusOf } from './admin/status.ts'
import { callBacks, swarmOf } from './admin/swarm.ts'
import { unbans } from './admin/unban.ts'
import { verifications } from './admin/verification.ts'
import { descriptorLimit } from './descriptors.ts'
import { EventLoopWatch } from './event-loop.ts'
import { ImagePopularity, isSure } from './image-popularity.ts'
import { listen } from './listening.ts'
import type { Logger } from './log.ts'
import { Metrics, servedFrom } from './metrics.ts'
import { NetworkToken } from './network-token.ts'
import { OfficeLimits } from './office-limits.ts'
import { PeerLog } from './peer-log.ts'
import { Peers } from './peers.ts'
import { Politeness } from './politeness.ts'
import { publicSighting } from './public-tag.ts'
import type { Listen } from './quantity.ts'
import { mayShare, registriesOf } from './registries.ts'
import { Retention } from './retention.ts'
import { readSetting, SettingFileError, StartError } from './setting-file.ts'
import type { Settings } from './settings/schema.ts'
import { Storing } from './storing.ts'

/** How long requests under way may go on when the daemon is stopped, in ms. */
const grace = 2500

/** Of how many images, of those that are pulled most, it is looked whether they have moved. */
const mostRefreshed = 500

/** When it has been said that requests are refused, it is not said again for so long, in ms: writing is work, too. */
const refusalSilence = 10_000

/** A running daemon. */
export interface Daemon {
  readonly mirror: Listen
  readonly admin: Listen
  readonly held: { blobs: number; bytes: number }
  readonly maxBytes: number
  /** Who this machine is to its peers, and where they reach it; undefined if it has none. */
  readonly swarm:
    | { readonly network: string; readonly ports: { readonly swarm: number; readonly transfer: number } }
    | undefined
  /** Lets requests under way end, or parks them, and writes what is to be written. */
  close(): Promise<void>
}

/** @throws StartError, SettingFileError, StoreError */
export async function startDaemon(settings: Settings, log: Logger): Promise<Daemon> {
  const { data_dir, mirror, admin, swarm, tags, upstreams } = settings
  const tls = await tlsOf(mirror)
  const users = await usersOf(mirror)
  // Steady and in ms since the epoch: the breakers and tokens must not mind when the clock is set.
  const steadyNow = () => performance.timeOrigin + performance.now()
  const startedAt = steadyNow()
  const store = await Store.open({ folder: data_dir, onWarning: message => log.warn(message) })
  const closing: (() => Promise<void>)[] = [() => store.close()]
  try {
    const metrics = new Metrics(store)
    const registries = await registriesOf(upstreams, steadyNow, {
      request: (endpoint, request) => metrics.upstreamRequest(endpoint, request),
      rateLimit: (registry, endpoint, rateLimit) => limits.said(registry, endpoint, rateLimit),
    })
    closing.unshift(async () => {
      for (const registry of registries.values()) await registry.close()
    })
    const politeness = new Politeness({ now: steadyNow })
    void politeness.look()
    closing.unshift(async () => politeness[Symbol.dispose]())
    const peerLog = new PeerLog(log, steadyNow)
    const isShared = (registry: string) => mayShare(upstreams, registry)
    const shares = swarm.enabled && swarm.share === 'public'
    const onWarning = (message: string) => log.warn(message)
    const limits = new OfficeLimits({
      registries,
      log,
      tell: limit => shares && peers.swarm?.tell(limit),
      now: steadyNow,
    })
    closing.unshift(async () => limits[Symbol.dispose]())
    const sharing = shares ? new SharedBlobs({ store, mayShare: isShared, onWarning }) : undefined
    closing.unshift(async () => sharing?.[Symbol.dispose]())
    let resolver: Resolver | undefined
    const peers = new Peers({
      settings,
      sharing,
      open: async digest => {
        const blob = await store.open(digest)
        return blob && { blob, contentType: store.index.manifest(digest)?.mediaType ?? 'application/octet-stream' }
      },
      errand: async want => {
        eviction.wanted(want.digest)
        await resolver?.errand(want)
      },
      known: async (name, tag, check) => {
        if (shares && check) await resolver?.checkTag(name, tag)
        return shares ? publicSighting(store, isShared, name, tag) : undefined
      },
      limits: () => (shares ? limits.known : []),
      popularity: {
        rows: () => (shares ? popularity.rows() : []),
        heard: (peer, told) => popularity.heard(peer, told),
      },
      uploadPace: paceOf(swarm.max_upload_rate),
      resting: address => politeness.resting(address),
      now: steadyNow,
      events: {
        joined: peer => peerLog.joined(peer),
        left: (peer, why) => {
          // Else it is this machine that leaves.
          if (peers.swarm) peerLog.left(peer, why)
        },
        banned: ban => {
          popularity.forget(ban.id)
          peerLog.banned(ban)
        },
        gave: upload => metrics.upload(upload),
        limit: limit => limits.heard(limit),
        warning: (message, fields) => peerLog.warning(message, fields),
      },
    })
    metrics.followPeers(peers)
    const popularity = await ImagePopularity.open({
      store,
      mayShare: isShared,
      isConnected: peer => peers.swarm?.isConnected(peer) ?? false,
      now: Date.now,
      onFailure: error => void log.warn({ err: error }, 'keeping how often images are pulled failed'),
    })
    closing.unshift(() => popularity[Symbol.asyncDispose]())
    metrics.followPopularity(popularity)
    const storing = new Storing(data_dir, log)
    const { copies } = peers
    const retention = await Retention.open({
      settings: settings.store,
      store,
      storing,
      popularity,
      copies,
      metrics,
      log,
    })
    const { eviction, maxBytes } = retention
    closing.unshift(() => retention[Symbol.asyncDispose]())
    closing.unshift(() => peers.close())
    const joined = new NetworkToken(data_dir)
    if (swarm.enabled) await peers.enter(swarm.token === null ? await joined.network() : networkOf(swarm.token))
    const downloads = paceOf(swarm.max_download_rate)
    resolver = new Resolver({
      store,
      registries,
      tags,
      cachedOnly: mirror.cached_only,
      ...(swarm.enabled && { peers, peerTags: peers.tags }),
      ...(downloads && { pace: bytes => downloads.take(bytes) }),
      now: Date.now,
      random: Math.random,
      events: {
        wrongDigest: (source, digest) => {
          metrics.wrongDigest(source)
          log.warn({ source, digest }, `${source} gave wrong bytes for ${digest}; they were thrown away`)
        },
        // That a source is passed over was said when it failed.
        sourceFailed: (source, what, error) =>
          log[error.code === 'skipped' ? 'debug' : 'warn']({ source, what, code: error.code }, error.message),
        unstored: error => {
          // Of others there may be room.
          if (error instanceof NoRoomError && error.lacks === 'blob') log.info(`${error.message}: it is not kept`)
          else storing.failed(error)
        },
        stored: () => storing.succeeded(),
        failed: (what, error) => log.warn({ err: error }, `${what} failed`),
      },
    })
    closing.unshift(async () => resolver?.close())
    const refresher = settings.store.prefetch
      ? new Refresher({
          store,
          resolver,
          // One peer's word alone has nothing fetched.
          popular: () =>
            popularity
              .top(mostRefreshed)
              .filter(isSure)
              .map(({ image, office }) => ({ image, count: office })),
          responsible: (name, digest) => peers.swarm?.responsible(name, digest) ?? true,
          resting: () => politeness.resting(),
          now: Date.now,
          random: Math.random,
          events: {
            refreshed: ({ image, digest, bytes }) => {
              metrics.refreshed(bytes)
              log.info({ image, digest, bytes }, `${image} has moved, and was fetched ahead of the next pull`)
            },
            failed: (what, error) => log.warn({ err: error }, `${what} failed`),
          },
        })
      : undefined
    closing.unshift(async () => refresher?.[Symbol.asyncDispose]())
    const watch = new EventLoopWatch({
      now: () => performance.now(),
      onStall: stall => {
        metrics.stall(stall)
        log.warn({ ms: Math.round(stall.ms) }, 'the daemon stood still, and has answered nobody meanwhile')
      },
    })
    closing.unshift(async () => watch[Symbol.dispose]())
    const clients = new Map<string, { requests: number; last: number }>()
    let refusalsUnsaidUntil = 0
    const onServed = (served: Served) => {
      metrics.request(served)
      const { tool, kind } = served
      if (kind === 'refused') {
        if (steadyNow() < refusalsUnsaidUntil) return
        refusalsUnsaidUntil = steadyNow() + refusalSilence
        return log.warn({ tool }, `requests are refused: ${reasonOf(served.error)}`)
      }
      // Health checks and the curious are not clients.
      if (kind === 'other' || (kind === 'ping' && !clients.has(tool))) return logServed(log, served)
      const client = clients.get(tool) ?? { requests: 0, last: 0 }
      if (clients.size < 50 || clients.has(tool)) clients.set(tool, client)
      client.requests++
      client.last = steadyNow()
      logServed(log, served)
    }
    const pulls = new Pulls({
      manifest: digest => store.hotManifest(digest)?.manifest ?? store.index.manifest(digest),
      now: steadyNow,
      onPulled: image => {
        metrics.pull()
        popularity.pulled(image, Date.now())
        peers.swarm?.popularityChanged()
      },
    })
    const mirrorServer = new MirrorServer({
      resolver,
      pulls,
      onUsed: digest => eviction.used(digest),
      onServed,
      descriptors: descriptorLimit(),
      now: steadyNow,
      ...(tls && { tls }),
      ...(users && { users }),
    })
    metrics.follow(mirrorServer)
    let ready = false
    const adminServer = new AdminServer({
      ready: () => ready,
      health: () => ({ last_stall: stallOf(watch, performance.now()) }),
      metrics: async () => ({ contentType: metrics.registry.contentType, body: await metrics.registry.metrics() }),
      api: {
        status: () =>
          statusOf({
            settings,
            store,
            storing,
            registries,
            metrics,
            peers,
            politeness,
            clients,
            maxBytes,
            startedAt,
            now: steadyNow,
          }),
        images: () => imagesOf(store),
        popular: () => popularImages(store, popularity, copies),
        swarm: () => swarmOf({ settings, peers, politeness }),
      },
      actions: {
        verify: verifications({ store, resolver, now: steadyNow }),
        unban: unbans(peers),
        gc: collections(eviction, maxBytes),
        rm: removals(store, eviction),
        ...pinnings(store, Date.now),
        callback: callBacks(peers),
        ...networkChanges({ settings, peers, joined, log }),
      },
      secret: await secretOf(data_dir),
    })
    const adminAddress = await listen(adminServer, admin.listen, 'admin.listen')
    closing.unshift(() => adminServer.close())
    const mirrorAddress = await listen(mirrorServer, mirror.listen, 'mirror.listen')
    closing.unshift(() => mirrorServer.close(grace))
    ready = true
    return {
      mirror: mirrorAddress,
      admin: adminAddress,
      held: store.held,
      maxBytes,
      swarm: peers.swarm && { network: peers.swarm.network.name, ports: peers.swarm.ports },
      close: async () => {
        ready = false
        await closeAll(closing, log)
      },
    }
  } catch (error) {
    await closeAll(closing, log)
    throw error
  }
}

function paceOf(rate: number | null): Pace | undefined {
  return rate === null ? undefined : new Pace({ rate, now: () => performance.now() })
}

/** Closes one after another; what fails does not keep the rest from it. */
async function closeAll(closing: readonly (() => Promise<void>)[], log: Logger): Promise<void> {
  for (const close of closing) await close().catch(error => log.error({ err: error }, 'closing failed'))
}

async function secretOf(dataDir: string): Promise<Secret> {
  try {
    return await Secret.make(dataDir)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new StartError(`cannot write ${secretFile(dataDir)}: ${reason}`, { cause })
  }
}

async function tlsOf({ tls_cert, tls_key }: Settings['mirror']): Promise<{ cert: Buffer; key: Buffer } | undefined> {
  if (tls_cert === null || tls_key === null) return undefined
  const cert = await readSetting(tls_cert, 'mirror.tls_cert')
  const key = await readSetting(tls_key, 'mirror.tls_key')
  try {
    createSecureContext({ cert, key })
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    const files = `${tls_cert} and ${tls_key} are not a certificate and its key in PEM`
    throw new SettingFileError('mirror.tls_cert', `${files}: ${reason}`, { cause })
  }
  return { cert, key }
}

async function usersOf({ users_file }: Settings['mirror']): Promise<Users | undefined> {
  if (users_file === null) return undefined
  const text = await readSetting(users_file, 'mirror.users_file')
  try {
    return new Users(text.toString())
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : cause
    throw new SettingFileError('mirror.users_file', `${users_file}: ${reason}`, { cause })
  }
}

/** One line for what cost upstream or went wrong; hits are in the metrics. */
function logServed(log: Logger, served: Served): void {
  const { method, path, status, bytes, ms, tool, error, provenance } = served
  const fields = { method, path, status, bytes, ms: Math.round(ms), tool, from: servedFrom(served) }
  if (status >= 500) log.error({ ...fields, err: error }, 'request failed')
  else if (error !== undefined && status < 400) log.warn({ ...fields, reason: reasonOf(error) }, 'request broken off')
  else if (error !== undefined) log.info({ ...fields, reason: reasonOf(error) }, 'request refused')
  else if (provenance?.kind === 'upstream')
    log.info({ ...fields, host: provenance.host }, 'request answered from upstream')
  else if (provenance?.kind === 'stale')
    log.warn(fields, 'request answered with what was last known: upstream cannot be asked')
}

/** How long the last stall took, and how long ago it was over, in s. */
function stallOf({ last }: EventLoopWatch, now: number): { seconds: number; ago_s: number } | null {
  return last ? { seconds: Math.round(last.ms / 1000), ago_s: Math.round((now - last.until) / 1000) } : null
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
