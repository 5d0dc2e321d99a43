import type { Told } from '@shoal/retention/office-popularity'
import type { Row } from '@shoal/retention/popularity'
import { encode } from 'cborg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Digest, digestOf } from '../../packages/oci/src/digest.ts'
import { createToken, networkOf, openNetwork } from '../../packages/swarm/src/network.ts'
import { until } from '../shoal-process.ts'
import { heldBlob } from '../transfer-peer.ts'
import { FakePeer, type FakePeerOptions } from './fake-peer.ts'
import { frame, hello, Stranger } from './stranger.ts'

const row = (name: string, score: number): Row => ({ image: `docker.io/library/${name}:latest`, score })

/** A peer that knows what is pulled on it, and keeps what it hears of others. */
class Machine implements AsyncDisposable {
  readonly peer: FakePeer
  readonly #heard: { peer: string; told: Told }[]
  readonly #rows: Row[]
  /** Until it tells what has changed. */
  readonly #due: Set<() => void>

  private constructor(peer: FakePeer, heard: { peer: string; told: Told }[], rows: Row[], due: Set<() => void>) {
    this.peer = peer
    this.#heard = heard
    this.#rows = rows
    this.#due = due
  }

  static async open(rows: Row[], options: FakePeerOptions = {}): Promise<Machine> {
    const heard: { peer: string; told: Told }[] = []
    const due = new Set<() => void>()
    const popularity = {
      rows: () => rows,
      heard: (peer: string, told: Told) => void heard.push({ peer, told }),
      after: (_ms: number, then: () => void) => {
        due.add(then)
        return { [Symbol.dispose]: () => void due.delete(then) }
      },
    }
    return new Machine(await FakePeer.open({ ...options, more: { popularity, ...options.more } }), heard, rows, due)
  }

  get id(): string {
    return this.peer.swarm.peerId
  }

  /** What it has heard of another, in order. */
  from(other: Machine): Row[] {
    return this.#heard.flatMap(({ peer, told }) => (peer === other.id ? told.rows : []))
  }

  /** Something is pulled on it, and it is time to tell. */
  pulls(pulled: Row): void {
    const index = this.#rows.findIndex(({ image }) => image === pulled.image)
    this.#rows.splice(index < 0 ? this.#rows.length : index, 1, pulled)
    this.peer.swarm.popularityChanged()
    for (const then of [...this.#due]) {
      this.#due.delete(then)
      then()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.peer[Symbol.asyncDispose]()
  }
}

/** Waits until all of these are connected to all. */
async function gathered(...machines: Machine[]): Promise<void> {
  await until(
    () => (machines.every(({ peer }) => peer.swarm.connected === machines.length - 1) ? true : undefined),
    () => 'not all are connected',
  )
}

/** Has something pulled, again and again, until all others have heard of it. */
async function reaches(machine: Machine, others: readonly Machine[], name: string): Promise<void> {
  let score = 100
  await until(
    () => {
      machine.pulls(row(name, score++))
      const hears = (other: Machine) => other.from(machine).some(({ image }) => image === row(name, 0).image)
      return others.every(hears) ? true : undefined
    },
    () => 'not all have heard of it',
  )
}

for (const network of [openNetwork, networkOf(createToken())])
  test(`who comes hears what all have pulled, and then what they pull: ${network.private ? 'a private' : 'the open'} network`, async () => {
    await using a = await Machine.open([row('nginx', 10)], { network })
    const bootstrap = [a.peer.address]
    await using b = await Machine.open([row('redis', 5), row('nginx', 1)], { network, bootstrap })
    await using c = await Machine.open([], { network, bootstrap })
    const all = [a, b, c]
    await gathered(...all)
    await until(
      () =>
        b.from(a).length === 1 && c.from(a).length === 1 && a.from(b).length === 2 && c.from(b).length === 2
          ? true
          : undefined,
      () => 'not all have been told',
    )
    assert.equal(b.from(a), [row('nginx', 10)])
    assert.equal(c.from(a), [row('nginx', 10)])
    assert.equal(c.from(b), [row('redis', 5), row('nginx', 1)])
    assert.equal(a.from(c), [])
    await reaches(a, [b, c], 'busybox')
    await reaches(c, [a, b], 'alpine')
    assert.not.ok(b.from(a).some(({ image, score }) => image === row('nginx', 10).image && score !== 10))
    assert.is(b.from(a).filter(({ image }) => image === row('nginx', 0).image).length, 1, 'told once')
  })

test('twelve machines all hear of what is pulled on one, though it tells a few', async () => {
  await using stack = new AsyncDisposableStack()
  const first = stack.use(await Machine.open([]))
  const machines = [first]
  for (let count = 1; count < 12; count++)
    machines.push(stack.use(await Machine.open([], { bootstrap: [first.peer.address] })))
  await gathered(...machines)
  await reaches(first, machines.slice(1), 'nginx')
})

test('who gives nothing tells nothing, and hears', async () => {
  await using a = await Machine.open([row('nginx', 10)])
  await using b = await Machine.open([row('redis', 5)], { bootstrap: [a.peer.address], more: { sharing: undefined } })
  await gathered(a, b)
  await reaches(a, [b], 'busybox')
  b.pulls(row('secret', 7))
  await reaches(a, [b], 'alpine')
  assert.equal(a.from(b), [])
})

test('who comes back is told anew, and hears', async () => {
  await using a = await Machine.open([row('nginx', 10)])
  const b = await Machine.open([], { bootstrap: [a.peer.address] })
  await gathered(a, b)
  await reaches(a, [b], 'busybox')
  await b[Symbol.asyncDispose]()
  await gathered(a)
  await using c = await Machine.open([], { bootstrap: [a.peer.address] })
  await gathered(a, c)
  await reaches(a, [c], 'alpine')
  assert.ok(c.from(a).some(({ image }) => image === row('nginx', 0).image))
})

test('a release that knows nothing of it is told nothing, and may take part in nothing', async () => {
  await using a = await Machine.open([row('nginx', 10)])
  await using stranger = await Stranger.open()
  const { swarm } = a.peer.swarm.ports
  const session = await stranger.say(swarm, hello)
  let heard = Buffer.alloc(0)
  session.addEventListener('message', ({ data }) => {
    heard = Buffer.concat([heard, data.subarray()])
  })
  const gossip = await stranger.stream(swarm, '/meshsub/1.2.0')
  await until(
    () => (gossip.status === 'open' ? undefined : true),
    () => 'it may gossip',
  )
  session.send(frame({ t: 'ping', n: 7 }))
  await until(
    () => (heard.includes('pong') ? true : undefined),
    () => 'it is not answered',
  )
  assert.not.ok(heard.includes(Buffer.from(encode('popular'))))
  assert.is(session.status, 'open')
})

test('a liar that sends a flood of gossip is sent away', async () => {
  const left: (string | undefined)[] = []
  const events = {
    joined: () => {},
    left: (_peer: unknown, why: string | undefined) => void left.push(why),
    banned: () => {},
    gave: () => {},
    limit: () => {},
    warning: () => {},
  }
  await using a = await Machine.open([], { more: { events } })
  await using stranger = await Stranger.open()
  const { swarm } = a.peer.swarm.ports
  const says = {
    t: 'hello',
    versions: [1],
    features: ['popularity'],
    swarm_port: 1,
    transfer_port: 1,
    name: 'liar',
    uploads: true,
  }
  await stranger.say(swarm, frame(says))
  await until(
    () => (a.peer.swarm.connected === 1 ? true : undefined),
    () => 'it has not joined',
  )
  const gossip = await stranger.stream(swarm, '/meshsub/1.2.0')
  await until(
    async () => {
      if (left.length > 0) return true
      if (gossip.status === 'open' && !gossip.send(Buffer.alloc(8192))) await gossip.onDrain().catch(() => {})
      return undefined
    },
    () => 'it may stay',
  )
  assert.match(left[0] ?? '', /bytes of gossip/)
})

test('peers prove to each other what they hold, and one of them keeps it; of what all say that they hold, one looks after the name', async () => {
  const blobs = new Map<Digest, Buffer>()
  for (let index = 0; index < 20; index++) {
    const bytes = Buffer.from(`blob ${index} `.repeat(100))
    blobs.set(digestOf(bytes), bytes)
  }
  await using a = await FakePeer.open({ blobs })
  await using b = await FakePeer.open({ blobs, bootstrap: [a.address] })
  // It has announced them, and has none.
  await using liar = await FakePeer.open({ blobs, behaviour: 'lacking', bootstrap: [a.address] })
  await using resting = await FakePeer.open({ blobs, bootstrap: [a.address], more: { resting: () => 'on battery' } })
  const honest = [a.swarm, b.swarm]
  const willing = [...honest, liar.swarm]
  const digests = [...blobs.keys()]
  const sizes = [...blobs].map(([digest, bytes]) => ({ digest, size: bytes.length }))
  await until(
    () =>
      [...willing, resting.swarm].every(swarm => digests.every(digest => swarm.claimed(digest) === 3))
        ? true
        : undefined,
    () => 'not all have been told what there is',
  )
  for (const digest of digests) {
    assert.is(willing.filter(swarm => swarm.responsible(`of ${digest}`, digest)).length, 1)
    assert.not.ok(resting.swarm.responsible(`of ${digest}`, digest))
    for (const swarm of honest) assert.is(swarm.copies(digest), 0)
  }
  for (const swarm of honest) await swarm.prove(sizes, new AbortController().signal)
  for (const digest of digests) {
    for (const swarm of honest) assert.is(swarm.copies(digest), 1)
    assert.is(honest.filter(swarm => swarm.keeps(digest)).length, 1)
  }
})

test('a liar that has who asks tell it the bytes proves nothing', async () => {
  const bytes = Buffer.from('a layer '.repeat(100))
  const digest = digestOf(bytes)
  const blobs = new Map([[digest, bytes]])
  await using a = await FakePeer.open({ blobs })
  const { peerId, ports } = a.swarm
  const liar: FakePeer = await FakePeer.open({
    blobs,
    bootstrap: [a.address],
    more: {
      open: async () => {
        const statuses = await liar.ask({ peerId, host: '127.0.0.1', port: ports.transfer }, [digest])
        assert.equal(statuses, [200])
        relayed++
        return { blob: heldBlob(bytes), contentType: 'application/octet-stream' }
      },
    },
  })
  let relayed = 0
  await using _liar = liar
  await until(
    () => (a.swarm.claimed(digest) === 1 ? true : undefined),
    () => 'it announces nothing',
  )
  await a.swarm.prove([{ digest, size: bytes.length }], new AbortController().signal)
  assert.is(relayed, 1)
  assert.is(a.swarm.copies(digest), 0)
  assert.is(a.swarm.claimed(digest), 1)
})

test.run()
