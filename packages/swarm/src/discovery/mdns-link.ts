import { BlockList, isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import type { LanInterface } from '../network-watch.ts'
import {
  type Announcement,
  announcementsIn,
  asksFor,
  instanceName,
  recordsOf,
  serviceLabel,
  serviceName,
  timeToLive,
} from './announcement.ts'
import { type DnsRecord, decodeDns, encodeDns, mostBytes, recordTypes } from './dns-message.ts'
import type { LinkAddress, MulticastSocket, SocketEvents } from './multicast-socket.ts'
import { PacketBudget } from './packet-budget.ts'

/** Pauses between questions, in ms: at first, and at most, by the number of peers that are known. */
const firstPause = 1000
const lonelyPause = 60_000
const longestPause = 3_600_000

/** Announcements at each beginning, and the pause between them, in ms (RFC 6762, section 8.3). */
const announcements = 2
const announcePause = 1000

/** Answers wait so long, in ms, lest all come at once; between two there is a pause (RFC 6762, section 6). */
const answerDelay = { least: 20, most: 120 }
const answerPause = 1000

/** Until a socket that failed is opened again, or an announcement that was not sent is repeated, in ms. */
const firstRetry = 1000
const longestRetry = 60_000

/** Known answers in one question; they fit into a frame of Ethernet. */
const mostKnown = 16

/** How long a goodbye may take to leave, in ms. */
const goodbyeTime = 200

export type LinkOptions = {
  readonly address: LinkAddress
  /** Addresses of the interface of the same family: who is of their networks is on the link. */
  readonly networks: readonly LanInterface[]
  /** What is announced on it. */
  readonly announcement: Announcement
  readonly knownPeers: () => number
  /** An announcement of somebody's. @param here whether it comes from this machine */
  readonly onAnnouncement: (announcement: Announcement & { readonly leaving: boolean }, here: boolean) => void
  readonly openSocket: (address: LinkAddress, events: SocketEvents) => MulticastSocket
  /** In ms, never going back. */
  readonly now: () => number
  /** From 0 up to 1. */
  readonly random: () => number
  /** Calls `then` after so many ms, unless disposed of before. */
  readonly after: (ms: number, then: () => void) => Disposable
}

/**
 * The pause after a question, in ms: 1 s, 3 s, 9 s and so on, up to a minute for each peer that is known and one more,
 * and to an hour. @param asked questions asked since the last beginning
 */
export function pauseAfter(asked: number, knownPeers: number): number {
  return Math.min(firstPause * 3 ** (asked - 1), lonelyPause * (1 + knownPeers), longestPause)
}

/** Multicast DNS on one interface and over one family of addresses: asks, announces and answers. */
export class MdnsLink {
  readonly #options: LinkOptions
  readonly #budget: PacketBudget
  readonly #neighbours: BlockList
  /** Who was heard, and when. */
  readonly #heard = new Map<string, number>()
  #socket: MulticastSocket | undefined
  #opened = false
  #closed = false
  #hearsItself = false
  #failures = 0
  #beganAt = Number.NEGATIVE_INFINITY
  #announcedAt = Number.NEGATIVE_INFINITY
  #announcing: Disposable | undefined
  #asking: Disposable | undefined
  #answering: Disposable | undefined
  #retrying: Disposable | undefined

  constructor(options: LinkOptions) {
    this.#options = options
    this.#budget = new PacketBudget(options.now)
    this.#neighbours = networksOf(options.networks)
    this.#open()
  }

  /** Whether what was announced here has come back since the socket was opened. */
  get hearsItself(): boolean {
    return this.#hearsItself
  }

  /** Begins anew: announces, and asks everybody, at once. Not more often than once a second. */
  begin(): void {
    const { now, random, after } = this.#options
    if (!this.#opened || now() - this.#beganAt < firstPause) return
    this.#beganAt = now()
    this.#heard.clear()
    this.#stop()
    // All machines of an office may come back with its power.
    const delay = answerDelay.most * random()
    this.#announcing = after(delay, () => void this.#announce(announcements, announcePause))
    this.#asking = after(delay, () => this.#ask(1))
  }

  /** @param goodbye whether the others are to be told that the peer is leaving */
  async close({ goodbye }: { readonly goodbye: boolean }): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#stop()
    this.#retrying?.[Symbol.dispose]()
    const socket = this.#socket
    if (goodbye && this.#opened && socket) {
      const bytes = encodeDns({ response: true, answers: recordsOf(this.#options.announcement, 0) })
      await Promise.race([socket.send(bytes), new Promise<void>(resolve => this.#options.after(goodbyeTime, resolve))])
    }
    socket?.close()
  }

  #open(): void {
    this.#socket = this.#options.openSocket(this.#options.address, {
      opened: () => {
        if (this.#closed) return
        this.#opened = true
        this.#beganAt = Number.NEGATIVE_INFINITY
        this.begin()
      },
      received: (bytes, from) => this.#received(bytes, from),
      failed: () => this.#failed(),
    })
  }

  #failed(): void {
    this.#opened = false
    this.#hearsItself = false
    this.#socket = undefined
    this.#stop()
    if (this.#closed) return
    const pause = Math.min(firstRetry * 2 ** this.#failures++, longestRetry)
    this.#retrying = this.#options.after(pause, () => this.#open())
  }

  #stop(): void {
    for (const timer of [this.#announcing, this.#asking, this.#answering]) timer?.[Symbol.dispose]()
    this.#answering = undefined
  }

  async #send(message: Parameters<typeof encodeDns>[0]): Promise<boolean> {
    const sent = (await this.#socket?.send(encodeDns(message))) ?? false
    if (sent) this.#failures = 0
    return sent
  }

  /** What can't be sent yet, such as from an IPv6 address that is still being looked at, is sent later. */
  async #announce(left: number, pause: number): Promise<void> {
    const { now, after } = this.#options
    const beganAt = this.#beganAt
    this.#announcedAt = now()
    const sent = await this.#send({ response: true, answers: recordsOf(this.#options.announcement) })
    if (this.#closed || !this.#opened || this.#beganAt !== beganAt || (sent && left <= 1)) return
    if (sent) this.#announcing = after(announcePause, () => void this.#announce(left - 1, announcePause))
    else this.#announcing = after(pause, () => void this.#announce(left, Math.min(pause * 2, longestRetry)))
  }

  #ask(asked: number): void {
    const { now, random } = this.#options
    const { peerId } = this.#options.announcement
    const since = now() - (timeToLive * 1000) / 2
    const known = [...this.#heard].filter(([, at]) => at >= since).slice(-mostKnown)
    void this.#send({
      questions: [{ name: serviceName, type: recordTypes.PTR }],
      // This machine knows itself, too.
      answers: [
        ...known.map(([id, at]) => knownAnswer(id, timeToLive - (now() - at) / 1000)),
        knownAnswer(peerId, timeToLive),
      ],
    })
    this.#askAgain(asked, now(), 0.9 + 0.2 * random())
  }

  /** Asks when its time has come, which may be sooner than it was: peers leave. */
  #askAgain(asked: number, askedAt: number, spread: number): void {
    const { now, knownPeers, after } = this.#options
    const left = askedAt + pauseAfter(asked, knownPeers()) * spread - now()
    if (left <= 0) this.#ask(asked + 1)
    else this.#asking = after(Math.min(left, lonelyPause), () => this.#askAgain(asked, askedAt, spread))
  }

  #received(bytes: Buffer, from: string): void {
    if (this.#closed || bytes.length > mostBytes || !bytes.includes(serviceLabel)) return
    if (!this.#isOnLink(from) || !this.#budget.take(from)) return
    const message = decodeDns(bytes)
    if (!message) return
    const { announcement, onAnnouncement, networks, now } = this.#options
    if (!message.response) {
      if (asksFor(message, announcement.peerId)) this.#answerSoon()
      return
    }
    const here = networks.some(({ address }) => address === from.split('%', 1)[0])
    for (const found of announcementsIn(message)) {
      if (found.peerId === announcement.peerId) this.#hearsItself = true
      else if (found.leaving) this.#heard.delete(found.peerId)
      else this.#remember(found.peerId, now())
      onAnnouncement(found, here)
    }
  }

  #remember(peerId: string, at: number): void {
    this.#heard.delete(peerId)
    this.#heard.set(peerId, at)
    const [oldest] = this.#heard.keys()
    if (this.#heard.size > mostKnown && oldest !== undefined) this.#heard.delete(oldest)
  }

  #answerSoon(): void {
    if (this.#answering || !this.#opened) return
    const { now, random, after } = this.#options
    const delay = answerDelay.least + (answerDelay.most - answerDelay.least) * random()
    this.#answering = after(Math.max(delay, this.#announcedAt + answerPause - now()), () => {
      this.#answering = undefined
      this.#announcedAt = now()
      void this.#send({ response: true, answers: recordsOf(this.#options.announcement) })
    })
  }

  /**
   * Linux gives a socket what comes on any interface whose group somebody on the machine has joined, and IPv4 addresses
   * don't say where they are from: the link is told by its network.
   */
  #isOnLink(from: string): boolean {
    const [address = '', scope] = from.split('%')
    if (scope !== undefined) return scope === this.#options.address.scope
    return isIP(address) > 0 && this.#neighbours.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
  }
}

function knownAnswer(peerId: string, ttl: number): DnsRecord {
  return { name: serviceName, ttl: Math.ceil(ttl), flush: false, type: 'PTR', target: instanceName(peerId) }
}

function networksOf(interfaces: readonly LanInterface[]): BlockList {
  const list = new BlockList()
  for (const { address, netmask, family } of interfaces) {
    const prefix = ipaddr.parse(netmask).prefixLengthFromSubnetMask() ?? 8 * (family === 4 ? 4 : 16)
    list.addSubnet(address, prefix, `ipv${family}`)
  }
  return list
}
