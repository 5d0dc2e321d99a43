import { setImmediate as turn } from 'node:timers/promises'
import { type GossipSub, type GossipSubComponents, gossipsub, TopicValidatorResult } from '@chainsafe/libp2p-gossipsub'
import {
  type Connection,
  type Startable,
  type Stream,
  type StreamHandler,
  start,
  stop,
  type Topology,
} from '@libp2p/interface'
import { Allowance } from './allowance.ts'
import { MessageError } from './message.ts'

/** What a link may bring, in bytes: so much at once, and so much a second. An office of 200 brings some 150 bytes/s. */
const mostAtOnce = 512 * 1024
const perSecond = 4096

/** A stream that is begun counts as so many bytes. */
const perStream = 4096

/** Of one message of gossipsub's, with all that comes with it, in bytes. */
const longestRpc = 256 * 1024

/** What may wait to be sent to a peer, in bytes; above that it gets no more. */
const mostWaiting = 1024 * 1024

/** Streams over a connection, each way: one is needed, and another may be about to end. */
const streamsEach = 2

/**
 * How gossipsub is set up for a LAN of 2 to 200 where everybody is connected to everybody: each passes a message on to
 * three, so that it comes everywhere though some are slow, and costs the whole LAN two sendings a machine, where its
 * default of six costs five. Who was left out learns of it at the next heartbeat, or the one after.
 */
const mesh = { D: 3, Dlo: 2, Dhi: 4, Dout: 1, Dscore: 2, Dlazy: 1, gossipFactor: 0 }
const rhythm = { heartbeatInterval: 10_000, mcacheLength: 3, mcacheGossip: 2, seenTTL: 60_000 }

export type GossipOptions = {
  readonly topic: string
  /** In ms, never going back. */
  readonly now: () => number
}

/** What was said, by whom: the author has signed it. `sequence` grows with each message of an author. */
export type Utterance = { readonly author: string; readonly sequence: bigint; readonly bytes: Uint8Array }

/** A member who takes part, over its connection. */
type Link = {
  readonly connection: Connection
  readonly onFlood: (error: MessageError) => void
  readonly streams: Set<Stream>
  /** Resolves once gossipsub knows of it. */
  readonly ready: Promise<void>
  /** Of bytes. */
  readonly allowance: Allowance
}

/**
 * Gossip of one topic among members, as a service of a libp2p node. gossipsub learns from identify who speaks it; here it
 * is told who does, and when that has gone: whom it is not told of it neither sees nor keeps anything of.
 */
export class Gossip implements Startable {
  readonly #options: GossipOptions
  readonly #gossipsub: GossipSub
  readonly #links = new Map<string, Link>()
  #topology: Topology | undefined

  constructor(components: GossipSubComponents, options: GossipOptions) {
    const { privateKey, peerId, peerStore, connectionManager, logger } = components
    this.#options = options
    const make = gossipsub({
      ...mesh,
      ...rhythm,
      allowedTopics: [options.topic],
      allowPublishToZeroTopicPeers: true,
      fallbackToFloodsub: false,
      floodPublish: false,
      doPX: false,
      // Of who has gone it would leave something in the peer store.
      tagMeshPeers: false,
      // Saying that one has it costs as much as most messages.
      idontwantMinDataSize: 4096,
      maxInboundStreams: streamsEach,
      maxOutboundStreams: streamsEach,
      maxInboundDataLength: longestRpc,
      maxOutboundBufferSize: mostWaiting,
      maxTopicBytesPerPeer: 8192,
      decodeRpcLimits: {
        maxSubscriptions: 16,
        maxMessages: 1024,
        maxIhaveMessageIDs: 1024,
        maxIwantMessageIDs: 1024,
        maxIdontwantMessageIDs: 128,
        maxControlMessages: 16,
        maxPeerInfos: 16,
      },
      // Many may come from behind one address; who has gone is not kept a score of, as identities are free.
      scoreParams: { IPColocationFactorWeight: 0, retainScore: 0, decayInterval: rhythm.heartbeatInterval },
      scoreThresholds: { acceptPXThreshold: Number.MAX_VALUE },
    })
    this.#gossipsub = make({
      privateKey,
      peerId,
      peerStore,
      connectionManager,
      logger,
      registrar: this.#gate(components.registrar),
    })
  }

  async start(): Promise<void> {
    await start(this.#gossipsub)
  }

  async stop(): Promise<void> {
    const heartbeat = this.#nextHeartbeat
    await stop(this.#gossipsub)
    // gossipsub leaves it, and it keeps the process alive until then.
    clearTimeout(heartbeat)
  }

  get #nextHeartbeat(): NodeJS.Timeout | undefined {
    const status: unknown = Reflect.get(this.#gossipsub, 'status')
    const timer: unknown =
      typeof status === 'object' && status !== null && 'heartbeatTimeout' in status
        ? status.heartbeatTimeout
        : undefined
    return isTimeout(timer) ? timer : undefined
  }

  /**
   * Takes part, from now on.
   * @param judge is told what members have said; @returns whether to pass it on
   */
  listen(judge: (said: Utterance) => boolean): void {
    const { topic } = this.#options
    this.#gossipsub.topicValidators.set(topic, (_from, message) => {
      if (message.type !== 'signed') return TopicValidatorResult.Ignore
      const { from, sequenceNumber, data } = message
      const passed = judge({ author: from.toString(), sequence: sequenceNumber, bytes: data })
      // Who has only passed it on is not to blame.
      return passed ? TopicValidatorResult.Accept : TopicValidatorResult.Ignore
    })
    this.#gossipsub.subscribe(topic)
  }

  /** A member takes part, over this connection from now on. */
  joined(connection: Connection, onFlood: (error: MessageError) => void): void {
    const peer = connection.remotePeer
    const id = peer.toString()
    if (this.#links.has(id)) this.left(id)
    const link: Link = {
      connection,
      onFlood,
      streams: new Set(),
      // After what is left of an earlier connection.
      ready: turn().then(() => {
        if (this.#links.get(id) === link) void this.#topology?.onConnect?.(peer, connection)
      }),
      allowance: new Allowance({ atOnce: mostAtOnce, perSecond, now: this.#options.now }),
    }
    this.#links.set(id, link)
  }

  /** A member has gone. */
  left(id: string): void {
    const link = this.#links.get(id)
    if (!link) return
    this.#links.delete(id)
    for (const stream of link.streams) stream.abort(new Error('the peer has left'))
    // What was received before is being worked off, and would be kept of a peer that is gone.
    void turn().then(() => {
      void this.#topology?.onDisconnect?.(link.connection.remotePeer)
      this.#forgetBackoff(id)
    })
  }

  /** Says something to all who listen. */
  async publish(bytes: Uint8Array): Promise<void> {
    await this.#gossipsub.publish(this.#options.topic, bytes)
  }

  /** A peer says itself for how long it is not to be asked again, and it may be for ever. */
  #forgetBackoff(id: string): void {
    const backoff: unknown = Reflect.get(this.#gossipsub, 'backoff')
    if (!(backoff instanceof Map)) return
    for (const peers of backoff.values()) if (peers instanceof Map) peers.delete(id)
  }

  /** The registrar as gossipsub sees it: streams of members only, and no topology but what it is told by this. */
  #gate(registrar: GossipSubComponents['registrar']): GossipSubComponents['registrar'] {
    return {
      getProtocols: () => registrar.getProtocols(),
      getHandler: protocol => registrar.getHandler(protocol),
      handle: (protocol, handler, options) =>
        registrar.handle(protocol, (stream, connection) => this.#accept(stream, connection, handler), options),
      unhandle: (protocol, options) => registrar.unhandle(protocol, options),
      use: (protocol, middleware) => registrar.use(protocol, middleware),
      unuse: protocol => registrar.unuse(protocol),
      getMiddleware: protocol => registrar.getMiddleware(protocol),
      register: async (protocol, topology) => {
        this.#topology = topology
        return protocol
      },
      unregister: () => {
        this.#topology = undefined
      },
      getTopologies: () => [],
    }
  }

  async #accept(stream: Stream, connection: Connection, handler: StreamHandler): Promise<void> {
    const id = connection.remotePeer.toString()
    const link = this.#links.get(id)
    await link?.ready
    if (!link || link.connection !== connection || this.#links.get(id) !== link)
      return stream.abort(new Error('gossip is for members'))
    link.streams.add(stream)
    stream.addEventListener('close', () => link.streams.delete(stream), { once: true })
    this.#pay(link, perStream)
    void handler(stream, connection)
    stream.addEventListener('message', ({ data }) => this.#pay(link, data.byteLength))
  }

  #pay({ allowance, onFlood }: Link, bytes: number): void {
    if (!allowance.take(bytes)) onFlood(new MessageError('FLOOD', `more than ${perSecond} bytes of gossip a second`))
  }
}

function isTimeout(value: unknown): value is NodeJS.Timeout {
  return typeof value === 'object' && value !== null && 'unref' in value && 'refresh' in value
}
