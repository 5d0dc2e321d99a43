import type { Target, Via } from '../dialer.ts'
import type { Network } from '../network.ts'
import type { NetworkWatch } from '../network-watch.ts'
import { BootstrapPeer, type Lookup } from './bootstrap.ts'
import { Mdns, type MdnsDiagnosis } from './mdns.ts'
import { type SrvTarget, searchDomains, srvTargets } from './srv.ts'

/** How often bootstrap hosts are resolved and asked for anew, in ms: while nobody is connected, and otherwise. */
const lonelyEvery = 15_000
const companyEvery = 5 * 60_000

export type DiscoveryOptions = {
  readonly self: string
  /** The port that peers dial. */
  readonly port: number
  readonly network: Network
  readonly watch: NetworkWatch
  readonly mdns: boolean
  /** `swarm.bootstrap` of the settings. */
  readonly bootstrap: readonly string[]
  readonly connected: () => number
  readonly onFound: (target: Target, via: Via) => void
  /** A host of the settings has no address now. Told each time that it is looked for. */
  readonly onNowhere?: (host: string) => void
  /** Resolves the names of bootstrap hosts. @default the system's */
  readonly lookup?: Lookup
  /** Where the DNS says that peers are. @default by the machine's search domains */
  readonly services?: () => Promise<readonly SrvTarget[]>
}

/** Finds peers: by multicast on the LAN, in the DNS, and where the settings say. */
export class Discovery {
  readonly #mdns: Mdns | undefined
  readonly #options: DiscoveryOptions
  readonly #bootstrap: readonly BootstrapPeer[]
  /** Addresses that the settings lead to: they may be public. */
  readonly #named = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #closed = false

  private constructor(options: DiscoveryOptions, mdns: Mdns | undefined) {
    this.#options = options
    this.#mdns = mdns
    this.#bootstrap = options.bootstrap.map(text => new BootstrapPeer(text, options.lookup))
  }

  static open(options: DiscoveryOptions): Discovery {
    const { self, port, network, watch, connected, onFound } = options
    const mdns = options.mdns
      ? Mdns.open({
          watch,
          peerId: self,
          port,
          markKey: network.markKey,
          knownPeers: connected,
          onFound: found => onFound(found, 'mdns'),
        })
      : undefined
    const discovery = new Discovery(options, mdns)
    void discovery.#look()
    return discovery
  }

  /** Whether an address is one that the settings lead to. */
  names(host: string): boolean {
    return this.#named.has(host)
  }

  /** What multicast has brought; undefined if it is off. */
  get diagnosis(): MdnsDiagnosis | undefined {
    return this.#mdns?.diagnosis
  }

  /** Asks everywhere at once: the machine has woken, or its network has changed. Multicast sees that by itself. */
  hurry(): void {
    clearTimeout(this.#timer)
    void this.#look()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#mdns?.close()
  }

  /** Asks the DNS, and those whom the settings name. */
  async #look(): Promise<void> {
    const { onFound, onNowhere, connected, services = systemServices } = this.#options
    const bootstrap = this.#bootstrap.map(async peer => {
      const targets = await peer.addresses()
      if (targets.length === 0 && !this.#closed) onNowhere?.(peer.host)
      for (const target of targets) {
        this.#named.add(target.host)
        if (!this.#closed) onFound(target, 'bootstrap')
      }
    })
    const srv = services().then(targets => {
      for (const target of targets) if (!this.#closed) onFound(target, 'srv')
    })
    await Promise.allSettled([...bootstrap, srv])
    if (this.#closed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#look(), connected() > 0 ? companyEvery : lonelyEvery).unref()
  }
}

async function systemServices(): Promise<readonly SrvTarget[]> {
  return srvTargets(await searchDomains())
}
