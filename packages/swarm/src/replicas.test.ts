import { randomBytes } from 'node:crypto'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { SourceError } from '@shoal/store/source'
import type { HeldBlob } from '@shoal/store/store'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { heldBlob } from '../../../test/transfer-peer.ts'
import { prefixesOf } from './digest-prefix.ts'
import { type PeerAddress, type PeerAnswer, type PeerRequest, PeerViolation } from './peer-client.ts'
import { Provider } from './provider.ts'
import { Replicas } from './replicas.ts'

const never = new AbortController().signal
const hour = 3_600_000

type Answer = (digest: Digest, request: PeerRequest) => PeerAnswer | Promise<PeerAnswer>

/** A body of a range, of a blob that is said to have `size` bytes. */
function body(bytes: Buffer, { start, end }: { start: number; end: number }, size: number): PeerAnswer {
  return {
    status: 206,
    size,
    start,
    length: end - start,
    contentType: undefined,
    pipe: async sink => void sink(bytes),
    abort: () => {},
  }
}

/** Blobs of this machine, and peers who say that they hold all of them. */
class World {
  readonly blobs: { digest: Digest; size: number }[] = []
  readonly held = new Map<Digest, Buffer>()
  readonly peers = new Map<string, { provider: Provider; answer: Answer }>()
  /** Who is said to have what: all have all, but for these. */
  readonly lacking = new Set<string>()
  readonly verdicts: string[] = []
  /** Who was asked for what. */
  readonly asked: { peer: string; digest: Digest; start: number; end: number }[] = []
  now = 0
  random: () => number = Math.random
  readonly replicas: Replicas

  constructor(...sizes: number[]) {
    for (const size of sizes) {
      const bytes = randomBytes(size)
      this.held.set(digestOf(bytes), bytes)
      this.blobs.push({ digest: digestOf(bytes), size })
    }
    this.replicas = this.of('self')
  }

  digest(index: number): Digest {
    return this.blobs[index]!.digest
  }

  /** The same as another machine sees it. */
  of(
    self: string,
    open = async (digest: Digest): Promise<HeldBlob | undefined> => {
      const bytes = this.held.get(digest)
      return bytes && { ...heldBlob(bytes), digest }
    },
  ): Replicas {
    const replicas: Replicas = new Replicas({
      self,
      holders: digest =>
        [...this.peers].flatMap(([id, { provider }]) =>
          id === self || this.lacking.has(`${id} ${digest}`)
            ? []
            : [{ provider, address: { host: '127.0.0.1', port: 1 } }],
        ),
      client: { get: (address, digest, request) => this.#get(address, digest, request) },
      open,
      lacks: (provider, digest) => {
        this.lacking.add(`${provider.id} ${digest}`)
        replicas.lacks(provider.id, digest)
        this.verdicts.push(`lacks ${provider.id}`)
      },
      suspect: ({ id }) => void this.verdicts.push(`suspect ${id}`),
      ban: ({ id }) => void this.verdicts.push(`ban ${id}`),
      now: () => this.now,
      random: () => this.random(),
    })
    return replicas
  }

  add(id: string, answer: Answer = this.honest): Provider {
    const provider = new Provider(
      id,
      id,
      () => this.now,
      () => {},
    )
    this.peers.set(id, { provider, answer })
    return provider
  }

  readonly honest: Answer = (digest, { range = { start: 0, end: 0 } }) => {
    const bytes = this.held.get(digest)!
    return body(bytes.subarray(range.start, range.end), range, bytes.length)
  }

  prove(): Promise<void> {
    return this.replicas.prove(this.blobs, never)
  }

  async #get({ peerId }: PeerAddress, digest: Digest, request: PeerRequest): Promise<PeerAnswer> {
    const { start, end } = request.range ?? { start: 0, end: 0 }
    this.asked.push({ peer: peerId, digest, start, end })
    return this.peers.get(peerId)!.answer(digest, request)
  }
}

test('who only says that it holds a blob counts as no copy', () => {
  const world = new World(1000)
  const digest = world.digest(0)
  world.add('a')
  world.add('b')
  assert.is(world.replicas.claimed(digest), 2)
  assert.is(world.replicas.copies(digest), 0)
  assert.ok(world.replicas.keeps(digest))
})

test('who gives some bytes of it counts, for six hours', async () => {
  const world = new World(1000, 2000)
  world.add('a')
  await world.prove()
  for (const { digest } of world.blobs) assert.is(world.replicas.copies(digest), 1)
  assert.ok(world.asked.every(({ start, end }) => end - start === 64))
  world.now = 6 * hour - 1
  assert.is(world.replicas.copies(world.digest(0)), 1)
  world.now = 6 * hour
  assert.is(world.replicas.copies(world.digest(0)), 0)
})

test('any of its bytes may be asked for, the last one too; a small blob as a whole', async () => {
  const world = new World(1000, 10, 0)
  world.add('a')
  world.random = () => 1 - 2 ** -53
  await world.prove()
  assert.equal(
    world.asked.map(({ start, end }) => [start, end]),
    [
      [936, 1000],
      [0, 10],
    ],
  )
})

test('nobody is asked who has proved it, and no more than three', async () => {
  const world = new World(1000)
  for (const id of ['a', 'b', 'c', 'd', 'e']) world.add(id)
  world.replicas.gaveAll('a', world.digest(0))
  await world.prove()
  assert.is(world.asked.length, 2)
  assert.not.ok(world.asked.some(({ peer }) => peer === 'a'))
  assert.is(world.replicas.copies(world.digest(0)), 3)
  await world.prove()
  assert.is(world.asked.length, 2)
})

test('who gave all of it has proved it', () => {
  const world = new World(1000)
  world.add('a')
  world.replicas.gaveAll('a', world.digest(0))
  assert.is(world.replicas.copies(world.digest(0)), 1)
})

test('a liar that announces everything proves nothing, and is told to lack it', async () => {
  const world = new World(1000, 2000)
  world.add('liar', () => ({ status: 404 }))
  await world.prove()
  for (const { digest } of world.blobs) {
    assert.is(world.replicas.copies(digest), 0)
    assert.is(world.replicas.claimed(digest), 0)
    assert.ok(world.replicas.keeps(digest))
  }
  assert.equal(world.verdicts, ['lacks liar', 'lacks liar'])
})

test('a liar that makes up the bytes, or the size, is banned', async () => {
  for (const answer of [
    (_: Digest, { range = { start: 0, end: 0 } }: PeerRequest) => body(randomBytes(64), range, 1000),
    (_: Digest, { range = { start: 0, end: 0 } }: PeerRequest) => body(randomBytes(64), range, 1001),
    () => {
      throw new PeerViolation('the answer makes no sense')
    },
  ]) {
    const world = new World(1000)
    world.add('liar', answer)
    await world.prove()
    assert.is(world.verdicts.at(-1), 'ban liar')
    assert.is(world.replicas.copies(world.digest(0)), 0)
  }
})

test('if it is this machine whose bytes are wrong, nobody is banned', async () => {
  const world = new World(1000)
  const digest = world.digest(0)
  const right = world.held.get(digest)!
  world.held.set(digest, Buffer.alloc(1000))
  world.add('a', (_, { range = { start: 0, end: 0 } }) => body(right.subarray(range.start, range.end), range, 1000))
  await world.prove()
  assert.equal(world.verdicts, ['lacks a'])
})

test('what this machine cannot read itself, nobody is asked for', async () => {
  const world = new World(1000)
  world.held.set(world.digest(0), Buffer.alloc(0))
  world.add('a')
  const replicas = world.of('self', async digest => ({
    ...heldBlob(Buffer.alloc(1000)),
    digest,
    read: () => ({ read: () => Promise.reject(new Error('EIO')), cancel: () => {}, close: () => {} }),
  }))
  await replicas.prove(world.blobs, never)
  assert.equal(world.asked, [])
})

test('a liar that has this machine itself tell it the bytes proves nothing', async () => {
  const world = new World(1000, 1000)
  world.add('liar', async (digest, request) => {
    const { range = { start: 0, end: 0 } } = request
    // It, or somebody that belongs to it, asks for them, as a peer may.
    const blob = world.replicas.watch({ ...heldBlob(world.held.get(digest)!), digest })
    const reader = blob.read(range)
    const bytes = Buffer.alloc(64)
    await reader.read(bytes)
    reader.close()
    return body(bytes, range, 1000)
  })
  await world.prove()
  for (const { digest } of world.blobs) assert.is(world.replicas.copies(digest), 0)
  assert.equal(world.verdicts, [])
})

test('what peers are given of it elsewhere in it, or was given before, hinders no proof', async () => {
  const world = new World(1000)
  const digest = world.digest(0)
  world.random = () => 0
  const blob = world.replicas.watch({ ...heldBlob(world.held.get(digest)!), digest })
  blob.read({ start: 0, end: 1000 }).close()
  const reader = blob.read({ start: 64, end: 1000 })
  world.add('a')
  await world.prove()
  assert.is(world.replicas.copies(digest), 1)
  reader.close()
})

test('what is being given just then hinders one', async () => {
  const world = new World(1000)
  const digest = world.digest(0)
  const blob = world.replicas.watch({ ...heldBlob(world.held.get(digest)!), digest })
  const reader = blob.read({ start: 0, end: 1000 })
  world.add('a')
  await world.prove()
  assert.is(world.replicas.copies(digest), 0)
  reader.close()
  await world.prove()
  assert.is(world.replicas.copies(digest), 1)
})

test('a liar that is told the bytes by another that holds them counts, and brings the copies to one too many', async () => {
  const world = new World(1000)
  world.add('honest')
  world.add('liar', (digest, request) => world.honest(digest, request))
  await world.prove()
  assert.is(world.replicas.copies(world.digest(0)), 2)
})

test('a proof ends when the peer says that it has the blob no longer, also if it then says otherwise again', async () => {
  const world = new World(1000, 2000)
  world.add('a')
  await world.prove()
  world.replicas.removed('a', prefixesOf([world.digest(0)]))
  assert.is(world.replicas.copies(world.digest(0)), 0)
  assert.is(world.replicas.copies(world.digest(1)), 1)
})

test('it ends when the peer leaves', async () => {
  const world = new World(1000)
  world.add('a')
  await world.prove()
  world.replicas.forget('a')
  assert.is(world.replicas.copies(world.digest(0)), 0)
})

test('while a peer rests it counts for nothing, and is not asked', async () => {
  const world = new World(1000)
  const provider = world.add('a')
  await world.prove()
  provider.willing = false
  assert.is(world.replicas.copies(world.digest(0)), 0)
  await world.prove()
  assert.is(world.asked.length, 1)
  provider.willing = true
  assert.is(world.replicas.copies(world.digest(0)), 1)
})

test('who is busy, or rests, is not asked on, and loses nothing', async () => {
  for (const refusal of ['busy', 'resting'] as const) {
    const world = new World(1000, 1000, 1000)
    world.add('a', () => ({ status: 503, refusal }))
    await world.prove()
    assert.is(world.asked.length, 1)
    assert.equal(world.verdicts, [])
  }
})

test('who does not answer is suspected, and not asked on', async () => {
  const world = new World(1000, 1000, 1000)
  world.add('a', () => {
    throw new SourceError('timeout', 'too late')
  })
  await world.prove()
  assert.is(world.asked.length, 1)
  assert.equal(world.verdicts, ['suspect a'])
})

test('one peer is asked one question at a time, and four peers at once', async () => {
  const world = new World(...Array.from({ length: 20 }, () => 1000))
  const asked = new Map<string, number>()
  let now = 0
  let most = 0
  let mostOfOne = 0
  for (let index = 0; index < 12; index++) {
    const id = `peer-${index}`
    world.add(id, async (digest, request) => {
      asked.set(id, (asked.get(id) ?? 0) + 1)
      mostOfOne = Math.max(mostOfOne, asked.get(id) ?? 0)
      most = Math.max(most, ++now)
      await new Promise(resolve => setImmediate(resolve))
      now--
      asked.set(id, (asked.get(id) ?? 0) - 1)
      return world.honest(digest, request)
    })
  }
  await world.prove()
  assert.is(most, 4)
  world.now = 6 * hour
  await Promise.all([world.prove(), world.prove()])
  assert.is(mostOfOne, 1)
})

test('it stops when it is told to', async () => {
  const world = new World(1000, 1000, 1000)
  const abort = new AbortController()
  world.add('a', () => {
    abort.abort(new Error('no longer'))
    throw abort.signal.reason
  })
  const error = await world.replicas.prove(world.blobs, abort.signal).catch((error: Error) => error.message)
  assert.is(error, 'no longer')
  assert.is(world.asked.length, 1)
  assert.equal(world.verdicts, [])
})

test('of those who hold it and have proved that to each other, exactly one keeps it', async () => {
  const ids = ['a', 'b', 'c', 'd']
  const world = new World(...Array.from({ length: 40 }, () => 100))
  for (const id of ids) world.add(id)
  const machines = ids.map(id => ({ id, replicas: world.of(id) }))
  for (const { replicas } of machines) await replicas.prove(world.blobs, never)
  const keepers = new Set<string>()
  for (const { digest } of world.blobs) {
    const keeping = machines.filter(({ replicas }) => replicas.keeps(digest))
    assert.is(keeping.length, 1)
    keepers.add(keeping[0]!.id)
  }
  assert.is(keepers.size, ids.length, 'each keeps some')
})

test('whatever they know of each other, at least one of those who hold it keeps it', () => {
  const ids = ['a', 'b', 'c']
  for (let known = 0; known < 64; known++) {
    const world = new World(100)
    const digest = world.digest(0)
    for (const id of ids) world.add(id)
    const machines = ids.map(id => world.of(id))
    let bit = 1
    for (const [index, replicas] of machines.entries())
      for (const [other, id] of ids.entries()) {
        if (other === index) continue
        if (known & bit) replicas.gaveAll(id, digest)
        bit <<= 1
      }
    assert.ok(machines.some(replicas => replicas.keeps(digest)))
  }
})

test('of very many proofs the oldest are forgotten', () => {
  const world = new World()
  world.add('a')
  world.add('b')
  const digests = Array.from({ length: 70_000 }, (_, index) => digestOf(Buffer.from(String(index))))
  world.replicas.gaveAll('b', digests[0]!)
  for (const digest of digests) world.replicas.gaveAll('a', digest)
  assert.is(world.replicas.copies(digests[0]!), 1)
  assert.is(world.replicas.copies(digests.at(-1)!), 1)
  const kept = digests.filter(digest => world.replicas.copies(digest) > 0).length
  assert.ok(kept <= 65_536 && kept > 50_000, `${kept} are kept`)
})

test.run()
