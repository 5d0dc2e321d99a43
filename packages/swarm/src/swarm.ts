import type { Connection, Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import type { Digest } from '@shoal/oci/digest'
import { formatName } from '@shoal/oci/name'
import type { Disk } from '@shoal/store/disk'
import type { Sharing } from '@shoal/store/sharing'
import type { Source, Want } from '@shoal/store/source'
import type { HeldBlob } from '@shoal/store/store'
import { Announcer } from './announcer.ts'
import { type CallBack, CallBacks } from './call-back.ts'
import { CertificateHolder } from './certificate.ts'
import { type Address, Dialer, type Target, type Via } from './dialer.ts'
import { Discovery } from './discovery/discovery.ts'
import type { MdnsDiagnosis } from './discovery/mdns.ts'
import { Errands } from './errands.ts'
import { Holdings } from './holdings.ts'
import { HoldingsInbox } from './holdings-inbox.ts'
import { loadIdentity } from './identity.ts'
import { PeerDownloads } from './joint-downloads.ts'
import { isLanAddress, isLoopback } from './lan-address.ts'
import { Member } from './member.ts'
import { isSpreadMessage, type LimitMessage, type Message } from './message.ts'
import type { Network } from './network.ts'
import { NetworkWatch } from './network-watch.ts'
import { dial, hostOf, mostPeers, multiaddrOf, type Node, portOf, startNode } from './node.ts'
import type { Pace } from './pace.ts'
import { type Ban, PeerBook } from './peer-book.ts'
import { PeerClient } from './peer-client.ts'
import { PeerServer } from './peer-server.ts'
import { PeersSource } from './peers-source.ts'
import { type PopularityExchange, PopularityGossip, popularityTopic } from './popularity-gossip.ts'
import { Provider } from './provider.ts'
import { Replicas } from './replicas.ts'
import { Session } from './session.ts'
import { isSignedBy, signerOf } from './signature.ts'
import { coordinatorsOf } from './spread/coordinators.ts'
import { TagRecords, type TagRecordsOptions } from './tag-records.ts'

/** What two peers tell each other all the time. */
const protocol = '/shoal/1/peer'

/** Among the features of a peer: it shares downloads that are under way. */
const spreading = 'spread'

/** Among the features of a peer: it hears what is pulled elsewhere. */
const hearing = 'popularity'

/** How long one who has left may still fetch, in ms: it may just be connecting anew. */
const grace = 30_000

/** How long a connection may be there without a session, in ms. */
const idleTime = 6000

/** Members from one address, loopback apart: one host must not take all the places. */
const mostFromOneAddress = 32

/** Of the protocol; docs/protocol.md. */
const version = 1

/** Two sessions this close together, in ms, are two peers that dialled each other at once. */
const crossing = 5000

/** How long it takes to meet those whom a peer has told of, in ms. */
const settlingTime = 5000

/** Peers told of in one message, and taken from one. */
const mostTold = 128

/** What is remembered of peers as providers while they are away. */
const mostProviders = 1024

/** A peer as `shoal peers` shows it. Times in ms since the epoch, bytes since the start. */
export type PeerStatus = {
  readonly id: string
  readonly name: string | null
  readonly addresses: readonly string[]
  readonly blobs: number
  readonly rtt_ms: number | null
  readonly received_bytes: number
  readonly sent_bytes: number
  /** `resting`: connected, but gives nothing now (battery, metered line); `away`: was met before. */
  readonly state: 'connected' | 'resting' | 'away' | 'banned'
  readonly ban: { readonly reason: string; readonly at: number; readonly until: number | null } | null
}

export type SwarmEvents = {
  joined(peer: { id: string; name: string; address: string }): void
  left(peer: { id: string; name: string }, why: string | undefined): void
  banned(ban: Ban): void
  /** Bytes that a peer was sent, or refused. */
  gave(upload: { peer: string; status: number; bytes: number }): void
  /** A peer says what a registry has said of its limit of pulls. */
  limit(limit: LimitMessage): void
  warning(message: string, fields?: Readonly<Record<string, unknown>>): void
}

export type SwarmOptions = {
  /** Where the key and the peer book are kept. */
  readonly folder: string
  readonly disk: Disk
  readonly network: Network
  readonly listen: Address
  readonly transferListen: Address
  readonly mdns: boolean
  readonly bootstrap: readonly string[]
  /** What this machine is called. */
  readonly name: string
  /** What peers may have; undefined to give nothing. */
  readonly sharing: Sharing | undefined
  readonly open: (digest: Digest) => Promise<{ blob: HeldBlob; contentType: string } | undefined>
  /** Whether peers are believed about tags, for how long (in ms), and what they may know of this machine's. */
  readonly tags: Pick<TagRecordsOptions, 'believes' | 'ttl' | 'known'>
  /** Fetches something for a peer that has no way to the registry; resolves when that is over, however. */
  readonly errand: (want: Want) => Promise<void>
  /** What registries were heard to say of their limits of pulls: what to tell who joins. @default nothing */
  readonly limits?: () => readonly LimitMessage[]
  /** What peers hear of what is pulled here, if anything is given to them, and what this machine hears. @default nothing */
  readonly popularity?: PopularityExchange
  readonly maxUploads: number
  readonly uploadPace: Pace | undefined
  /** Why nothing is given now, over the interface of `localAddress`; undefined if it is. */
  readonly resting: (localAddress?: string) => string | undefined
  /** In ms, never going back. */
  readonly now: () => number
  /** In ms since the epoch. */
  readonly clock: () => number
  readonly random: () => number
  readonly events: SwarmEvents
}

/** This machine among its peers: who is there, what they have, and the bytes between them. */
export class Swarm implements AsyncDisposable {
  readonly peerId: string
  readonly network: Network
  /** Peers as a source of content: one that is asked before upstream, and one that is asked when upstream has failed. */
  readonly source: Source
  readonly lastResort: Source
  /** What this machine and others want at the same time. */
  readonly downloads: PeerDownloads
  readonly tags: TagRecords
  readonly #options: SwarmOptions
  readonly #node: Node
  readonly #book: PeerBook
  readonly #holdings: Holdings
  readonly #replicas: Replicas
  readonly #members = new Map<string, Member>()
  readonly #providers = new Map<string, Provider>()
  /** When those who were members left. */
  readonly #leftAt = new Map<string, number>()
  readonly #certificate: CertificateHolder
  readonly #server: PeerServer
  readonly #client: PeerClient
  readonly #dialer: Dialer
  readonly #watch: NetworkWatch
  readonly #callBacks: CallBacks
  readonly #errands: Errands
  readonly #popularity: PopularityGossip | undefined
  readonly #abort = new AbortController()
  #discovery: Discovery | undefined
  #transferPort = 0
  #swarmPort = 0
  #willing = true
  #chores: NodeJS.Timeout | undefined

  /** @throws IdentityError, ListenError */
  static async open(options: SwarmOptions): Promise<Swarm> {
    const { folder, disk, clock, events } = options
    await disk.makeFolder(folder, 0o700)
    const identity = await loadIdentity(folder, disk)
    const onError = (error: Error) => events.warning(error.message)
    const book = await PeerBook.open({ folder, disk, now: clock, onError })
    const certificate = await CertificateHolder.make(identity.privateKey)
    let swarm: Swarm | undefined
    const node = await startNode({
      privateKey: identity.privateKey,
      listen: options.listen,
      psk: options.network.psk,
      admits: host => swarm?.admits(host) ?? isLanAddress(host),
      admitsPeer: id => !book.isBanned(id),
      gossip: { topic: popularityTopic, now: options.now },
    })
    try {
      swarm = new Swarm(options, node, identity.peerId, book, certificate)
      await swarm.#start()
      return swarm
    } catch (error) {
      await (swarm ? swarm.close() : node.stop())
      throw error
    }
  }

  private constructor(
    options: SwarmOptions,
    node: Node,
    peerId: string,
    book: PeerBook,
    certificate: CertificateHolder,
  ) {
    const { now, clock, random, events, network, open, sharing } = options
    this.#options = options
    this.#node = node
    this.#book = book
    this.#certificate = certificate
    this.peerId = peerId
    this.network = network
    this.#holdings = new Holdings({
      random,
      onFull: peer => events.warning(`${this.#nameOf(peer)} announces too much`),
    })
    this.#watch = new NetworkWatch({ host: options.listen.host })
    this.#client = new PeerClient({ certificate: certificate.current })
    this.#server = new PeerServer({
      certificate: certificate.current,
      now,
      admits: id => this.#mayFetch(id),
      admitsAddress: host => this.admits(host),
      open: async digest => {
        const held = sharing?.has(digest) ? await open(digest) : undefined
        return held && { ...held, blob: this.#replicas.watch(held.blob) }
      },
      openChunk: (peer, digest, chunk, has) => this.downloads.openChunk(peer, digest, chunk, has),
      maxUploads: options.maxUploads,
      ...(options.uploadPace && { pace: options.uploadPace }),
      resting: options.resting,
      onServed: ({ peer, status, bytes }) => {
        const provider = this.#providers.get(peer)
        if (provider) provider.sentBytes += bytes
        events.gave({ peer, status, bytes })
      },
    })
    this.#dialer = new Dialer({
      self: peerId,
      dial: async target => {
        const connection = await dial(node, target)
        await this.#meet(connection)
        return connection.remotePeer.toString()
      },
      isConnected: ({ peerId, addresses }) => this.#isConnected(peerId, addresses),
      isBanned: id => book.isBanned(id),
      now,
      random,
      onFailure: (target, via, error) => this.#notReached(target, via, error),
    })
    const peers = {
      holders: (digest: Digest) => this.#holders(digest),
      client: this.#client,
      lacks: (provider: Provider, digest: Digest) => {
        this.#holdings.lacks(provider.id, digest)
        this.#replicas.lacks(provider.id, digest)
        provider.lacked()
      },
      gaveAll: (provider: Provider, digest: Digest) => this.#replicas.gaveAll(provider.id, digest),
      suspect: (provider: Provider) => this.#members.get(provider.id)?.session.ping(2000),
      ban: (provider: Provider, reason: string) => void this.#ban(provider.id, reason, null),
      now,
      random,
    }
    this.#replicas = new Replicas({ ...peers, self: peerId, open: async digest => (await open(digest))?.blob })
    this.source = new PeersSource(peers, 'impatient')
    this.lastResort = new PeersSource(peers, 'patient')
    this.downloads = new PeerDownloads({
      self: peerId,
      now,
      random,
      sign: signerOf(certificate.privateKey),
      verify: isSignedBy,
      members: () => this.#spreaders(),
      client: this.#client,
      peer: id => {
        const member = this.#members.get(id)
        return member && { provider: member.provider, address: { peerId: id, ...member.transferAddress } }
      },
      provider: id => this.#providers.get(id),
      isBanned: id => book.isBanned(id),
      maxUploads: options.maxUploads,
      send: (to, messages) => void this.#members.get(to)?.session.send(...messages),
      sendErrand: (to, { name, digest, kind, size = 0 }) =>
        void this.#members.get(to)?.session.send({ t: 'errand', name: formatName(name), digest, kind, size }),
      holders: digest => this.#holders(digest).filter(({ provider }) => provider.fit && !provider.busy).length,
      gives: () => sharing !== undefined && this.#willing,
      open: async digest => (await open(digest))?.blob,
      ban: (id, reason, ms) => void this.#ban(id, reason, ms),
    })
    this.#errands = new Errands({ run: options.errand, now })
    const { popularity } = options
    this.#popularity =
      popularity &&
      new PopularityGossip({
        ...popularity,
        // Who gives nothing tells nothing, either.
        rows: () => (sharing ? popularity.rows() : []),
        heard: (peer, told) => popularity.heard(peer, told),
        publish: bytes => void node.services.gossip.publish(bytes).catch(error => events.warning(String(error))),
        connected: () => this.#members.size,
        isMember: id => this.#members.has(id),
        now,
        clock,
        random,
      })
    this.#callBacks = new CallBacks({ admits: host => this.admits(host), now })
    this.tags = new TagRecords({
      ...options.tags,
      spares: network.private,
      clock,
      random,
      privateKey: certificate.privateKey,
      peerId,
      connections: () =>
        [...this.#members.values()].map(({ session, provider }) => ({
          connection: session.connection,
          name: provider.name,
        })),
    })
  }

  async #start(): Promise<void> {
    const { transferListen, network, bootstrap } = this.#options
    this.#swarmPort = portOf(this.#node)
    this.#transferPort = (await this.#server.listen(transferListen.host, transferListen.port)).port
    const { signal } = this.#abort
    await this.#node.handle(protocol, (stream, connection) => this.#converse(connection, stream), {
      maxInboundStreams: 1,
      maxOutboundStreams: 1,
    })
    await this.#node.handle(CallBacks.protocol, (stream, connection) => this.#callBacks.answer(stream, connection), {
      maxInboundStreams: 2,
    })
    await this.#node.handle(TagRecords.protocol, stream => this.tags.answer(stream, signal), {
      maxInboundStreams: 32,
      maxOutboundStreams: 32,
    })
    const popularity = this.#popularity
    if (popularity) this.#node.services.gossip.listen(said => popularity.judge(said))
    this.#node.addEventListener('connection:open', ({ detail }) => this.#expectSession(detail))
    this.#watch.on('changed', () => this.#hurry())
    this.#watch.on('woke', () => this.#hurry())
    this.#watch.start()
    this.#discovery = Discovery.open({
      self: this.peerId,
      port: this.#swarmPort,
      network,
      watch: this.#watch,
      mdns: this.#options.mdns,
      bootstrap,
      connected: () => this.#members.size,
      onFound: (target, via) => this.#found(target, via),
      onNowhere: host =>
        this.#options.events.warning(
          `swarm.bootstrap: ${host} has no address: is the name right, and does the DNS of this machine answer?`,
        ),
    })
    for (const { id, addresses } of this.#book.rememberedIn(network.name))
      for (const text of [...addresses].reverse()) {
        const address = addressOf(text)
        if (address) this.#found({ peerId: id, ...address }, 'remembered')
      }
    this.#willing = this.#options.resting() === undefined
    this.#chores = setInterval(() => {
      this.#tellWilling()
      this.#lookForStrangers()
    }, 5000).unref()
    this.#certificate.onRenewed(certificate => {
      this.#server.renew(certificate)
      this.#client.renew(certificate)
    })
  }

  /** Ports in use, for those who asked for any. */
  get ports(): { swarm: number; transfer: number } {
    return { swarm: this.#swarmPort, transfer: this.#transferPort }
  }

  /** How many peers are connected. */
  get connected(): number {
    return this.#members.size
  }

  isConnected(peer: string): boolean {
    return this.#members.has(peer)
  }

  /** Everybody who is known: first the connected, then the banned, then those who are away. */
  get peers(): readonly PeerStatus[] {
    const bans = this.#book.bans
    const known = new Map<string, PeerStatus>()
    for (const { id, session, provider, address } of this.#members.values())
      known.set(id, {
        id,
        name: provider.name,
        addresses: [formatAddress(address)],
        blobs: this.#holdings.count(id),
        rtt_ms: session.rtt === undefined ? null : Math.round(session.rtt * 10) / 10,
        received_bytes: provider.receivedBytes,
        sent_bytes: provider.sentBytes,
        state: provider.willing ? 'connected' : 'resting',
        ban: null,
      })
    const absent = (id: string, name: string, more: Pick<PeerStatus, 'state' | 'ban' | 'addresses'>) => {
      const provider = this.#providers.get(id)
      const bytes = { received_bytes: provider?.receivedBytes ?? 0, sent_bytes: provider?.sentBytes ?? 0 }
      known.set(id, { id, name: name === '' ? null : name, blobs: 0, rtt_ms: null, ...bytes, ...more })
    }
    for (const { id, name, reason, at, until } of bans)
      absent(id, name, { addresses: [], state: 'banned', ban: { reason, at, until } })
    for (const { id, name, addresses } of this.#book.rememberedIn(this.network.name))
      if (!known.has(id)) absent(id, name, { addresses, state: 'away', ban: null })
    return [...known.values()]
  }

  /** Lifts a ban. @returns whether there was one */
  unban(id: string): Promise<boolean> {
    return this.#book.unban(id)
  }

  /** What multicast has brought; undefined if it is off. */
  get multicast(): MdnsDiagnosis | undefined {
    return this.#discovery?.diagnosis
  }

  /** Tells all who are connected what a registry has said of its limit of pulls. */
  tell(limit: LimitMessage): void {
    for (const { session } of this.#members.values()) void session.send(limit)
  }

  /** What peers may know of what is pulled here has changed. */
  popularityChanged(): void {
    this.#popularity?.changed()
  }

  /** How many peers have proved that they hold a blob, and give it now. */
  copies(digest: Digest): number {
    return this.#replicas.copies(digest)
  }

  /** How many peers say that they hold a blob. */
  claimed(digest: Digest): number {
    return this.#replicas.claimed(digest)
  }

  /**
   * Whether, of this machine and the peers that have proved to hold a blob, this machine is the one to keep it. All of them
   * give the same answer to that, as far as they know of each other.
   */
  keeps(digest: Digest): boolean {
    return this.#replicas.keeps(digest)
  }

  /**
   * Has peers prove that they hold what they say: blobs that this machine holds itself.
   * @throws the reason of `signal`
   */
  prove(blobs: Iterable<{ readonly digest: Digest; readonly size: number }>, signal: AbortSignal): Promise<void> {
    return this.#replicas.prove(blobs, AbortSignal.any([signal, this.#abort.signal]))
  }

  /**
   * Whether, of this machine and the peers that say to hold what a name stands for, this machine is the one to look after
   * that name for all. Who gives nothing now is left out.
   */
  responsible(name: string, digest: Digest): boolean {
    const others = this.#holders(digest).flatMap(({ provider: { id, willing, disbelieved } }) =>
      willing && !disbelieved ? [id] : [],
    )
    return coordinatorsOf(name, this.#willing ? [this.peerId, ...others] : others, 1)[0] === this.peerId
  }

  /** Asks up to three peers to connect to this machine's ports, as a peer that finds it would. */
  callBack(signal: AbortSignal): Promise<readonly CallBack[]> {
    const asked = [...this.#members.values()].slice(0, 3)
    const ports = { swarm_port: this.#swarmPort, transfer_port: this.#transferPort }
    return this.#callBacks.ask(asked, ports, signal)
  }

  /** Whether connections may come from an address, or go there: the LAN's, and what the settings name. */
  admits(host: string): boolean {
    return isLanAddress(host) || (this.#discovery?.names(host) ?? false)
  }

  async close(): Promise<void> {
    this.#abort.abort(new Error('the swarm is closing'))
    clearInterval(this.#chores)
    this.#watch.stop()
    this.#dialer.close()
    this.#certificate.close()
    await this.#discovery?.close()
    this.downloads.close()
    this.#popularity?.close()
    for (const { session } of this.#members.values()) session.close()
    await this.#client.close()
    await this.#server.close(0)
    await this.#node.stop()
    await this.#book.flush()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #found(target: Target, via: Via): void {
    if (this.admits(target.host)) this.#dialer.found(target, via)
  }

  /** The network or the machine has just come back: connections may be dead, and addresses other ones. */
  #hurry(): void {
    this.#discovery?.hurry()
    this.#dialer.hurry()
    for (const { session } of this.#members.values()) session.ping(3000)
  }

  #isConnected(peerId: string | undefined, addresses: readonly Address[]): boolean {
    if (peerId !== undefined) return this.#members.has(peerId)
    for (const { address } of this.#members.values())
      if (addresses.some(({ host, port }) => host === address.host && port === address.port)) return true
    return false
  }

  /** Begins the session of a connection that this side has made. */
  async #meet(connection: Connection): Promise<void> {
    if (connection.streams.some(stream => stream.protocol === protocol)) return
    try {
      this.#converse(connection, await connection.newStream(protocol, { negotiateFully: false }))
    } catch (error) {
      connection.abort(error instanceof Error ? error : new Error(String(error)))
      throw error
    }
  }

  /** Sends those away who connect and say nothing. */
  #expectSession(connection: Connection): void {
    setTimeout(() => {
      if (connection.status !== 'open' || connection.streams.some(stream => stream.protocol === protocol)) return
      connection.abort(new Error('no session was begun'))
    }, idleTime).unref()
  }

  #converse(connection: Connection, stream: Stream): void {
    const { now, name } = this.#options
    let member: Member | undefined
    new Session({
      self: this.peerId,
      connection,
      stream,
      hello: {
        t: 'hello',
        versions: [version],
        features: this.#popularity ? [spreading, hearing] : [spreading],
        swarm_port: this.#swarmPort,
        transfer_port: this.#transferPort,
        name: ownName(name),
        uploads: this.#willing,
      },
      now,
      events: {
        opened: session => {
          member = this.#opened(session)
          // What it was told first could not be sent: nobody else tells of its end.
          if (member && session.closed) this.#closed(member, undefined)
        },
        received: (session, message) => member && this.#received(member, session, message),
        closed: (_session, error) => member && this.#closed(member, error),
      },
    })
  }

  /** @returns nothing if the session is not kept */
  #opened(session: Session): Member | undefined {
    const { peerId: id, connection, hello } = session
    const { now, events, sharing } = this.#options
    if (!hello?.versions.includes(version) || this.#book.isBanned(id) || id === this.peerId) return void session.close()
    const host = hostOf(connection.remoteAddr)
    const before = this.#members.get(id)
    if (before && this.#yields(session, before.session)) return void session.close()
    if (!before && (this.#members.size >= mostPeers || this.#crowds(host))) return void session.close()
    const provider = this.#providerOf(id, hello.name)
    provider.willing = hello.uploads
    provider.returned()
    const holdings = {
      snapshotBegun: (peer: string) => this.#holdings.snapshotBegun(peer),
      add: (peer: string, bytes: Uint8Array) => this.#holdings.add(peer, bytes),
      remove: (peer: string, bytes: Uint8Array) => {
        this.#holdings.remove(peer, bytes)
        this.#replicas.removed(peer, bytes)
      },
    }
    const inbox = new HoldingsInbox({ peer: id, holdings, send: message => session.send(message), now })
    const announcer = sharing && new Announcer({ sharing, send: message => session.send(message), now })
    const member: Member = new Member(session, provider, inbox, announcer)
    this.#members.set(id, member)
    if (before) {
      this.#leave(before)
      this.#silence(id)
    }
    this.#leftAt.delete(id)
    const address = member.address
    this.#dialer.found({ peerId: id, ...address }, 'remembered')
    this.#book.remember({
      id,
      name: provider.name,
      addresses: [...new Set([formatAddress(address), ...this.#book.addressesOf(id)])].slice(0, 4),
      seenAt: this.#options.clock(),
      network: this.network.name,
    })
    announcer?.start()
    if (hello.features.includes(spreading)) this.downloads.arrived(id)
    if (hello.features.includes(hearing)) this.#tellPopular(session)
    for (const limit of this.#options.limits?.() ?? []) void session.send(limit)
    this.#introduce(member)
    if (!before) events.joined({ id, name: provider.name, address: formatAddress(address) })
    return member
  }

  /**
   * Whether a new session gives way to one that is there: two peers that dialled each other at once both keep the one
   * that the lower id has dialled. An older one may be dead without this side knowing.
   */
  #yields(session: Session, before: Session): boolean {
    const crossed = session.connection.direction !== before.connection.direction
    if (before.closed || !crossed || this.#options.now() - before.openedAt > crossing) return false
    return (before.connection.direction === 'outbound') === this.peerId < before.peerId
  }

  /** Whether so many have come from one address that one more would be too many. */
  #crowds(host: string): boolean {
    if (isLoopback(host)) return false
    let count = 0
    for (const member of this.#members.values()) if (member.host === host) count++
    return count >= mostFromOneAddress
  }

  #received(member: Member, session: Session, message: Message): void {
    if (this.#members.get(member.id) !== member) return
    if (message.t === 'holdings') member.inbox.receive(message)
    else if (message.t === 'resync') member.announcer?.resync()
    else if (message.t === 'uploads') member.provider.willing = message.willing
    else if (message.t === 'peers') this.#heard(member, message.peers)
    else if (message.t === 'errand') this.#errands.receive(member.id, message)
    else if (isSpreadMessage(message)) this.downloads.receive(member.id, message)
    else if (message.t === 'limit') this.#options.events.limit(message)
    else if (message.t === 'popular') this.#popularity?.receive(member.id, message)
    if (session.rtt !== undefined) member.provider.rtt = session.rtt
  }

  #closed(member: Member, error: Error | undefined): void {
    this.#leave(member)
    if (this.#members.get(member.id) !== member) return
    const { id, provider } = member
    this.#members.delete(id)
    this.#holdings.forget(id)
    this.#replicas.forget(id)
    this.#silence(id)
    this.#client.forget(id)
    const { now, events } = this.#options
    for (const [other, at] of this.#leftAt) if (now() - at > grace) this.#leftAt.delete(other)
    this.#leftAt.set(id, now())
    events.left({ id, name: provider.name }, error?.message)
    this.#dialer.lost(id)
  }

  /** What was said over a session that has ended needs no answer. */
  #silence(id: string): void {
    this.downloads.left(id)
    this.#node.services.gossip.left(id)
    this.#popularity?.left(id)
  }

  #tellPopular(session: Session): void {
    const popularity = this.#popularity
    if (!popularity) return
    const { snapshot } = popularity
    if (snapshot) void session.send(snapshot)
    this.#node.services.gossip.joined(session.connection, error => session.close(error))
  }

  #leave({ session, announcer, inbox }: Member): void {
    announcer?.stop()
    inbox.close()
    session.close()
  }

  /**
   * Tells a peer whom this machine knows: at once who has dialled, as it is likely new here; the one that was dialled only
   * when this machine has met those whom it was told of. If all heard of each other at once, both sides would dial.
   */
  #introduce(member: Member): void {
    const tell = () => {
      if (this.#members.get(member.id) === member) this.#tellPeers(member)
    }
    if (member.session.connection.direction === 'inbound') tell()
    else setTimeout(tell, settlingTime).unref()
  }

  #tellPeers({ id, near, session }: Member): void {
    const peers: { id: string; addresses: string[] }[] = []
    for (const other of this.#members.values()) {
      if (other.id === id || peers.length >= mostTold) continue
      // What is loopback here is somewhere else for another machine.
      if (other.near !== near) continue
      // IPv6 link-local ones mean nothing without this machine's name of the interface (RFC 4007).
      if (/^fe[89ab]/i.test(other.host)) continue
      peers.push({ id: other.id, addresses: [multiaddrOf(other.address)] })
    }
    if (peers.length > 0) void session.send({ t: 'peers', peers })
  }

  #heard({ near }: Member, peers: readonly { id: string; addresses: readonly string[] }[]): void {
    for (const { id, addresses } of peers.slice(0, mostTold)) {
      if (this.#members.has(id)) continue
      for (const text of addresses) {
        const address = addressOfMultiaddr(text)
        // A stranger must not have this machine dial itself, or who knows where.
        if (!address || isLoopback(address.host) !== near || !isLanAddress(address.host)) continue
        this.#found({ peerId: id, ...address }, 'peers')
      }
    }
  }

  /** Who is connected and shares downloads. */
  *#spreaders(): Iterable<string> {
    for (const { id, session } of this.#members.values()) if (session.hello?.features.includes(spreading)) yield id
  }

  #tellWilling(): void {
    const willing = this.#options.resting() === undefined
    if (willing === this.#willing) return
    this.#willing = willing
    for (const { session } of this.#members.values()) void session.send({ t: 'uploads', willing })
  }

  /** A wrong token looks like nobody being there. */
  #lookForStrangers(): void {
    const { name, private: isPrivate } = this.network
    if (!isPrivate || this.#members.size > 0 || (this.multicast?.strangers ?? 0) === 0) return
    this.#options.events.warning(
      `no peer is in the network ${name}, but there are some of another one on this LAN: if they should be in one, is the token the same?`,
    )
  }

  #mayFetch(id: string): boolean {
    if (this.#book.isBanned(id)) return false
    if (this.#members.has(id)) return true
    const leftAt = this.#leftAt.get(id)
    return leftAt !== undefined && this.#options.now() - leftAt < grace
  }

  /** Who is connected and says that it has the content. */
  #holders(digest: Digest): readonly { provider: Provider; address: Address }[] {
    return this.#holdings.holdersOf(digest).flatMap(id => {
      const member = this.#members.get(id)
      return member ? [{ provider: member.provider, address: member.transferAddress }] : []
    })
  }

  #providerOf(id: string, name: string): Provider {
    const known = this.#providers.get(id)
    if (known) {
      known.name = name
      return known
    }
    const provider = new Provider(id, name, this.#options.now, reason => void this.#ban(id, reason, null))
    this.#providers.set(id, provider)
    for (const other of this.#providers.keys()) {
      if (this.#providers.size <= mostProviders) break
      if (!this.#members.has(other) && other !== id) this.#providers.delete(other)
    }
    return provider
  }

  #nameOf(id: string): string {
    return this.#providers.get(id)?.name ?? id
  }

  async #ban(id: string, reason: string, ms: number | null): Promise<void> {
    if (this.#book.isBanned(id)) return
    const { clock, events } = this.#options
    const at = clock()
    const ban: Ban = { id, name: this.#nameOf(id), reason, at, until: ms === null ? null : at + ms }
    const kept = this.#book.ban(ban)
    this.#dialer.forget(id)
    this.#members.get(id)?.session.close()
    for (const connection of this.#node.getConnections())
      if (connection.remotePeer.toString() === id) connection.abort(new Error('banned'))
    events.banned(ban)
    await kept
  }

  #notReached({ host, port }: Target, via: Via, error: unknown): void {
    if (via !== 'bootstrap') return
    const where = formatAddress({ host, port })
    const code = systemCodeOf(error)
    this.#options.events.warning(
      code === undefined
        ? `swarm.bootstrap: what answers at ${where} is no peer of the network ${this.network.name}: is it Shoal, with the same token?`
        : `swarm.bootstrap: nobody answers at ${where} (${code}): does Shoal run there, and does a firewall let port ${port} in?`,
    )
  }
}

/** What peers take for a name: no control characters, and not too long. */
function ownName(name: string): string {
  return name.replace(/\p{Cc}/gu, '').slice(0, 64)
}

/** Why there was no connection, in the system's words; undefined if there was one, and the other side no peer. */
function systemCodeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  if (error.name === 'TimeoutError') return 'ETIMEDOUT'
  const code = 'code' in error ? error.code : undefined
  if (typeof code === 'string' && /^E[A-Z]+$/.test(code)) return code
  const errors = error instanceof AggregateError ? error.errors : error.cause === undefined ? [] : [error.cause]
  return errors.map(systemCodeOf).find(code => code !== undefined)
}

function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

function addressOf(text: string): Address | undefined {
  const [, v6, v4, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? []
  const host = v6 ?? v4
  return host === undefined ? undefined : { host, port: Number(port) }
}

function addressOfMultiaddr(text: string): Address | undefined {
  try {
    const address = multiaddr(text)
    const port = Number(address.getComponents().find(({ name }) => name === 'tcp')?.value)
    const host = hostOf(address)
    return host !== '' && Number.isInteger(port) && port > 0 && port < 65_536 ? { host, port } : undefined
  } catch {
    return undefined
  }
}
