import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import type { Libp2p } from 'libp2p'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../../test/shoal-process.ts'
import { FakePeer } from '../../../test/swarm/fake-peer.ts'
import { hello } from '../../../test/swarm/stranger.ts'
import { makePeer } from '../../../test/transfer-peer.ts'
import { portOf, startNode } from './node.ts'

const protocol = '/shoal/1/peer'

/** A node that listens, and lets a test say when hello is said over which connection. */
class Other implements AsyncDisposable {
  readonly node: Libp2p
  /** Streams of connections that the other side has made. */
  readonly accepted: Stream[] = []

  private constructor(node: Libp2p) {
    this.node = node
  }

  static async open(): Promise<Other> {
    const { privateKey } = await makePeer()
    const other = new Other(
      await startNode({
        privateKey,
        listen: { host: '127.0.0.1', port: 0 },
        psk: undefined,
        admits: () => true,
        admitsPeer: () => true,
        gossip: { topic: '/test', now: () => performance.now() },
      }),
    )
    await other.node.handle(protocol, stream => void other.accepted.push(stream))
    return other
  }

  get address(): string {
    return `127.0.0.1:${portOf(this.node)}`
  }

  /** One more connection to a peer, with a stream for its session. */
  async dial(peer: FakePeer): Promise<Stream> {
    const address = multiaddr(`/ip4/127.0.0.1/tcp/${peer.swarm.ports.swarm}`)
    const connection = await this.node.dial(address, { force: true })
    return connection.newStream(protocol)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.node.getConnections()) connection.abort(new Error('the test is over'))
    await this.node.stop()
  }
}

/** A peer, what happens to it, and a clock that can be set forward. */
async function peerThatKnows(other: Other) {
  const events: string[] = []
  let ahead = 0
  const peer = await FakePeer.open({
    bootstrap: [other.address],
    more: {
      now: () => performance.now() + ahead,
      events: {
        joined: () => void events.push('joined'),
        left: () => void events.push('left'),
        banned: () => {},
        gave: () => {},
        limit: () => {},
        warning: () => {},
      },
    },
  })
  return {
    peer,
    events,
    wait(ms: number) {
      ahead += ms
    },
    [Symbol.asyncDispose]: () => peer[Symbol.asyncDispose](),
  }
}

type World = Awaited<ReturnType<typeof peerThatKnows>> & { readonly other: Other; readonly dialled: Stream }

/** Two connections between a peer and another: the peer has made one of them, the other has made the other. */
async function crossed(which: 'lower' | 'higher', run: (world: World) => Promise<void>): Promise<void> {
  for (;;) {
    await using other = await Other.open()
    await using world = await peerThatKnows(other)
    // Ids are what they are: half of all are lower.
    if (world.peer.swarm.peerId < other.node.peerId.toString() !== (which === 'lower')) continue
    await until(
      () => (other.accepted.length > 0 ? true : undefined),
      () => 'the peer does not dial',
    )
    return await run({ ...world, other, dialled: await other.dial(world.peer) })
  }
}

const joined = ({ peer }: World) =>
  until(
    () => (peer.swarm.connected === 1 ? true : undefined),
    () => 'it has not joined',
  )

/** Waits until one of two streams has ended. @returns the other one */
async function survivor(one: Stream, other: Stream): Promise<Stream> {
  await until(
    () => (one.status === 'open' && other.status === 'open' ? undefined : true),
    () => 'both sessions are kept',
  )
  assert.ok(one.status === 'open' || other.status === 'open', 'neither session is kept')
  return one.status === 'open' ? one : other
}

for (const which of ['lower', 'higher'] as const)
  for (const first of ['accepted', 'dialled'] as const)
    test(`of two that dialled each other at once, the session that the lower id dialled is kept: here the ${which}, ${first} first`, async () => {
      await crossed(which, async world => {
        const { other, dialled, events } = world
        const [accepted] = other.accepted as [Stream]
        const order = first === 'accepted' ? [accepted, dialled] : [dialled, accepted]
        order[0]!.send(hello)
        await joined(world)
        order[1]!.send(hello)
        assert.is(await survivor(accepted, dialled), which === 'lower' ? accepted : dialled)
        assert.is(world.peer.swarm.connected, 1)
        assert.equal(events, ['joined'])
      })
    })

for (const which of ['lower', 'higher'] as const)
  test(`a session that comes much later takes the place of the one before, whoever dialled: here the ${which}`, async () => {
    await crossed(which, async world => {
      const { other, dialled, events } = world
      const [accepted] = other.accepted as [Stream]
      // What would lose if they had come at once.
      const [before, after] = which === 'lower' ? [accepted, dialled] : [dialled, accepted]
      before.send(hello)
      await joined(world)
      world.wait(5001)
      after.send(hello)
      assert.is(await survivor(before, after), after)
      assert.is(world.peer.swarm.connected, 1)
      assert.equal(events, ['joined'])
    })
  })

for (const which of ['lower', 'higher'] as const)
  test(`of two sessions that the same side has dialled the newer is kept, as the older may be dead: here the ${which}`, async () => {
    await crossed(which, async world => {
      const { other, dialled: before, events } = world
      before.send(hello)
      await joined(world)
      const after = await other.dial(world.peer)
      after.send(hello)
      assert.is(await survivor(before, after), after)
      assert.equal(events, ['joined'])
    })
  })

test('with its session a connection ends, even if only the stream was reset', async () => {
  await using other = await Other.open()
  await using world = await peerThatKnows(other)
  const stream = await other.dial(world.peer)
  stream.send(hello)
  await until(
    () => (world.peer.swarm.connected === 1 ? true : undefined),
    () => 'it has not joined',
  )
  const connection = other.node.getConnections().find(({ streams }) => streams.includes(stream))
  stream.abort(new Error('no longer'))
  await until(
    () => (world.peer.swarm.connected === 0 && connection?.status !== 'open' ? true : undefined),
    () => 'the connection is left open',
  )
  assert.equal(world.events, ['joined', 'left'])
})

test.run()
