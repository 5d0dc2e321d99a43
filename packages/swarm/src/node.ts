import { isIPv6 } from 'node:net'
import { noise } from '@chainsafe/libp2p-noise'
import type { Connection, PeerId, PrivateKey } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p, type Libp2p } from 'libp2p'
import { Arrivals } from './arrivals.ts'
import type { Address } from './dialer.ts'
import { Gossip, type GossipOptions } from './gossip.ts'
import { plainAddress } from './lan-address.ts'
import { boundedYamux } from './muxer.ts'

/** A LAN of {@link mostPeers} with room for some who connect twice, and for strangers until they are sent away. */
export const mostPeers = 256
const mostConnections = 2 * mostPeers

/** At nine o'clock an office comes all at once, perhaps from behind one address. libp2p's defaults are 5 and 10. */
const connectionsPerSecond = 100
const mostPending = 128

/** Until a connection stands, encrypted, in ms. */
const connectTime = 5000

export type NodeOptions = {
  readonly privateKey: PrivateKey
  readonly listen: Address
  readonly psk: Uint8Array | undefined
  /** Whether a connection may come from, or go to, an IP address. */
  readonly admits: (host: string) => boolean
  readonly admitsPeer: (peerId: string) => boolean
  readonly gossip: GossipOptions
}

export type Node = Libp2p<{ gossip: Gossip }>

/**
 * A libp2p node over TCP, for what peers tell each other. Nothing runs on it by itself: no pings, no identify, and gossip
 * only with those whom it is told of.
 */
export async function startNode({ privateKey, listen, psk, admits, admitsPeer, gossip }: NodeOptions): Promise<Node> {
  const arrivals = new Arrivals()
  const node = await createLibp2p<{ gossip: Gossip }>({
    privateKey,
    addresses: { listen: listenAddresses(listen) },
    transports: [tcp()],
    ...(psk && { connectionProtector: preSharedKey({ psk }) }),
    connectionEncrypters: [noise()],
    streamMuxers: [boundedYamux],
    connectionMonitor: { enabled: false },
    services: { gossip: components => new Gossip(components, gossip) },
    connectionManager: {
      maxConnections: mostConnections,
      inboundConnectionThreshold: connectionsPerSecond,
      maxIncomingPendingConnections: mostPending,
      inboundUpgradeTimeout: connectTime,
      dialTimeout: connectTime,
      outboundStreamProtocolNegotiationTimeout: connectTime,
      reconnectRetries: 0,
    },
    connectionGater: {
      denyDialMultiaddr: address => !admits(hostOf(address)),
      denyInboundConnection: connection => {
        const host = hostOf(connection.remoteAddr)
        return !admits(host) || !arrivals.take(host, connection)
      },
      denyInboundEncryptedConnection: peerId => !admitsPeer(peerId.toString()),
      denyOutboundEncryptedConnection: peerId => !admitsPeer(peerId.toString()),
    },
  })
  node.addEventListener('peer:disconnect', ({ detail: peer }) => void forget(node, peer))
  return node
}

/** libp2p keeps something of each peer that it has met, or not reached; nobody here asks for it, and identities are free. */
async function forget(node: Libp2p, peer: PeerId): Promise<void> {
  await node.peerStore.delete(peer).catch(() => {})
}

/** `0.0.0.0` and `::` stand for every address of the machine, of both families; libp2p bears it if there is no IPv6. */
function listenAddresses({ host, port }: Address): string[] {
  if (host !== '0.0.0.0' && host !== '::') return [multiaddrOf({ host, port })]
  // Any port that is free is not free for both.
  if (port === 0) return [multiaddrOf({ host, port })]
  return [multiaddrOf({ host: '0.0.0.0', port }), multiaddrOf({ host: '::', port })]
}

/** The port that a node listens at; the first, should there be several. */
export function portOf(node: Libp2p): number {
  return Number(/\/tcp\/(\d+)/.exec(String(node.getMultiaddrs()[0]))?.[1] ?? 0)
}

/** The IP address of a connection's other end, or of a multiaddr; empty if it has none. IPv6 link-local has its scope. */
export function hostOf(address: Multiaddr): string {
  let host = ''
  let zone = ''
  for (const { name, value = '' } of address.getComponents()) {
    if (name === 'ip6zone') zone = `%${value}`
    else if (host === '' && (name === 'ip4' || name === 'ip6')) host = plainAddress(value)
  }
  return host === '' ? '' : `${host}${host.includes('%') ? '' : zone}`
}

export function multiaddrOf({ host, port }: Address): string {
  const [address = '', zone] = host.split('%')
  if (!isIPv6(address)) return `/ip4/${address}/tcp/${port}`
  return `${zone === undefined ? '' : `/ip6zone/${zone}`}/ip6/${address}/tcp/${port}`
}

/** The first that answers. @throws if none does */
export async function dial(
  node: Libp2p,
  { peerId, addresses }: { readonly peerId?: string; readonly addresses: readonly Address[] },
): Promise<Connection> {
  const suffix = peerId === undefined ? '' : `/p2p/${peerId}`
  try {
    return await node.dial(addresses.map(address => multiaddr(multiaddrOf(address) + suffix)))
  } catch (error) {
    if (peerId !== undefined) await forget(node, peerIdFromString(peerId))
    throw error
  }
}
