import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createToken, type Network, networkOf, openNetwork } from '@shoal/swarm/network'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { createLog } from '../log.ts'
import { NetworkToken, networkTokenFile } from '../network-token.ts'
import type { Peers } from '../peers.ts'
import { loadSettings } from '../settings/load.ts'
import { networkChanges } from './network.ts'
import { ConflictError } from './server.ts'

const test = suite<{ folder: string }>('changes of the network')
test.before.each(async context => {
  context.folder = await mkdtemp(join(tmpdir(), 'shoal-network-'))
})
test.after.each(({ folder }) => rm(folder, { recursive: true }))

/** A machine in the open network that can join others, and what it answered last. */
async function machine(folder: string) {
  const { settings } = await loadSettings({ argvFlags: { 'data-dir': folder }, env: {} })
  const peers = {
    swarm: { network: openNetwork },
    enter: async (network: Network) => void (peers.swarm = { network }),
  }
  const changes = networkChanges({
    settings,
    peers: peers as unknown as Peers,
    joined: new NetworkToken(folder),
    log: createLog(() => {}),
  })
  let answer: unknown
  const accept = () => async (line: unknown) => void (answer = line)
  const act = async (name: 'join' | 'leave', input?: unknown) => {
    await changes[name](accept, new AbortController().signal, input)
    return answer
  }
  return { peers, act }
}

test('the answer says which network it is, and whether it was another', async ({ folder }) => {
  const { act } = await machine(folder)
  const token = createToken()
  const network = networkOf(token).name
  assert.equal(await act('join', { token }), { network, changed: true })
  assert.equal(await act('join', { token: ` ${token}\n` }), { network, changed: false })
  assert.equal(await act('leave'), { network: 'open', changed: true })
})

test('what cannot be kept is not begun', async ({ folder }) => {
  await writeFile(dirname(networkTokenFile(folder)), 'in the way')
  const { act, peers } = await machine(folder)
  const error = await act('join', { token: createToken() }).catch((error: unknown) => error)
  if (!(error instanceof ConflictError)) throw error
  assert.match(error.message, `${networkTokenFile(folder)} cannot be changed, and so the network is not: E`)
  assert.is(peers.swarm.network, openNetwork)
})

test.run()
