import type { PeerStatus } from '@shoal/swarm/swarm'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ConflictError } from './server.ts'
import { bannedPeer } from './unban.ts'

type Known = Pick<PeerStatus, 'id' | 'name' | 'state'>

const peers: readonly Known[] = [
  { id: '12D3A', name: 'ada', state: 'connected' },
  { id: '12D3B', name: 'bob', state: 'banned' },
  { id: '12D3C', name: 'laptop', state: 'banned' },
  { id: '12D3D', name: 'laptop', state: 'banned' },
  { id: '12D3E', name: 'desk', state: 'away' },
  { id: '12D3F', name: 'desk', state: 'banned' },
  { id: '12D3G', name: null, state: 'banned' },
]

for (const [wanted, id] of [
  ['bob', '12D3B'],
  ['12D3B', '12D3B'],
  ['12D3D', '12D3D'],
  ['desk', '12D3F'],
  ['12D3G', '12D3G'],
] as const)
  test(`${wanted} is one banned peer`, () => assert.is(bannedPeer(peers, wanted).id, id))

for (const [wanted, message] of [
  ['laptop', 'several that are banned are called laptop: name one by its id, of 12D3C, 12D3D'],
  ['ada', 'ada is not banned'],
  ['12D3E', '12D3E is not banned'],
  ['eve', 'no peer eve is known'],
  ['12D3', 'no peer 12D3 is known'],
] as const)
  test(`${wanted} is not, and it is said why`, () => {
    assert.throws(
      () => bannedPeer(peers, wanted),
      (error: unknown) => error instanceof ConflictError && error.message === message,
    )
  })

test.run()
