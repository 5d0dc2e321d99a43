import { connect } from 'node:net'
import type { Stream } from '@libp2p/interface'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createToken, networkOf } from '../../packages/swarm/src/network.ts'
import { until } from '../shoal-process.ts'
import { FakePeer } from './fake-peer.ts'
import { frame, hello, Stranger, varint } from './stranger.ts'

/** Resolves once a stream has come to its end. */
const ended = (stream: Stream) =>
  until(
    () => (stream.status === 'open' ? undefined : true),
    () => 'the stranger was not sent away',
  )

const sentAway: Record<string, readonly Uint8Array[]> = {
  'a frame that is longer than any': [varint(300_000), Buffer.alloc(1000)],
  'a length without end': [Buffer.alloc(16, 0xff)],
  'a frame of nonsense': [frame(Buffer.from('nonsense'))],
  'a first message that is not hello': [frame({ t: 'ping', n: 1 })],
  'hello twice': [hello, hello],
  'a hello without ports': [frame({ t: 'hello', versions: [1], features: [], name: 'x', uploads: true })],
  'a name with control characters': [
    frame({ t: 'hello', versions: [1], features: [], swarm_port: 1, transfer_port: 1, name: 'a\nb', uploads: true }),
  ],
  'holdings that are no prefixes': [
    hello,
    frame({ t: 'holdings', seq: 1, reset: true, more: false, add: Buffer.alloc(7), remove: Buffer.alloc(0) }),
  ],
  'a flood of pings': [hello, Buffer.concat(Array.from({ length: 1000 }, (_, n) => frame({ t: 'ping', n })))],
  'a flood of unknown messages': [hello, Buffer.concat(Array.from({ length: 1000 }, () => frame({ t: 'what' })))],
  'peers by the thousand': [
    hello,
    frame({ t: 'peers', peers: Array.from({ length: 1000 }, (_, n) => ({ id: `p${n}`, addresses: [] })) }),
  ],
}

for (const [what, messages] of Object.entries(sentAway))
  test(`a stranger is sent away for ${what}`, async () => {
    await using peer = await FakePeer.open()
    await using stranger = await Stranger.open()
    const stream = await stranger.say(peer.swarm.ports.swarm, ...messages)
    await ended(stream)
    await until(
      () => (peer.swarm.connected === 0 ? true : undefined),
      () => 'it is still a member',
    )
  })

const header = (type: number, length: number) => {
  const bytes = Buffer.alloc(12)
  bytes[1] = type
  bytes.writeUInt32BE(1, 4)
  bytes.writeUInt32BE(length, 8)
  return bytes
}

const brokenFrames: Record<string, Uint8Array> = {
  'of another version': Buffer.alloc(12, 0xff),
  'of no known type': header(9, 0),
  'of streams of its own side': Buffer.from([0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]),
  'longer than anybody may send': header(0, 2 ** 32 - 1),
}

for (const [what, bytes] of Object.entries(brokenFrames))
  test(`a member is sent away for a frame of Yamux ${what}`, async () => {
    await using peer = await FakePeer.open()
    await using stranger = await Stranger.open()
    const stream = await stranger.say(peer.swarm.ports.swarm, hello)
    await until(
      () => (peer.swarm.connected === 1 ? true : undefined),
      () => 'it is no member',
    )
    const carrier = await stranger.carrier(peer.swarm.ports.swarm)
    carrier.send(bytes)
    await ended(stream)
    await until(
      () => (peer.swarm.connected === 0 ? true : undefined),
      () => 'it is still a member',
    )
  })

test('messages of a later version are passed over', async () => {
  await using peer = await FakePeer.open()
  await using stranger = await Stranger.open()
  const stream = await stranger.say(
    peer.swarm.ports.swarm,
    hello,
    frame({ t: 'news', of: { the: 'world' } }),
    frame({ t: 'ping', n: 7, more: 1 }),
  )
  let heard = Buffer.alloc(0)
  stream.addEventListener('message', ({ data }) => {
    heard = Buffer.concat([heard, data.subarray()])
  })
  await until(
    () => (heard.includes('pong') ? true : undefined),
    () => 'it does not answer',
  )
  assert.is(peer.swarm.connected, 1)
})

test('who connects and says nothing is sent away, on either side of the encryption', async () => {
  await using peer = await FakePeer.open()
  await using stranger = await Stranger.open()
  const socket = connect(peer.swarm.ports.swarm, '127.0.0.1')
  socket.on('error', () => {})
  const closed = new Promise(resolve => socket.once('close', resolve))
  const stream = await stranger.stream(peer.swarm.ports.swarm)
  await Promise.all([closed, ended(stream)])
})

test('a flood of connections leaves room for who keeps to the protocol', async () => {
  await using peer = await FakePeer.open()
  const sockets = Array.from({ length: 600 }, () => connect(peer.swarm.ports.swarm, '127.0.0.1'))
  for (const socket of sockets) socket.on('error', () => {})
  await using friend = await FakePeer.open({ bootstrap: [peer.address] })
  await until(
    () => (friend.swarm.connected === 1 && peer.swarm.connected === 1 ? true : undefined),
    () => 'the friend does not come through',
    60_000,
  )
  for (const socket of sockets) socket.destroy()
})

test('members of two networks do not meet, and one of none meets neither', async () => {
  const [one, other] = [networkOf(createToken()), networkOf(createToken())]
  await using first = await FakePeer.open({ network: one })
  await using second = await FakePeer.open({ network: one, bootstrap: [first.address] })
  await using foreign = await FakePeer.open({ network: other, bootstrap: [first.address, second.address] })
  await using open = await FakePeer.open({ bootstrap: [first.address, second.address, foreign.address] })
  await until(
    () => (first.swarm.connected === 1 && second.swarm.connected === 1 ? true : undefined),
    () => 'the members do not meet',
  )
  assert.is(foreign.swarm.connected, 0)
  assert.is(open.swarm.connected, 0)
})

test.run()
