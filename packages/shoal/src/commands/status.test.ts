import type { PeerStatus } from '@shoal/swarm/swarm'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { limitLines, swarmLines } from './status.ts'

const peer = (state: PeerStatus['state']): PeerStatus => ({
  id: state,
  name: state,
  addresses: [],
  blobs: 0,
  rtt_ms: null,
  received_bytes: 0,
  sent_bytes: 0,
  state,
  ban: null,
})
const uploads = { share: 'public', resting: null, max: 8, max_rate: null } as const
const downloads = { max_rate: null }

test('status says whom it sees, and what peers get', () => {
  const peers = [peer('connected'), peer('resting'), peer('away')]
  assert.equal(swarmLines({ network: 'open', peers, uploads, downloads }), [
    'peers: 2 in the open network of the LAN',
    'uploads: at most 8 at once',
  ])
  assert.equal(
    swarmLines({
      network: 'private:1a2b3c4d',
      peers: [...peers, peer('banned')],
      uploads: { ...uploads, resting: 'on battery', max_rate: 20_000_000 },
      downloads: { max_rate: 5_000_000 },
    }),
    [
      'peers: 2 in the private network 1a2b3c4d, 1 banned (see "shoal peers")',
      'uploads: at most 8 at once, 20MB/s in all; they rest: on battery',
      'downloads: at most 5MB/s in all',
    ],
  )
})

test('status says which registry has few pulls left, and what comes of it', () => {
  const upstream = (remaining: number, allowance: 'ample' | 'low' | 'spent', from: 'registry' | 'peer') => ({
    registry: 'docker.io',
    endpoint: 'https://registry-1.docker.io',
    state: 'closed' as const,
    requests: 1,
    errors: 0,
    rate_limit: { limit: 100, remaining, reset_s: 21_600, allowance, from },
  })
  assert.equal(
    limitLines([
      { ...upstream(0, 'ample', 'registry'), rate_limit: null },
      upstream(50, 'ample', 'registry'),
      upstream(9, 'low', 'peer'),
      upstream(0, 'spent', 'registry'),
    ]),
    [
      'registry-1.docker.io gives this office 9 more pulls, for up to 6 h, as a peer says: manifests come from peers first, and tags are checked as ever',
      'registry-1.docker.io gives this office no more pulls, for up to 6 h: what is held here or by peers is served',
    ],
  )
})

test('status says what is off', () => {
  assert.equal(swarmLines({ network: null, peers: [], uploads, downloads }), ['peers: none, the swarm is off'])
  const share = { ...uploads, share: 'none', resting: 'on battery' } as const
  assert.is(
    swarmLines({ network: 'open', peers: [], uploads: share, downloads })[1],
    'uploads: none, swarm.share is "none"',
  )
})

test.run()
