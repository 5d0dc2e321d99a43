import type { Connection } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { streamPair } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makePeer } from '../../../test/transfer-peer.ts'
import { HoldingsInbox } from './holdings-inbox.ts'
import { Member } from './member.ts'
import { encodeMessage, type Hello } from './message.ts'
import { Provider } from './provider.ts'
import { lengthPrefix, Session } from './session.ts'

const remotePeer = peerIdFromPrivateKey((await makePeer()).privateKey)
const hello: Hello = {
  t: 'hello',
  versions: [1],
  features: [],
  swarm_port: 1111,
  transfer_port: 2222,
  name: 'lamp',
  uploads: true,
}

/** A member whose connection comes from an address. */
async function memberFrom(address: string): Promise<Member> {
  const now = () => 0
  const [stream, other] = await streamPair({ delay: 0 })
  const connection: Partial<Connection> = {
    remotePeer,
    remoteAddr: multiaddr(address),
    abort() {},
    close: async () => {},
  }
  const { promise, resolve } = Promise.withResolvers<Session>()
  const session = new Session({
    self: '0',
    connection: connection as Connection,
    stream,
    hello,
    now,
    events: { opened: resolve, received: () => {}, closed: () => {} },
  })
  const bytes = encodeMessage(hello)
  other.send(Buffer.concat([lengthPrefix(bytes.length), bytes]))
  await promise
  const holdings = { snapshotBegun: () => {}, add: () => {}, remove: () => {} }
  const member = new Member(
    session,
    new Provider(session.peerId, 'lamp', now, () => {}),
    new HoldingsInbox({ peer: session.peerId, holdings, send: () => {}, now }),
    undefined,
  )
  session.close()
  return member
}

test('it is where its connection comes from, at the ports that it has told', async () => {
  const member = await memberFrom('/ip4/10.0.0.7/tcp/54321')
  assert.is(member.id, remotePeer.toString())
  assert.equal(member.address, { host: '10.0.0.7', port: 1111 })
  assert.equal(member.transferAddress, { host: '10.0.0.7', port: 2222 })
})

test('its address is plain: IPv4 as such, IPv6 of a link with its scope', async () => {
  const hosts: Record<string, string> = {
    '/ip6/::ffff:10.0.0.7/tcp/1': '10.0.0.7',
    '/ip6/fd00::7/tcp/1': 'fd00::7',
    '/ip6zone/eth0/ip6/fe80::7/tcp/1': 'fe80::7%eth0',
  }
  for (const [address, host] of Object.entries(hosts)) assert.is((await memberFrom(address)).host, host, address)
})

test('over loopback it is near, over anything else it is not', async () => {
  const near: Record<string, boolean> = {
    '/ip4/127.0.0.1/tcp/1': true,
    '/ip4/127.3.2.1/tcp/1': true,
    '/ip6/::1/tcp/1': true,
    '/ip4/10.0.0.7/tcp/1': false,
    '/ip6zone/eth0/ip6/fe80::7/tcp/1': false,
  }
  for (const [address, expected] of Object.entries(near)) assert.is((await memberFrom(address)).near, expected, address)
})

test.run()
