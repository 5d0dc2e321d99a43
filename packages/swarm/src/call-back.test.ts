import { type AddressInfo, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { streamPair } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { encode } from 'cborg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makePeer } from '../../../test/transfer-peer.ts'
import { type CallBack, CallBacks } from './call-back.ts'
import { HoldingsInbox } from './holdings-inbox.ts'
import { Member } from './member.ts'
import { Provider } from './provider.ts'
import { Session } from './session.ts'

const never = new AbortController().signal
const [asker, other] = [await makePeer(), await makePeer()]

/** A port where somebody listens, and how often it was connected to. */
async function listening(host = '127.0.0.1', wanted = 0) {
  let connections = 0
  const server = createServer(socket => {
    connections++
    socket.on('error', () => {}).resume()
  })
  server.listen(wanted, host)
  await new Promise((resolve, reject) => server.once('listening', resolve).once('error', reject))
  return {
    port: (server.address() as AddressInfo).port,
    /** Resolves to how often it was connected to; the listener learns of the last time a little later. */
    async connections(expected: number): Promise<number> {
      for (let wait = 0; connections < expected && wait < 200; wait++) await sleep(10)
      return connections
    },
    [Symbol.asyncDispose]: () => new Promise<void>(resolve => server.close(() => resolve())),
  }
}

/** A port where nobody listens. */
async function closedPort(): Promise<number> {
  await using server = await listening()
  return server.port
}

/** Peers that connect back, whose clock is the test's. */
function answering({ admits = () => true }: { readonly admits?: (host: string) => boolean } = {}) {
  const clock = { now: 0 }
  return { callBacks: new CallBacks({ admits, now: () => clock.now }), clock }
}

/** A connection from a machine to one that answers, as both of them see it. */
function connectionTo(callBacks: CallBacks, { host = '127.0.0.1', from = asker } = {}): Connection {
  const there: Partial<Connection> = {
    remotePeer: peerIdFromPrivateKey(from.privateKey),
    remoteAddr: multiaddr(`/ip4/${host}/tcp/54321`),
  }
  const here: Partial<Connection> = {
    remotePeer: peerIdFromPrivateKey(other.privateKey),
    remoteAddr: multiaddr('/ip4/127.0.0.1/tcp/3476'),
    async newStream(protocol) {
      assert.is(protocol, CallBacks.protocol)
      const [stream, end] = await streamPair({ delay: 0 })
      void callBacks.answer(end, there as Connection)
      return stream
    },
    abort() {},
  }
  return here as Connection
}

/** Somebody who has said hello, over a connection. */
async function memberOver(connection: Connection, name: string): Promise<Member> {
  const now = () => 0
  const [stream] = await streamPair()
  const events = { opened: () => {}, received: () => {}, closed: () => {} }
  const session = new Session({
    self: asker.peerId,
    connection,
    stream,
    hello: { t: 'hello', versions: [1], features: [], swarm_port: 1, transfer_port: 1, name, uploads: true },
    now,
    events,
  })
  const holdings = { snapshotBegun: () => {}, add: () => {}, remove: () => {} }
  const inbox = new HoldingsInbox({ peer: name, holdings, send: () => {}, now })
  return new Member(session, new Provider(name, name, now, () => {}), inbox, undefined)
}

const ports = (swarm: number, transfer: number) => ({ swarm_port: swarm, transfer_port: transfer })

/** Asks one peer, over this connection. @returns its answer; undefined if it gives none */
async function ask(
  connection: Connection,
  asked: { readonly swarm_port: number; readonly transfer_port: number },
): Promise<CallBack | undefined> {
  const { callBacks } = answering()
  const [found] = await callBacks.ask([await memberOver(connection, 'lamp')], asked, never)
  return found
}

test('both ports are connected to, once, and left again', async () => {
  await using swarm = await listening()
  await using transfer = await listening()
  const { callBacks } = answering()
  const found = await ask(connectionTo(callBacks), ports(swarm.port, transfer.port))
  assert.equal(found, { name: 'lamp', swarm: 'ok', transfer: 'ok' })
  assert.equal([await swarm.connections(1), await transfer.connections(1)], [1, 1])
  // That the listeners can be closed shows that no connection was kept.
})

test('why a port cannot be connected to is told, in the system’s word', async () => {
  await using swarm = await listening()
  const { callBacks } = answering()
  const found = await ask(connectionTo(callBacks), ports(swarm.port, await closedPort()))
  assert.equal(found, { name: 'lamp', swarm: 'ok', transfer: 'ECONNREFUSED' })
})

// macOS has no other address of loopback than the first.
const testOnLoopbackNet = process.platform === 'darwin' ? test.skip : test
testOnLoopbackNet('they are connected to where the question comes from, and nowhere else', async () => {
  await using there = await listening('127.0.0.2')
  await using here = await listening('127.0.0.1', there.port)
  const hosts: string[] = []
  const { callBacks } = answering({ admits: host => hosts.push(host) > 0 })
  const found = await ask(connectionTo(callBacks, { host: '127.0.0.2' }), ports(there.port, there.port))
  assert.equal(found, { name: 'lamp', swarm: 'ok', transfer: 'ok' })
  assert.equal([await there.connections(2), await here.connections(0)], [2, 0])
  assert.equal(hosts, ['127.0.0.2'])
})

test('an address that may not be connected to is not', async () => {
  await using open = await listening()
  const { callBacks } = answering({ admits: () => false })
  assert.is(await ask(connectionTo(callBacks), ports(open.port, open.port)), undefined)
  assert.is(await open.connections(0), 0)
})

test('a peer is served once in 3 s, each by itself', async () => {
  await using open = await listening()
  const { callBacks, clock } = answering()
  const from = (peer: typeof asker) => ask(connectionTo(callBacks, { from: peer }), ports(open.port, open.port))
  assert.ok(await from(asker))
  assert.is(await from(asker), undefined)
  assert.ok(await from(other))
  clock.now += 3000
  assert.is(await from(asker), undefined)
  clock.now += 1
  assert.ok(await from(asker))
  assert.is(await open.connections(6), 6)
})

test('what is no question is not answered, and leaves the peer free to ask one', async () => {
  await using open = await listening()
  const { callBacks } = answering()
  const questions = [
    ports(0, open.port),
    ports(open.port, 65_536),
    ports(open.port, 1.5),
    // Fields that are not known are ignored: a host would be one.
    { host: '127.0.0.1', swarm_port: open.port },
  ]
  for (const question of questions) {
    const asked = { ...question } as ReturnType<typeof ports>
    assert.is(await ask(connectionTo(callBacks), asked), undefined, Buffer.from(encode(asked)).toString('hex'))
  }
  assert.ok(await ask(connectionTo(callBacks), ports(open.port, open.port)))
  assert.is(await open.connections(2), 2)
})

test('who does not answer, or answers nonsense, is left out of many', async () => {
  await using open = await listening()
  const one = answering()
  const refusing = answering({ admits: () => false })
  const talking: Partial<Connection> = {
    ...connectionTo(one.callBacks),
    async newStream() {
      const [stream, end] = await streamPair({ delay: 0 })
      end.send(Buffer.from([1, 0xff]))
      return stream
    },
  }
  const gone: Partial<Connection> = {
    ...connectionTo(one.callBacks),
    newStream: () => Promise.reject(new Error('the connection is closed')),
  }
  const connections = [
    connectionTo(refusing.callBacks),
    talking as Connection,
    gone as Connection,
    connectionTo(one.callBacks),
  ]
  const members = await Promise.all(connections.map((connection, index) => memberOver(connection, `peer ${index}`)))
  assert.equal(await answering().callBacks.ask(members, ports(open.port, open.port), never), [
    { name: 'peer 3', swarm: 'ok', transfer: 'ok' },
  ])
  assert.equal(await answering().callBacks.ask([], ports(1, 1), never), [])
})

test('an abort ends the wait', async () => {
  const silent: Partial<Connection> = {
    ...connectionTo(answering().callBacks),
    newStream: async () => (await streamPair({ delay: 0 }))[0],
  }
  const abort = new AbortController()
  const asked = answering().callBacks.ask([await memberOver(silent as Connection, 'mute')], ports(1, 1), abort.signal)
  setTimeout(() => abort.abort(new Error('nobody wants it any longer')), 20)
  assert.equal(await asked, [])
})

test.run()
