import type { PeerStatus } from '@shoal/swarm/swarm'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { peerLines } from './peers.ts'

const ada: PeerStatus = {
  id: '12D3KooWA',
  name: 'ada',
  addresses: ['192.168.1.7:3476'],
  blobs: 1234,
  rtt_ms: 0.4,
  received_bytes: 2_000_000,
  sent_bytes: 1500,
  state: 'connected',
  ban: null,
}

test('a line for each peer, and why one is banned', () => {
  const eve: PeerStatus = {
    ...ada,
    id: '12D3KooWE',
    name: 'eve',
    addresses: [],
    blobs: 0,
    rtt_ms: null,
    received_bytes: 0,
    sent_bytes: 0,
    state: 'banned',
    ban: { reason: 'wrong bytes for sha256:12', at: 0, until: null },
  }
  assert.equal(
    peerLines('open', [ada, eve])
      .join('\n')
      .split('\n')
      .map(line => line.trimEnd()),
    [
      'NAME  ADDRESS           STATE      BLOBS  ROUND TRIP  GIVEN   TAKEN',
      'ada   192.168.1.7:3476  connected  1234   0.4 ms      1.5 kB  2 MB',
      'eve                     banned                        0 B     0 B',
      'eve is banned since 1970-01-01T00:00:00Z: wrong bytes for sha256:12',
      '  to lift it: shoal peers --unban 12D3KooWE',
    ],
  )
  const until = { ...eve, name: null, ban: { reason: 'a drip', at: 0, until: 3_600_000 } }
  assert.match(
    peerLines('open', [until]).join('\n'),
    '12D3KooWE is banned since 1970-01-01T00:00:00Z, until 1970-01-01T01',
  )
})

test('without peers it is said where to look, and without a swarm that there is none', () => {
  assert.match(
    peerLines('private:1a2b3c4d', [])[0] ?? '',
    'No peers yet in the private network 1a2b3c4d; "shoal doctor"',
  )
  assert.match(peerLines('open', [])[0] ?? '', 'the open network of the LAN')
  assert.match(peerLines(null, [])[0] ?? '', 'swarm.enabled is false')
})

test('a peer cannot steer the terminal by its name', () => {
  const lines = peerLines('open', [{ ...ada, name: '\u001B[31mada\n' }]).join('\n')
  assert.not.match(lines, '\u001B')
  assert.is(lines.split('\n').length, 2)
})

test.run()
