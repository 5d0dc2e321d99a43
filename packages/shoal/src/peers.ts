import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Name } from '@shoal/oci/name'
import { type Disk, nodeDisk } from '@shoal/store/disk'
import type { Copies } from '@shoal/store/eviction'
import type { JointDownloads } from '@shoal/store/joint'
import type { Sighting } from '@shoal/store/refs'
import type { Source } from '@shoal/store/source'
import type { Network } from '@shoal/swarm/network'
import type { Swarm, SwarmEvents, SwarmOptions } from '@shoal/swarm/swarm'
import { probe } from './listening.ts'
import { StartError } from './setting-file.ts'
import type { Settings } from './settings/schema.ts'

export type PeersOptions = Pick<
  SwarmOptions,
  'sharing' | 'open' | 'errand' | 'limits' | 'popularity' | 'uploadPace' | 'resting' | 'now'
> & {
  readonly settings: Settings
  /** What this machine has seen a tag to be, if peers may know; undefined else. It may be checked first. */
  readonly known: SwarmOptions['tags']['known']
  readonly events: SwarmEvents
  /** @default the real disk */
  readonly disk?: Disk
}

/**
 * The swarm that this machine takes part in, or none. It can become another while the daemon runs; who asks for content
 * or tags needs not know.
 */
export class Peers {
  /** Asked before upstream, and when upstream has failed. While there is no swarm, they have nothing. */
  readonly source: Source = {
    label: 'peers',
    kind: 'peer',
    find: async (want, signal) => this.#swarm?.source.find(want, signal) ?? null,
  }
  readonly lastResort: Source = {
    label: 'peers',
    kind: 'peer',
    find: async (want, signal) => this.#swarm?.lastResort.find(want, signal) ?? null,
  }
  /** What others want at the same time. */
  readonly downloads: JointDownloads = {
    join: (want, transfer) => this.#swarm?.downloads.join(want, transfer),
  }
  /** Where else this machine's blobs are. */
  readonly copies: Copies = {
    proved: digest => this.#swarm?.copies(digest) ?? 0,
    claimed: digest => this.#swarm?.claimed(digest) ?? 0,
    keeps: digest => this.#swarm?.keeps(digest) ?? true,
    prove: async blobs => this.#swarm?.prove(blobs, this.#closing.signal),
  }
  /** What peers have seen tags to be. */
  readonly tags = {
    fresh: async (name: Name, tag: string, signal: AbortSignal): Promise<Sighting | undefined> =>
      this.#swarm?.tags.fresh(name, tag, signal),
    last: async (name: Name, tag: string, signal: AbortSignal): Promise<Sighting | undefined> =>
      this.#swarm?.tags.last(name, tag, signal),
  }
  readonly #options: PeersOptions
  #swarm: Swarm | undefined
  /** Changes of the network are made one after another. */
  #change: Promise<void> = Promise.resolve()
  readonly #closing = new AbortController()

  constructor(options: PeersOptions) {
    this.#options = options
  }

  get swarm(): Swarm | undefined {
    return this.#swarm
  }

  /** Of the peers that are known now, since their network was entered. */
  get receivedBytes(): number {
    return this.#swarm?.peers.reduce((sum, { received_bytes }) => sum + received_bytes, 0) ?? 0
  }

  /**
   * Leaves the network that this machine is in, if any, and enters another.
   * @throws StartError
   */
  enter(network: Network): Promise<void> {
    const changed = this.#change.then(async () => {
      if (this.#closing.signal.aborted || this.#swarm?.network.name === network.name) return
      await this.#leave()
      this.#swarm = await this.#open(network)
    })
    this.#change = changed.catch(() => {})
    return changed
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('shoal is stopping'))
    await this.#change
    await this.#leave()
  }

  async #leave(): Promise<void> {
    const swarm = this.#swarm
    this.#swarm = undefined
    await swarm?.close()
  }

  async #open(network: Network): Promise<Swarm> {
    const {
      settings,
      disk = nodeDisk,
      sharing,
      open,
      errand,
      known,
      limits,
      popularity,
      uploadPace,
      resting,
      now,
      events,
    } = this.#options
    const { swarm, tags } = settings
    const { listen, transfer_listen, mdns, bootstrap, max_uploads } = swarm
    const believes = tags.from_peers === 'always' || (tags.from_peers === 'private' && network.private)
    await probe(listen, 'swarm.listen')
    await probe(transfer_listen, 'swarm.transfer_listen')
    // A daemon of its own does without libp2p.
    const { Swarm } = await import('@shoal/swarm/swarm')
    try {
      return await Swarm.open({
        folder: join(settings.data_dir, 'swarm'),
        disk,
        network,
        listen,
        transferListen: transfer_listen,
        mdns,
        bootstrap,
        name: hostname(),
        sharing,
        open,
        tags: { believes, ttl: tags.ttl, known },
        errand,
        ...(limits && { limits }),
        ...(popularity && { popularity }),
        maxUploads: max_uploads,
        uploadPace,
        resting,
        now,
        clock: Date.now,
        random: Math.random,
        events,
      })
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new StartError(`cannot take part in the LAN: ${reason}; swarm.enabled = false goes without`, { cause })
    }
  }
}
