import { randomBytes } from 'node:crypto'
import type { ByteRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import type { JointDownload, JointDownloads, JointTransfer } from '@shoal/store/joint'
import { type Giver, type Offer, type Source, SourceError, type Want } from '@shoal/store/source'
import { Store } from '@shoal/store/store'
import type { Transfer } from '@shoal/store/transfer'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readAll } from '../../../test/read-all.ts'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Filling, type NowhereError } from './filling.ts'

const blob = randomBytes(4_000_000)
const want: Want = {
  name: parseName('docker.io', 'busybox'),
  digest: digestOf(blob),
  kind: 'blob',
  size: blob.length,
}
const all: ByteRange = { start: 0, end: blob.length }

/** An upstream that gives piece by piece, and may be made to wait. */
class Upstream implements Source {
  readonly label = 'hub'
  readonly found: Want[] = []
  readonly fetched: ByteRange[] = []
  /** The byte that it does not go beyond until it is let. */
  limit = blob.length
  fails = false
  /** Whether it has come there. */
  waits = false
  #more = Promise.withResolvers<void>()

  letGo(): void {
    this.limit = blob.length
    this.#more.resolve()
  }

  async find(asked: Want, signal: AbortSignal): Promise<Offer | null> {
    signal.throwIfAborted()
    this.found.push(asked)
    if (this.fails) throw new SourceError('unreachable', 'hub cannot be reached')
    return {
      origin: { kind: 'upstream', host: 'hub', visibility: 'public' },
      size: blob.length,
      ranges: () => new RangeSet([all]),
      onGrow: () => ({ [Symbol.dispose]: () => {} }),
      fetch: async (range, into, signal) => {
        this.fetched.push(range)
        for (let at = range.start; into.room > 0; ) {
          this.waits = at >= this.limit
          if (this.waits) await Promise.race([this.#more.promise, aborted(signal)])
          const bytes = blob.subarray(at, at + 100_000)
          at += bytes.length
          await into.write(bytes)
          await new Promise(resolve => setImmediate(resolve))
        }
      },
      close: () => {},
    }
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}

const peer: Giver = { kind: 'peer', label: 'neighbour', wrong: reason => void blamed.push(reason) }
const blamed: string[] = []

/** Others who share the download, played by a test. */
class Others implements JointDownloads {
  readonly joined: JointTransfer[] = []
  readonly told: string[] = []
  alive = true
  /** What is to be fetched at once. */
  begin: readonly ByteRange[] | undefined
  /** Whether this machine had better go by itself. */
  refuses = false

  join(_want: Want, transfer: JointTransfer): JointDownload | undefined {
    if (this.refuses) return undefined
    this.joined.push(transfer)
    if (this.begin) transfer.fetch(new RangeSet(this.begin))
    const others = this
    return {
      arrived: () => {},
      exhausted: () => void this.told.push('exhausted'),
      get alive() {
        return others.alive
      },
      end: whole => void this.told.push(whole ? 'whole' : 'left'),
    }
  }

  get transfer(): JointTransfer {
    const transfer = this.joined.at(-1)
    if (!transfer) throw new Error('nobody has joined')
    return transfer
  }

  give(start: number, end: number, bytes: Buffer = blob): Promise<void> {
    return this.transfer.write(bytes.subarray(start, end), start, peer, blob.length)
  }
}

/** Peers that have all of it. */
class Holders implements Source {
  readonly label = 'peers'
  readonly kind = 'peer'
  readonly #give: Offer['fetch'] | SourceError

  /** @param give or why none of them can give it now */
  constructor(give: Offer['fetch'] | SourceError) {
    this.#give = give
  }

  async find(): Promise<Offer | null> {
    if (this.#give instanceof SourceError) throw this.#give
    return {
      origin: { kind: 'peer', host: 'neighbour', visibility: 'public' },
      giver: peer,
      size: blob.length,
      ranges: () => new RangeSet([all]),
      onGrow: () => ({ [Symbol.dispose]: () => {} }),
      fetch: this.#give,
      close: () => {},
    }
  }
}

/** Gives at a rate in bytes/s. */
const at =
  (rate: number): Offer['fetch'] =>
  async (range, into, signal) => {
    for (let position = range.start; into.room > 0; position += rate / 100) {
      await new Promise(resolve => setTimeout(resolve, 10))
      signal.throwIfAborted()
      await into.write(blob.subarray(position, Math.min(position + rate / 100, range.end)))
    }
  }

class World implements AsyncDisposable {
  readonly upstream = new Upstream()
  readonly others = new Others()
  readonly disk: WatchedDisk
  readonly store: Store
  readonly transfer: Transfer
  #filling: Filling | undefined
  #running: Promise<void> | undefined

  private constructor(disk: WatchedDisk, store: Store) {
    this.disk = disk
    this.store = store
    this.transfer = store.begin(want.digest)
  }

  static async open(): Promise<World> {
    blamed.length = 0
    const disk = await WatchedDisk.open()
    return new World(disk, await Store.open({ folder: disk.folder, disk, onWarning: () => {} }))
  }

  /** @param peers asked before upstream */
  fill(...peers: readonly Source[]): Promise<void> {
    this.#filling = new Filling({
      store: this.store,
      transfer: this.transfer,
      want,
      sources: [...peers, this.upstream],
      random: () => 0.5,
      joint: { downloads: this.others, line: () => true, onAlive: () => {} },
      onWrong: () => {},
      onUnstored: () => {},
      onFailure: () => {},
    })
    this.#running = this.#filling.run()
    return this.#running
  }

  /** It is to fetch all, and has come to a byte where upstream waits. */
  async fillUpTo(limit: number): Promise<{ readonly done: Promise<void> }> {
    this.others.begin = [all]
    this.upstream.limit = limit
    const done = this.fill()
    await this.until(() => this.upstream.waits)
    return { done }
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await Promise.race([this.transfer.changed(), new Promise(resolve => setTimeout(resolve, 5))])
  }

  async held(): Promise<Buffer | undefined> {
    const held = await this.store.open(want.digest)
    if (!held) return undefined
    try {
      return await readAll(held.read(all), 1 << 20)
    } finally {
      held.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#filling?.stop(new Error('the test is over'))
    await this.#running
    await this.store.close()
    await this.disk[Symbol.asyncDispose]()
  }
}

test('sources are not asked before it is settled who asks them, and then for no more than that', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  const done = world.fill()
  await world.until(() => world.others.joined.length > 0)
  assert.equal(world.upstream.found, [])
  world.others.transfer.fetch(new RangeSet([{ start: 1_000_000, end: 2_000_000 }]))
  await world.until(() => world.transfer.have.covers({ start: 1_000_000, end: 2_000_000 }))
  await world.others.give(0, 1_000_000)
  await world.others.give(2_000_000, blob.length)
  await done
  assert.equal(world.upstream.fetched, [{ start: 1_000_000, end: 2_000_000 }])
  assert.is(world.upstream.found[0]?.until, 2_000_000)
  assert.ok((await world.held())?.equals(blob))
  assert.equal(world.others.told, ['whole'])
})

test('who is to fetch all asks for all at once', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  world.others.begin = [all]
  await world.fill()
  assert.equal(world.upstream.fetched, [all])
  assert.ok((await world.held())?.equals(blob))
})

test('what others fetch instead is not brought by the sources to its end', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  const { done } = await world.fillUpTo(1_000_000)
  world.others.transfer.fetch(new RangeSet([{ start: 1_000_000, end: 1_500_000 }]))
  world.upstream.letGo()
  await world.until(() => world.transfer.have.covers({ start: 0, end: 1_500_000 }))
  world.others.transfer.fetch(new RangeSet())
  await world.others.give(1_500_000, blob.length)
  await done
  assert.equal(world.upstream.fetched, [all])
  assert.ok((await world.held())?.equals(blob))
})

test('who is told to stop in the middle stops, and goes on where it is told to', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  const { done } = await world.fillUpTo(1_000_000)
  world.others.transfer.fetch(new RangeSet())
  world.upstream.letGo()
  await world.others.give(1_000_000, 3_000_000)
  await world.until(() => world.transfer.have.total === 3_000_000)
  world.others.transfer.fetch(new RangeSet([{ start: 3_000_000, end: blob.length }]))
  await done
  assert.equal(world.upstream.fetched, [all, { start: 3_000_000, end: blob.length }])
})

test('a client has nothing of what others give before all is verified', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  const done = world.fill()
  await world.until(() => world.others.joined.length > 0)
  await world.others.give(0, 3_000_000)
  assert.is(await world.transfer.sized, blob.length)
  const reading = readAll(world.transfer.read(all), 1 << 20)
  let had = false
  void reading.then(() => (had = true))
  await new Promise(resolve => setTimeout(resolve, 30))
  assert.not.ok(had)
  await world.others.give(3_000_000, blob.length)
  assert.ok((await reading).equals(blob))
  await done
})

test('wrong bytes are thrown away, whoever led to them is told, and all begins anew', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  const done = world.fill()
  await world.until(() => world.others.joined.length > 0)
  await world.others.give(0, blob.length, Buffer.alloc(blob.length))
  await world.until(() => world.others.joined.length > 1)
  assert.is(blamed.length, 1)
  assert.equal(world.others.told, ['left'])
  await world.others.give(0, blob.length)
  await done
  assert.ok((await world.held())?.equals(blob))
})

test('when the sources have failed, others may still bring it', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  world.others.begin = [all]
  world.upstream.fails = true
  const done = world.fill()
  await world.until(() => world.others.told.length > 0)
  assert.equal(world.others.told, ['exhausted'])
  assert.not.ok(world.others.transfer.line())
  await world.others.give(0, blob.length)
  await done
  assert.ok((await world.held())?.equals(blob))
})

test('who hears nothing of others any more goes by itself, and fails if that fails', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  world.others.alive = false
  world.upstream.fails = true
  world.others.begin = [all]
  await world.fill()
  const { error } = await world.transfer.settled
  assert.is((error as NowhereError).code, 'NOWHERE')
  assert.equal(world.others.told, ['exhausted', 'left'])
})

test('who waits for others that are gone fetches all by itself', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  world.others.alive = false
  await world.fill()
  assert.equal(world.upstream.fetched, [all])
  assert.ok((await world.held())?.equals(blob))
})

test('who finds all that have it busy shares the download before upstream is asked', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  const { others, upstream } = world
  others.refuses = true
  const busy = new Holders(new SourceError('limited', 'all peers that have it are busy'))
  const find = busy.find.bind(busy)
  busy.find = () => {
    others.refuses = false
    return find()
  }
  const done = world.fill(busy)
  await world.until(() => others.joined.length > 0)
  await others.give(0, blob.length)
  await done
  assert.equal(upstream.found, [])
  assert.equal(others.told, ['whole'])
})

test('who finds none that can give it, and nobody to share with, asks upstream', async () => {
  await using world = await World.open()
  using _client = world.transfer.hold()
  world.others.refuses = true
  await world.fill(new Holders(new SourceError('limited', 'all peers that have it are busy')))
  assert.equal(world.upstream.fetched, [all])
})

test('of a shared download, upstream helps peers only where the LAN is slow', async () => {
  await using fast = await World.open()
  await using slow = await World.open()
  using clients = new DisposableStack()
  for (const { transfer, others } of [fast, slow]) {
    clients.use(transfer.hold())
    others.begin = [all]
  }
  void slow.fill(new Holders(at(500_000)))
  await fast.fill(new Holders(at(2_000_000)))
  assert.equal(fast.upstream.fetched, [])
  assert.ok((await fast.held())?.equals(blob))
  await slow.until(() => slow.upstream.fetched.length > 0)
})

test.run()
