import type { Digest } from '../../packages/oci/src/digest.ts'
import { FakePeer } from '../swarm/fake-peer.ts'
import { SpreadLiar } from '../swarm/spread-liar.ts'
import { serveCalls } from './agent.ts'

/** A member of the swarm that takes part in downloads, and lies. */

export type LiarCalls = typeof calls

let peer: FakePeer | undefined
let liar: SpreadLiar | undefined

const calls = {
  /** Joins the swarm of the network that it is in. */
  async open({ name }: { readonly name: string }): Promise<void> {
    const listen = { host: '0.0.0.0', port: 0 }
    peer = await FakePeer.open({ name, more: { listen, transferListen: listen, mdns: true } })
  },

  /** Wants a blob of so many bytes: as a member, or as the author of the hashes of what it brings. */
  async join({ digest, size, as }: { digest: string; size: number; as: 'member' | 'author' }): Promise<void> {
    if (!peer) throw new Error('it has not joined the swarm')
    liar = new SpreadLiar(peer, digest as Digest, Buffer.alloc(size), as)
    await liar.join()
  },

  /** Times that something wrong was read from it. */
  lies: (_: object): number => liar?.lies ?? 0,
}

serveCalls(calls)
