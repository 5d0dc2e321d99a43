import { type Found, Mdns, type MdnsDiagnosis } from '@shoal/swarm/discovery/mdns'
import { NetworkWatch } from '@shoal/swarm/network-watch'
import { serveCalls } from './agent.ts'

export type MdnsCalls = typeof calls

type Opened = { readonly mdns: Mdns; readonly watch: NetworkWatch; found: Found[] }

const opened = new Map<string, Opened>()

function openedBy(peerId: string): Opened {
  const found = opened.get(peerId)
  if (!found) throw new Error(`${peerId} is not open`)
  return found
}

const calls = {
  /** @param network members of the same one find each other */
  async open({ peerId, port, network = 'a' }: { peerId: string; port: number; network?: string }): Promise<void> {
    const watch = new NetworkWatch()
    const found: Found[] = []
    const mdns = Mdns.open({
      watch,
      peerId,
      port,
      markKey: Buffer.alloc(32, network),
      knownPeers: () => 0,
      onFound: peer => void found.push(peer),
    })
    watch.start()
    opened.set(peerId, { mdns, watch, found })
  },

  /** Whom it has found, since the last time when asked to forget. */
  async found({
    peerId,
    forget = false,
  }: {
    readonly peerId: string
    readonly forget?: boolean
  }): Promise<readonly Found[]> {
    const peer = openedBy(peerId)
    const { found } = peer
    if (forget) found.splice(0)
    return found
  },

  async diagnosis({ peerId }: { readonly peerId: string }): Promise<MdnsDiagnosis> {
    return openedBy(peerId).mdns.diagnosis
  },

  async close({ peerId }: { readonly peerId: string }): Promise<void> {
    const { mdns, watch } = openedBy(peerId)
    watch.stop()
    await mdns.close()
  },
}

serveCalls(calls)
