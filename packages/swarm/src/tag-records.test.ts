import type { Connection, Stream } from '@libp2p/interface'
import { digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import type { Sighting } from '@shoal/store/refs'
import type { Libp2p } from 'libp2p'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makePeer } from '../../../test/transfer-peer.ts'
import type { Identity } from './identity.ts'
import { decodeTagAnswer, encodeTagAnswer, encodeTagRequest } from './message.ts'
import { dial, portOf, startNode } from './node.ts'
import { answer, ask } from './request.ts'
import { signRecord } from './tag-record.ts'
import { TagRecords, type TagRecordsOptions } from './tag-records.ts'

const never = new AbortController().signal
const nginx = parseName('docker.io', 'library/nginx')
const now = 1_750_000_000_000
const ttl = 5 * 60_000
const minute = 60_000

/** What somebody has seen a tag to be, so many ms ago. */
function seen(content: string, ago = 0): Sighting {
  return {
    descriptor: { mediaType: mediaTypes.ociIndex, digest: digestOf(Buffer.from(content)), size: content.length },
    at: now - ago,
    from: 'registry-1.docker.io',
    visibility: 'public',
  }
}

const contentOf = (sighting: Sighting | undefined, ...contents: string[]) =>
  contents.find(content => digestOf(Buffer.from(content)) === sighting?.descriptor.digest)

/** How a peer answers a question about a tag. */
type Reply = (question: Uint8Array, self: Identity) => Promise<Uint8Array>

/** Signs this, whatever the question is. */
const says =
  (sighting: Sighting, { name = 'docker.io/library/nginx', tag = 'latest' } = {}): Reply =>
  async (_question, { peerId, privateKey }) =>
    encodeTagAnswer(await signRecord({ name, tag, sighting, peerId, privateKey }))

const silent: Reply = () => new Promise(() => {})

/** A machine, and peers that it is connected to. */
class World implements AsyncDisposable {
  asked = 0
  readonly connections: { connection: Connection; name: string }[] = []
  readonly #nodes: Libp2p[] = []
  readonly #identity: Identity

  private constructor(node: Libp2p, identity: Identity) {
    this.#nodes.push(node)
    this.#identity = identity
  }

  static async open(...replies: readonly Reply[]): Promise<World> {
    const { node, identity } = await nodeWith()
    const world = new World(node, identity)
    for (const [index, reply] of replies.entries())
      await world.#connect(`peer ${index}`, (stream, self) => {
        world.asked++
        return answer(stream, question => reply(question, self), never)
      })
    return world
  }

  /** A machine that is connected to one which answers as Shoal does. */
  static async withRecords(options: Partial<TagRecordsOptions>): Promise<World> {
    const { node, identity } = await nodeWith()
    const world = new World(node, identity)
    await world.#connect('peer', (stream, self) => new TagRecords(optionsFor(self, options)).answer(stream, never))
    return world
  }

  records(options: Partial<TagRecordsOptions> = {}): TagRecords {
    return new TagRecords(optionsFor(this.#identity, { connections: () => this.connections, ...options }))
  }

  async #connect(name: string, onStream: (stream: Stream, self: Identity) => Promise<void>): Promise<void> {
    const { node, identity } = await nodeWith()
    this.#nodes.push(node)
    await node.handle(TagRecords.protocol, stream => onStream(stream, identity))
    const addresses = [{ host: '127.0.0.1', port: portOf(node) }]
    this.connections.push({ connection: await dial(this.#nodes[0]!, { addresses }), name })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // To close them in order takes half a second.
    for (const { connection } of this.connections) connection.abort(new Error('the test is over'))
    await Promise.all(this.#nodes.map(node => node.stop()))
  }
}

async function nodeWith(): Promise<{ node: Libp2p; identity: Identity }> {
  const identity = await makePeer()
  const node = await startNode({
    privateKey: identity.privateKey,
    listen: { host: '127.0.0.1', port: 0 },
    psk: undefined,
    admits: () => true,
    admitsPeer: () => true,
    gossip: { topic: '/test', now: () => performance.now() },
  })
  return { node, identity }
}

function optionsFor({ peerId, privateKey }: Identity, more: Partial<TagRecordsOptions>): TagRecordsOptions {
  return {
    peerId,
    privateKey,
    believes: true,
    spares: true,
    ttl,
    known: () => undefined,
    connections: () => [],
    clock: () => now,
    random: () => 0.5,
    ...more,
  }
}

/** Asks until an answer has come in time: on a machine that is busy, 50 ms may be too short. */
async function freshOf(records: TagRecords): Promise<Sighting | undefined> {
  for (let count = 0; count < 100; count++) {
    const found = await records.fresh(nginx, 'latest', never)
    if (found) return found
  }
  return undefined
}

test('what a peer knows is found, as a sighting of that peer', async () => {
  const asked: [string, string][] = []
  const known = (name: string, tag: string) => {
    asked.push([name, tag])
    return seen('index', minute)
  }
  await using w = await World.withRecords({ known })
  const expected = { ...seen('index', minute), from: 'peer' }
  assert.equal(await w.records().last(nginx, 'latest', never), expected)
  assert.equal(asked, [['docker.io/library/nginx', 'latest']])
})

test('what a peer does not know, or may not tell, is not found', async () => {
  await using w = await World.withRecords({})
  assert.is(await w.records().last(nginx, 'latest', never), undefined)
  const question = encodeTagRequest({ name: 'docker.io/library/nginx', tag: 'latest' })
  const reply = await ask(w.connections[0]!.connection, TagRecords.protocol, question, never)
  assert.equal(decodeTagAnswer(reply), {})
})

for (const [how, spares] of Object.entries({
  'for a member of a private network, the registry is asked': true,
  'in the open network, the registry is asked for nobody': false,
}))
  test(`${how} by who has a way to it`, async () => {
    const checks: boolean[] = []
    const known = (_name: string, _tag: string, check: boolean) => {
      checks.push(check)
      return seen('index')
    }
    await using w = await World.withRecords({ known, spares })
    await w.records({ spares: true }).fresh(nginx, 'latest', never)
    assert.not(checks.includes(true))
    checks.length = 0
    await w.records({ spares: true }).last(nginx, 'latest', never)
    assert.equal(checks, [spares])
    // Where peers may be anybody, it is not asked for.
    await w.records({ spares: false }).last(nginx, 'latest', never)
    assert.equal(checks, [spares, false])
  })

test('a question that is none gets no answer', async () => {
  await using w = await World.withRecords({ known: () => seen('index') })
  const error = await ask(w.connections[0]!.connection, TagRecords.protocol, Buffer.from('nonsense'), never).then(
    () => undefined,
    (error: unknown) => error,
  )
  assert.instance(error, Error)
})

test('of what several know the newest counts', async () => {
  await using w = await World.open(
    says(seen('older', 3 * minute)),
    says(seen('newest', minute)),
    says(seen('oldest', 60 * minute)),
    async () => encodeTagAnswer({}),
  )
  const found = await w.records().last(nginx, 'latest', never)
  assert.is(contentOf(found, 'older', 'newest', 'oldest'), 'newest')
  assert.is(found?.from, 'peer 1')
  assert.is(w.asked, 4)
})

test('what is older than the ttl is found only where the registry cannot be asked', async () => {
  await using w = await World.open(says(seen('index', ttl)))
  assert.is(await w.records().fresh(nginx, 'latest', never), undefined)
  assert.is(contentOf(await w.records().last(nginx, 'latest', never), 'index'), 'index')
  assert.is(contentOf(await freshOf(w.records({ ttl: ttl + 1 })), 'index'), 'index')
})

test('the registry is not spared where peers may be anybody, and peers are not asked if they are not believed', async () => {
  await using w = await World.open(says(seen('index')))
  assert.is(await w.records({ spares: false }).fresh(nginx, 'latest', never), undefined)
  assert.is(await w.records({ believes: false }).fresh(nginx, 'latest', never), undefined)
  assert.is(await w.records({ believes: false }).last(nginx, 'latest', never), undefined)
  assert.is(w.asked, 0)
  assert.ok(await w.records({ spares: false }).last(nginx, 'latest', never))
})

test('who does not answer costs 50 ms where the registry can be asked', async () => {
  await using w = await World.open(silent)
  const before = performance.now()
  assert.is(await w.records().fresh(nginx, 'latest', never), undefined)
  // Far less than what is waited where it cannot.
  assert.ok(performance.now() - before < 1400)
})

test('one who does not answer does not hinder another whose answer is fresh', async () => {
  await using w = await World.open(silent, says(seen('index', minute)))
  assert.is(contentOf(await freshOf(w.records()), 'index'), 'index')
})

test('an abort ends it, and what has come by then counts', async () => {
  await using w = await World.open(silent, says(seen('index', minute)))
  const reason = new Error('nobody wants it any longer')
  const abort = new AbortController()
  const last = w.records().last(nginx, 'latest', abort.signal)
  setTimeout(() => abort.abort(reason), 200)
  assert.is(contentOf(await last, 'index'), 'index')
})

test('with nobody there it is not found', async () => {
  await using w = await World.open()
  assert.is(await w.records().fresh(nginx, 'latest', never), undefined)
  assert.is(await w.records().last(nginx, 'latest', never), undefined)
})

test('a clock that is ahead by less than five minutes is believed, but not that it is ahead', async () => {
  await using w = await World.open(says(seen('index', -4 * minute)))
  const found = await w.records().last(nginx, 'latest', never)
  assert.is(found?.at, now)
})

test('of two, one that is ahead does not win over what was checked now by being ahead', async () => {
  await using w = await World.open(says(seen('ahead', -6 * minute)), says(seen('old', 60 * minute)))
  assert.is(contentOf(await w.records().last(nginx, 'latest', never), 'ahead', 'old'), 'old')
})

const wrong: Record<string, Reply> = {
  'for another name': says(seen('index'), { name: 'docker.io/library/other' }),
  'for another tag': says(seen('index'), { tag: '1.27' }),
  'from more than five minutes ahead': says(seen('index', -5 * minute - 1)),
  'that another has signed': async (_question, { peerId }) => {
    const { privateKey } = await makePeer()
    const fields = { name: 'docker.io/library/nginx', tag: 'latest', sighting: seen('index') }
    return encodeTagAnswer(await signRecord({ ...fields, peerId, privateKey }))
  },
  'that is another’s': async question => says(seen('index'))(question, await makePeer()),
  'without a signature': async (question, self) => {
    const { record = new Uint8Array() } = decodeTagAnswer(await says(seen('index'))(question, self))
    return encodeTagAnswer({ record })
  },
  'that is too long': async (_question, { privateKey }) => {
    const record = new Uint8Array(4097)
    return encodeTagAnswer({ record, signature: await privateKey.sign(record) })
  },
  'that is nonsense': async () => Buffer.from('nonsense'),
  'that does not come': async () => {
    throw new Error('no')
  },
}
test('what else may come is refused, each of it, and harms nobody', async () => {
  await using w = await World.open(...Object.values(wrong))
  for (const [index, what] of Object.keys(wrong).entries()) {
    const records = w.records({ connections: () => [w.connections[index]!] })
    assert.is(await records.last(nginx, 'latest', never), undefined, what)
  }
  assert.is(await w.records().last(nginx, 'latest', never), undefined)
})

test('of many peers sixteen are asked, any of them', async () => {
  const asked = new Set<number>()
  await using w = await World.open(...Array.from({ length: 4 }, () => async () => encodeTagAnswer({})))
  const many = Array.from({ length: 64 }, (_, index) => ({
    name: `peer ${index}`,
    get connection() {
      asked.add(index)
      return w.connections[index % 4]!.connection
    },
  }))
  let turn = 0
  // A permutation: the first eight, and every eighth after them, come last.
  const random = () => ((turn++ * 37) % 64) / 64
  assert.is(await w.records({ connections: () => many, random }).last(nginx, 'latest', never), undefined)
  assert.is(w.asked, 16)
  assert.is(asked.size, 16)
  assert.ok(Math.max(...asked) > 15, 'they are not just the first')
})

test.run()
