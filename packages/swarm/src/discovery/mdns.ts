import { randomBytes } from 'node:crypto'
import { isLanAddress, isLoopback } from '../lan-address.ts'
import type { LanInterface } from '../network-watch.ts'
import { type Announcement, isMarkOf, markOf, mostHosts } from './announcement.ts'
import { MdnsLink } from './mdns-link.ts'
import { type LinkAddress, type MulticastSocket, openMulticastSocket, type SocketEvents } from './multicast-socket.ts'

/** Links looked after: a machine full of containers has many networks. */
const mostLinks = 64

/** How long others are counted after they were last heard, in ms, and how many. */
const strangerTime = 10 * 60_000
const heardTime = 2 * 3_600_000
const mostCounted = 1024

export type Found = { readonly peerId: string; readonly host: string; readonly port: number }

/** What of a NetworkWatch is needed. */
type Watch = {
  readonly interfaces: readonly LanInterface[]
  on(event: 'changed' | 'woke', listener: () => void): unknown
  off(event: 'changed' | 'woke', listener: () => void): unknown
}

export type MdnsOptions = {
  readonly watch: Watch
  readonly peerId: string
  /** The port that peers dial. */
  readonly port: number
  /** 32 bytes that all members of the network have. */
  readonly markKey: Uint8Array
  /** The more there are, the less is asked. */
  readonly knownPeers: () => number
  /** A peer of this network, at an address of the LAN; IPv6 link-local with its scope. Told at each sight. */
  readonly onFound: (found: Found) => void
  /** @default UDP sockets at port 5353 */
  readonly openSocket?: (address: LinkAddress, events: SocketEvents) => MulticastSocket
  /** In ms, never going back. @default performance.now */
  readonly now?: () => number
  /** From 0 up to 1. @default Math.random */
  readonly random?: () => number
  /** Calls `then` after so many ms, unless disposed of before. @default setTimeout */
  readonly after?: (ms: number, then: () => void) => Disposable
}

export type MdnsDiagnosis = {
  /** Interfaces other than loopback, and whether what is announced there comes back. */
  readonly interfaces: readonly { readonly name: string; readonly hearsItself: boolean }[]
  /** Peers of this network on other machines that were heard. */
  readonly heard: number
  /** Peers of other networks that were heard in the last 10 minutes. */
  readonly strangers: number
}

type OpenLink = {
  readonly name: string
  readonly internal: boolean
  readonly signature: string
  readonly link: MdnsLink
}

/**
 * Finds peers of the LAN by DNS-SD over multicast DNS (RFC 6762, RFC 6763), and is found by them. There is a socket for
 * each interface and family of addresses, and one on IPv4's loopback, by which daemons of one machine find each other
 * when it has no LAN.
 *
 * No name is probed for: names are made of peer ids, which nobody else has. Questions from other ports than 5353, to be
 * answered to one address alone, are not answered.
 */
export class Mdns {
  readonly #options: Required<MdnsOptions>
  readonly #mark: Buffer
  readonly #links = new Map<string, OpenLink>()
  readonly #heard = new Map<string, number>()
  readonly #strangers = new Map<string, number>()
  readonly #refit = () => this.#fit()
  readonly #reopen = () => this.#fit({ anew: true })
  #closed = false

  static open(options: MdnsOptions): Mdns {
    return new Mdns(options)
  }

  private constructor(options: MdnsOptions) {
    this.#options = {
      openSocket: openMulticastSocket,
      now: () => performance.now(),
      random: Math.random,
      after: (ms, then) => setTimeout(then, ms).unref(),
      ...options,
    }
    this.#mark = markOf(options.markKey, options.peerId, randomBytes(8))
    options.watch.on('changed', this.#refit)
    // Systems forget memberships of groups while they sleep.
    options.watch.on('woke', this.#reopen)
    this.#fit()
  }

  get diagnosis(): MdnsDiagnosis {
    const interfaces = new Map<string, boolean>()
    for (const { name, internal, link } of this.#links.values())
      if (!internal) interfaces.set(name, link.hearsItself || (interfaces.get(name) ?? false))
    return {
      interfaces: [...interfaces].map(([name, hearsItself]) => ({ name, hearsItself })),
      heard: countSince(this.#heard, this.#options.now() - heardTime),
      strangers: countSince(this.#strangers, this.#options.now() - strangerTime),
    }
  }

  /** Announces and asks at once, on all links. */
  hurry(): void {
    for (const { link } of this.#links.values()) link.begin()
  }

  /** Says goodbye. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#options.watch.off('changed', this.#refit)
    this.#options.watch.off('woke', this.#reopen)
    await Promise.all([...this.#links.values()].map(({ link }) => link.close({ goodbye: true })))
    this.#links.clear()
  }

  /** Opens links to where there are none yet, and closes those that have changed. @param anew all of them */
  #fit({ anew = false }: { readonly anew?: boolean } = {}): void {
    if (this.#closed) return
    const wanted = linksOf(this.#options.watch.interfaces)
    for (const [key, { signature, link }] of this.#links) {
      if (!anew && wanted.get(key)?.signature === signature) continue
      this.#links.delete(key)
      void link.close({ goodbye: false })
    }
    for (const [key, { name, internal, signature, address, networks, hosts }] of wanted) {
      if (this.#links.has(key) || this.#links.size >= mostLinks) continue
      const { peerId, port, knownPeers, openSocket, now, random, after } = this.#options
      const link = new MdnsLink({
        address,
        networks,
        announcement: { peerId, port, mark: this.#mark, hosts },
        knownPeers,
        onAnnouncement: (announcement, here) => this.#announced(announcement, { address, internal, here }),
        openSocket,
        now,
        random,
        after,
      })
      this.#links.set(key, { name, internal, signature, link })
    }
  }

  #announced(
    announcement: Announcement & { readonly leaving: boolean },
    { address, internal, here }: { address: LinkAddress; internal: boolean; here: boolean },
  ): void {
    const { peerId: self, markKey, onFound, now } = this.#options
    const { peerId, port, hosts, leaving } = announcement
    if (peerId === self || this.#closed) return
    const member = isMarkOf(markKey, announcement)
    if (!member) note(this.#strangers, peerId, leaving, now())
    else if (!here) note(this.#heard, peerId, leaving, now())
    if (!member || leaving) return
    for (const host of hosts) {
      // What is loopback for one machine is itself for another.
      if (!isLanAddress(host) || isLoopback(host) !== internal) continue
      onFound({ peerId, port, host: /^fe[89ab]/i.test(host) ? `${host}%${address.scope}` : host })
    }
  }
}

type WantedLink = {
  readonly name: string
  readonly internal: boolean
  readonly signature: string
  readonly address: LinkAddress
  readonly networks: readonly LanInterface[]
  readonly hosts: readonly string[]
}

/** A link for each interface and family. Loopback has multicast over IPv4 only. */
function linksOf(interfaces: readonly LanInterface[]): Map<string, WantedLink> {
  const links = new Map<string, WantedLink>()
  for (const [name, all = []] of Object.entries(Object.groupBy(interfaces, ({ name }) => name))) {
    const internal = all.some(other => other.internal)
    const usable = all.filter(({ family }) => !internal || family === 4)
    // IPv4 first: it is the likeliest to be listened at.
    const hosts = usable.toSorted((a, b) => rank(a) - rank(b)).map(({ address }) => address)
    for (const family of [4, 6] as const) {
      const networks = usable.filter(other => other.family === family)
      const [first] = networks
      const scope = scopeOf(name, networks)
      if (!first || scope === undefined) continue
      links.set(`${name} ${family}`, {
        name,
        internal,
        signature: JSON.stringify(usable),
        address: { family, address: first.address, scope },
        networks,
        hosts: hosts.slice(0, mostHosts),
      })
    }
  }
  return links
}

function rank({ family, scopeid }: LanInterface): number {
  return family === 4 ? 0 : scopeid === undefined ? 1 : 2
}

/** Windows knows interfaces by their numbers; IPv4 needs no scope. */
function scopeOf(name: string, networks: readonly LanInterface[]): string | undefined {
  if (process.platform !== 'win32') return name
  if (networks.every(({ family }) => family === 4)) return ''
  return networks.find(({ scopeid }) => scopeid !== undefined)?.scopeid?.toString()
}

/** Notes that somebody was heard, who counts until leaving; of too many the longest silent is forgotten. */
function note(heard: Map<string, number>, peerId: string, leaving: boolean, now: number): void {
  heard.delete(peerId)
  if (!leaving) heard.set(peerId, now)
  const [oldest] = heard.keys()
  if (heard.size > mostCounted && oldest !== undefined) heard.delete(oldest)
}

function countSince(heard: ReadonlyMap<string, number>, since: number): number {
  return [...heard.values()].filter(at => at >= since).length
}
