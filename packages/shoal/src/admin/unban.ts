import type { PeerStatus } from '@shoal/swarm/swarm'
import type { Peers } from '../peers.ts'
import { textIn } from './network.ts'
import { type Action, ConflictError } from './server.ts'

/** The answer to `POST /api/v1/unban`. */
export type Unbanned = { readonly id: string; readonly name: string | null }

/** `POST /api/v1/unban`: lifts the ban of a peer, by its id or name. */
export function unbans(peers: Peers): Action {
  return async (accept, _signal, input) => {
    const wanted = textIn(input, 'peer')
    const { swarm } = peers
    if (!swarm) throw new ConflictError('the daemon takes part in no network: set swarm.enabled = true')
    const { id, name } = bannedPeer(swarm.peers, wanted)
    await swarm.unban(id)
    await accept()({ id, name } satisfies Unbanned)
  }
}

/** The one peer that is banned and goes by `wanted`. @throws ConflictError */
export function bannedPeer(
  peers: readonly Pick<PeerStatus, 'id' | 'name' | 'state'>[],
  wanted: string,
): Pick<PeerStatus, 'id' | 'name'> {
  const called = peers.filter(({ id, name }) => id === wanted || name === wanted)
  const [found, ...more] = called.filter(({ state }) => state === 'banned')
  if (!found) throw new ConflictError(called.length > 0 ? `${wanted} is not banned` : `no peer ${wanted} is known`)
  if (more.length > 0) {
    const ids = [found, ...more].map(({ id }) => id).join(', ')
    throw new ConflictError(`several that are banned are called ${wanted}: name one by its id, of ${ids}`)
  }
  return found
}
