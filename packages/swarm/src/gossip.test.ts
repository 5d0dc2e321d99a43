import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Connection } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../../test/shoal-process.ts'
import type { MessageError } from './message.ts'
import { type Node, portOf, startNode } from './node.ts'

const host = '127.0.0.1'
const protocol = '/meshsub/1.2.0'

/** A node that hears gossip, and passes on what a test says. */
class Machine implements AsyncDisposable {
  readonly node: Node
  /** What was said, by whom. */
  readonly heard: string[] = []
  readonly floods: MessageError[] = []
  passes: (text: string) => boolean = () => true

  private constructor(node: Node) {
    this.node = node
    node.services.gossip.listen(({ author, bytes }) => {
      const text = String(Buffer.from(bytes))
      this.heard.push(`${author} ${text}`)
      return this.passes(text)
    })
  }

  static async open(): Promise<Machine> {
    const privateKey = await generateKeyPair('Ed25519')
    const gossip = { topic: '/test', now: () => performance.now() }
    const listen = { host, port: 0 }
    return new Machine(
      await startNode({ privateKey, listen, psk: undefined, admits: () => true, admitsPeer: () => true, gossip }),
    )
  }

  get id(): string {
    return this.node.peerId.toString()
  }

  join(connection: Connection): void {
    this.node.services.gossip.joined(connection, error => void this.floods.push(error))
  }

  leave({ id }: Machine): void {
    this.node.services.gossip.left(id)
  }

  say(text: string): Promise<void> {
    return this.node.services.gossip.publish(Buffer.from(text))
  }

  /** Says something until another hears it: links come to stand in their own time. */
  async reaches(other: Machine, text: string): Promise<void> {
    const said = `${this.id} ${text}`
    await until(
      async () => {
        await this.say(text)
        return other.heard.includes(said) ? true : undefined
      },
      () => 'it is not heard',
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.node.getConnections()) connection.abort(new Error('the test is over'))
    await this.node.stop()
  }
}

/** One more connection between two machines, as each of them sees it. */
async function connect(one: Machine, other: Machine): Promise<readonly [Connection, Connection]> {
  const before = new Set(other.node.getConnections())
  const connection = await one.node.dial(multiaddr(`/ip4/${host}/tcp/${portOf(other.node)}`), { force: true })
  const accepted = await until(
    () => other.node.getConnections(one.node.peerId).find(each => !before.has(each)),
    () => 'it is not connected',
  )
  return [connection, accepted]
}

/** Two machines that take part with each other. */
async function link(one: Machine, other: Machine): Promise<Connection> {
  const [there, here] = await connect(one, other)
  one.join(there)
  other.join(here)
  return there
}

// The first: what others leave would count.
test('a node that was stopped keeps no process alive', async () => {
  const timers = () => process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  const before = timers()
  {
    await using one = await Machine.open()
    await using other = await Machine.open()
    await link(one, other)
    await one.reaches(other, 'hello')
    assert.ok(timers() > before)
  }
  // Shorter than a heartbeat.
  await until(
    () => timers() <= before || undefined,
    () => `${timers()} timers are left, not ${before}`,
    5000,
  )
})

test('what one says comes to those behind the next, as its own word', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  await using c = await Machine.open()
  await link(a, b)
  await link(b, c)
  await a.reaches(c, 'hello')
  await c.reaches(a, 'and back')
})

test('what a machine does not take, it does not pass on', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  await using c = await Machine.open()
  await link(a, b)
  await link(b, c)
  b.passes = text => text !== 'not to be passed on'
  await a.reaches(c, 'before')
  await a.reaches(b, 'not to be passed on')
  await a.reaches(c, 'after')
  assert.not.ok(c.heard.includes(`${a.id} not to be passed on`))
})

test('whom it was not told of gets no stream', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  const [connection] = await connect(a, b)
  const stream = await connection.newStream(protocol)
  await until(
    () => (stream.status === 'open' ? undefined : true),
    () => 'the stream is kept',
  )
  assert.equal(b.heard, [])
})

test('over another connection than the one it was told of there is no stream, either', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  await link(a, b)
  const [connection] = await connect(a, b)
  const stream = await connection.newStream(protocol)
  await until(
    () => (stream.status === 'open' ? undefined : true),
    () => 'the stream is kept',
  )
})

test('a connection that takes the place of another does not lose the peer', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  const there = await link(a, b)
  await a.reaches(b, 'over the first')
  await link(a, b)
  there.abort(new Error('it was dead'))
  await a.reaches(b, 'over the second')
  await b.reaches(a, 'over the second')
})

test('who has left hears no more, and does when it has come back', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  const there = await link(a, b)
  await a.reaches(b, 'before')
  a.leave(b)
  b.leave(a)
  there.abort(new Error('it has gone'))
  await a.say('while it was away')
  await link(a, b)
  await a.reaches(b, 'after')
  assert.not.ok(b.heard.includes(`${a.id} while it was away`))
})

test('of who has left nothing is heard, though its connection is still there', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  await link(a, b)
  await a.reaches(b, 'before')
  b.leave(a)
  await a.say('still there')
  await link(a, b)
  await a.reaches(b, 'after')
  assert.not.ok(b.heard.includes(`${a.id} still there`))
})

test('who sends more than any office says is told of, whatever it is', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  const [there, here] = await connect(a, b)
  b.join(here)
  const stream = await there.newStream(protocol)
  // Of 100 bytes each, that mean nothing.
  const frames = Buffer.alloc(101 * 100)
  for (let offset = 0; offset < frames.length; offset += 101) frames[offset] = 100
  await until(
    async () => {
      if (b.floods.length > 0) return true
      if (!stream.send(frames)) await stream.onDrain()
      return undefined
    },
    () => 'nobody is told',
  )
  assert.is(b.floods[0]?.code, 'FLOOD')
})

test('nothing is kept in the peer store of who has gone', async () => {
  await using a = await Machine.open()
  await using b = await Machine.open()
  const there = await link(a, b)
  await a.reaches(b, 'hello')
  a.leave(b)
  b.leave(a)
  await there.close()
  for (const { node } of [a, b])
    await until(
      async () => ((await node.peerStore.all()).length === 0 ? true : undefined),
      () => 'something is kept of who has gone',
    )
})

test.run()
