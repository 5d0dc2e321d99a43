import { BlockList, isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { CallBack } from '@shoal/swarm/call-back'
import type { PeerStatus } from '@shoal/swarm/swarm'
import type { Peers } from '../peers.ts'
import type { Politeness } from '../politeness.ts'
import type { Settings } from '../settings/schema.ts'
import { type Action, ConflictError } from './server.ts'

/** `GET /api/v1/swarm`: what `doctor` wants to know; docs/api.md. Null if the swarm is off. */
export type SwarmReport = {
  readonly network: string
  readonly ports: { readonly swarm: number; readonly transfer: number }
  readonly share: 'public' | 'none'
  /** Why nothing is given now; null if it is. */
  readonly resting: string | null
  /** Whom the settings name. */
  readonly bootstrap: readonly string[]
  readonly peers: {
    readonly connected: number
    /** Of the connected, other machines on a subnet of this one: multicast should reach them. */
    readonly neighbours: number
    readonly away: number
    readonly banned: number
  }
  /** What multicast DNS has brought; null if it is off. */
  readonly multicast: {
    readonly interfaces: readonly { readonly name: string; readonly hearsItself: boolean }[]
    /** Peers of this network that have announced themselves, and machines of others. */
    readonly heard: number
    readonly strangers: number
  } | null
}

export function swarmOf({
  settings,
  peers,
  politeness,
}: {
  readonly settings: Settings
  readonly peers: Peers
  readonly politeness: Politeness
}): SwarmReport | null {
  const { swarm } = peers
  if (!swarm) return null
  const known = swarm.peers
  const count = (wanted: string) => known.filter(({ state }) => state === wanted).length
  const isNeighbour = neighbourhood()
  const neighbours = known.filter(({ state, addresses: [address = ''] }) => isConnected(state) && isNeighbour(address))
  return {
    network: swarm.network.name,
    ports: swarm.ports,
    share: settings.swarm.share,
    resting: politeness.resting() ?? null,
    bootstrap: settings.swarm.bootstrap,
    peers: { connected: swarm.connected, neighbours: neighbours.length, away: count('away'), banned: count('banned') },
    multicast: swarm.multicast ?? null,
  }
}

const isConnected = (state: PeerStatus['state']) => state === 'connected' || state === 'resting'

/** @returns whether `host:port` is another machine on a subnet of this one */
export function neighbourhood(interfaces = networkInterfaces()): (address: string) => boolean {
  const own = new Set<string>()
  const subnets = new BlockList()
  for (const { address, cidr, internal } of Object.values(interfaces).flatMap((all = []) => all)) {
    own.add(address)
    if (cidr !== null && !internal) subnets.addSubnet(address, Number(cidr.split('/')[1]), familyOf(address))
  }
  return address => {
    // The system lists IPv6 addresses without brackets and scope.
    const host = address.replace(/:\d+$/, '').replace(/^\[|%.*|\]$/g, '')
    return isIP(host) > 0 && !own.has(host) && subnets.check(host, familyOf(host))
  }
}

const familyOf = (address: string) => (isIP(address) === 4 ? 'ipv4' : 'ipv6')

/** `POST /api/v1/callback`: has peers connect to this machine's ports; the answer is what they found. */
export function callBacks(peers: Peers): Action {
  return async (accept, signal) => {
    if (!peers.swarm) throw new ConflictError('the daemon takes part in no network: set swarm.enabled = true')
    await accept()((await peers.swarm.callBack(signal)) satisfies readonly CallBack[])
  }
}
