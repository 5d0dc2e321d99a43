import { randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import type { ByteRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import { type Giver, type Offer, type RangeWriter, type Source, SourceError, type Want } from '@shoal/store/source'
import { Store } from '@shoal/store/store'
import type { Transfer } from '@shoal/store/transfer'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readAll } from '../../../test/read-all.ts'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Filling, type FillingOptions, type NowhereError } from './filling.ts'
import { Rates } from './rates.ts'

const megabyte = 1024 * 1024
const blob = randomBytes(megabyte)
const large = Buffer.alloc(12 * megabyte, randomBytes(1009))
const name = parseName('docker.io', 'busybox')
const wantOf = (content: Buffer): Want => ({ name, digest: digestOf(content), kind: 'blob', size: content.length })
const wrong = Buffer.alloc(large.length)

type Fetch = (range: ByteRange, into: RangeWriter, signal: AbortSignal) => Promise<void>

type Giving = {
  /** The byte at which it breaks off. */
  readonly until?: number
  /** In bytes/s. */
  readonly rate?: number
}

function giving(content: Buffer, { until = content.length, rate }: Giving = {}): Fetch {
  return async (range, into, signal) => {
    const piece = rate === undefined ? 50_000 : Math.ceil(rate / 50)
    for (let at = range.start; into.room > 0; ) {
      signal.throwIfAborted()
      const bytes = content.subarray(at, Math.min(at + piece, until, range.end))
      if (bytes.length === 0) throw new SourceError('broken', 'it ends early')
      at += bytes.length
      await into.write(bytes)
      if (rate !== undefined) await sleep(20)
    }
  }
}

/** Gives nothing until it is aborted. */
const stalling: Fetch = (_range, _into, signal) =>
  new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))

const offerOf = (origin: Offer['origin'], size: number, fetch: Fetch, giver?: Giver): Offer => ({
  origin,
  size,
  ...(giver && { giver }),
  ranges: () => new RangeSet([{ start: 0, end: size }]),
  onGrow: () => ({ [Symbol.dispose]: () => {} }),
  fetch,
  close: () => {},
})

class FakeUpstream implements Source {
  readonly label: string
  readonly found: Want[] = []
  readonly fetched: ByteRange[] = []
  readonly #size: number | null | SourceError
  readonly #fetch: Fetch

  constructor(label: string, size: number | null | SourceError, fetch: Fetch = stalling) {
    this.label = label
    this.#size = size
    this.#fetch = fetch
  }

  async find(want: Want, signal: AbortSignal): Promise<Offer | null> {
    signal.throwIfAborted()
    this.found.push(want)
    const size = this.#size
    if (size instanceof SourceError) throw size
    if (size === null) return null
    return offerOf({ kind: 'upstream', host: this.label, visibility: 'public' }, size, async (range, into, signal) => {
      this.fetched.push(range)
      await this.#fetch(range, into, signal)
    })
  }
}

const good = (content = blob, giving_: Giving = {}) => new FakeUpstream('hub', content.length, giving(content, giving_))
const down = () => new FakeUpstream('hub', new SourceError('unreachable', 'hub cannot be reached (ENETUNREACH)'))

class Peer implements Giver {
  readonly kind = 'peer'
  readonly label: string
  readonly size: number
  readonly give: Fetch
  readonly told: string[] = []
  readonly asked: ByteRange[] = []

  constructor(label: string, give: Fetch, size = blob.length) {
    this.label = label
    this.give = give
    this.size = size
  }

  wrong(reason: string): void {
    this.told.push(reason)
  }
}

/** Peers that give one after another, from the same byte on. */
class FakePeers implements Source {
  readonly label = 'peers'
  readonly kind = 'peer'
  readonly found: Want[] = []
  readonly #peers: readonly Peer[]

  constructor(...peers: readonly Peer[]) {
    this.#peers = peers
  }

  async find(want: Want): Promise<Offer | null> {
    this.found.push(want)
    const peers = this.#peers.filter(peer => !want.without?.has(peer))
    const [first] = peers
    if (!first) return null
    const origin = { kind: 'peer' as const, host: first.label, visibility: 'public' as const }
    const fetch: Fetch = async ({ start, end }, into, signal) => {
      let at = start
      while (into.room > 0) {
        const [peer] = peers
        if (!peer) throw new SourceError('broken', 'no peer has it any longer')
        const before = into.room
        into.from(peer, peer.size)
        peer.asked.push({ start: at, end })
        try {
          if (peer.size === first.size) await peer.give({ start: at, end }, into, signal)
        } catch (error) {
          if (!(error instanceof SourceError) || signal.aborted) throw error
        }
        at += before - into.room
        if (into.room > 0) peers.shift()
      }
    }
    return offerOf(origin, first.size, fetch, first)
  }
}

class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly store: Store
  readonly wrong: string[] = []
  readonly failed: string[] = []
  #running: Promise<void> = Promise.resolve()

  private constructor(disk: WatchedDisk, store: Store) {
    this.disk = disk
    this.store = store
  }

  static async open(): Promise<World> {
    const disk = await WatchedDisk.open()
    return new World(disk, await Store.open({ folder: disk.folder, disk, onWarning: () => {} }))
  }

  fill(sources: readonly Source[], content = blob, more: Partial<FillingOptions> = {}): Transfer {
    const want = wantOf(content)
    const transfer = this.store.begin(want.digest)
    const filling = new Filling({
      store: this.store,
      transfer,
      want,
      sources,
      random: () => 0,
      onWrong: source => this.wrong.push(source.label),
      onUnstored: () => {},
      onFailure: (source, error) => this.failed.push(`${source.label}: ${(error as SourceError).code}`),
      ...more,
    })
    this.#running = filling.run()
    return transfer
  }

  /** Resolves when it is known who was wrong. */
  async judged(): Promise<void> {
    await this.#running
    for (let i = 0; this.disk.openFiles > 0 && i < 10_000; i++) await turn()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running
    await this.store.close()
    for (let i = 0; this.disk.openFiles > 0 && i < 100; i++) await turn()
    const { openFiles, misused } = this.disk
    const left = await readdir(join(this.disk.folder, 'ingest'))
    await this.disk[Symbol.asyncDispose]()
    assert.is(openFiles, 0, 'all files are closed')
    assert.equal(misused, [])
    assert.equal(left, [])
  }
}

const stored = async (transfer: Transfer) => assert.equal(await transfer.settled, { stored: true })

test('what a peer gives is read when all of it is verified, and not before', async () => {
  await using world = await World.open()
  const release = Promise.withResolvers<void>()
  const peer = new Peer('ada', async (range, into, signal) => {
    if (range.start === 0) await into.write(blob.subarray(0, 900_000))
    await release.promise
    await giving(blob)({ start: 900_000, end: range.end }, into, signal)
  })
  const transfer = world.fill([new FakePeers(peer), good()])
  assert.is(await transfer.sized, blob.length)
  assert.equal(transfer.origin, { kind: 'peer', host: 'ada', visibility: 'public' })
  const reader = transfer.read({ start: 0, end: blob.length })
  const reading = reader.read(Buffer.alloc(10))
  let had = false
  void reading.then(() => (had = true))
  while (transfer.have.total < 3 * 256 * 1024) await turn()
  for (let i = 0; i < 50; i++) await turn()
  assert.not(had)
  release.resolve()
  assert.is(await reading, 10)
  assert.ok(transfer.size === undefined || world.store.sizeOf(transfer.digest) === blob.length)
  reader.close()
  await stored(transfer)
})

test('with no peer that has it, all is as without a swarm', async () => {
  await using world = await World.open()
  const hub = good()
  const peers = new FakePeers()
  await stored(world.fill([peers, hub, new FakePeers()]))
  assert.equal(hub.fetched, [{ start: 0, end: blob.length }])
  assert.is(peers.found.length, 1)
  assert.equal(world.failed, [])
})

test('when peers stop, upstream goes on from the same byte', async () => {
  await using world = await World.open()
  const hub = good()
  const transfer = world.fill([new FakePeers(new Peer('ada', giving(blob, { until: 400_000 }))), hub])
  assert.ok((await readAll(transfer.read({ start: 0, end: blob.length }))).equals(blob))
  assert.equal(hub.fetched, [{ start: 400_000, end: blob.length }])
  assert.is(hub.found[0]?.at, 400_000)
  assert.equal(world.wrong, [])
})

test('when upstream stops, peers go on from the same byte, as the last resort', async () => {
  await using world = await World.open()
  const hub = new FakeUpstream('hub', blob.length, async (range, into) => {
    if (range.start === 0) await into.write(blob.subarray(0, 300_000))
    throw new SourceError('denied', 'no more')
  })
  const ada = new Peer('ada', giving(blob))
  const transfer = world.fill([new FakePeers(), hub, new FakePeers(ada)])
  assert.ok((await readAll(transfer.read({ start: 0, end: blob.length }))).equals(blob))
  assert.equal(ada.asked, [{ start: 300_000, end: blob.length }])
})

test('the last upstream has the patience that it has without peers', async () => {
  await using world = await World.open()
  let asked = 0
  const hub = new FakeUpstream('hub', blob.length, async (range, into, signal) => {
    if (asked++ === 0) throw new SourceError('timeout', 'hub fell silent')
    await giving(blob)(range, into, signal)
  })
  const ada = new Peer('ada', giving(blob))
  await stored(world.fill([new FakePeers(), hub, new FakePeers(ada)]))
  assert.is(asked, 2)
  assert.equal(ada.asked, [])
})

test('if nobody has it, the error says so once of the peers', async () => {
  await using world = await World.open()
  const { error } = await world.fill([new FakePeers(), down(), new FakePeers()]).settled
  assert.is(error?.message, 'it is not held here; no peer has it; hub cannot be reached (ENETUNREACH)')
  assert.is((error as NowhereError).failures.length, 2)
})

test('why peers fail at the last is what the error says of them', async () => {
  await using world = await World.open()
  const ada = new Peer('ada', giving(blob, { until: 100 }))
  const { error } = await world.fill([new FakePeers(), down(), new FakePeers(ada)], blob).settled
  assert.is(error?.message, 'it is not held here; no peer has it any longer; hub cannot be reached (ENETUNREACH)')
  await stored(world.fill([good()]))
})

test('a peer that alone gave wrong bytes is told, and the blob comes from upstream unnoticed', async () => {
  await using world = await World.open()
  const eve = new Peer('eve', giving(wrong))
  const hub = good()
  const transfer = world.fill([new FakePeers(eve), hub])
  assert.ok((await readAll(transfer.read({ start: 0, end: blob.length }))).equals(blob))
  await stored(transfer)
  assert.equal(eve.told, [`gave other bytes than those of ${digestOf(blob)}`])
  assert.equal(hub.fetched, [{ start: 0, end: blob.length }])
})

test('of several peers only those are told who were wrong, once it is known', async () => {
  await using world = await World.open()
  const spoilt = Buffer.from(blob)
  spoilt[450_000]! ^= 1
  const [ada, eve, bob] = [
    new Peer('ada', giving(blob, { until: 400_000 })),
    new Peer('eve', giving(spoilt, { until: 500_000 })),
    new Peer('bob', giving(blob)),
  ]
  const hub = good()
  const transfer = world.fill([new FakePeers(ada, eve, bob), hub])
  assert.ok((await readAll(transfer.read({ start: 0, end: blob.length }))).equals(blob))
  await world.judged()
  assert.equal(
    [ada, eve, bob].map(({ told }) => told.length),
    [0, 1, 0],
  )
  assert.equal(hub.fetched, [{ start: 0, end: blob.length }])
  assert.equal(world.wrong, [])
})

test('of a peer and upstream only the peer is told; upstream gives it once more', async () => {
  await using world = await World.open()
  const eve = new Peer('eve', giving(wrong, { until: 400_000 }))
  const hub = good()
  await stored(world.fill([new FakePeers(eve), hub]))
  await world.judged()
  assert.is(eve.told.length, 1)
  assert.equal(world.wrong, [])
  assert.equal(
    hub.fetched.map(({ start }) => start),
    [400_000, 0],
  )
})

test('of an upstream and a peer only upstream is told', async () => {
  await using world = await World.open()
  const ada = new Peer('ada', giving(blob, { until: 400_000 }))
  await stored(world.fill([new FakePeers(ada), new FakeUpstream('gcr', blob.length, giving(wrong)), good()]))
  await world.judged()
  assert.equal(world.wrong.slice(0, 1), ['gcr'])
  assert.equal(ada.told, [])
})

test('without upstream, peers that took no part are asked instead', async () => {
  await using world = await World.open()
  const [ada, eve, bob] = [
    new Peer('ada', giving(blob, { until: 400_000 })),
    new Peer('eve', giving(wrong)),
    new Peer('bob', giving(blob)),
  ]
  await stored(world.fill([new FakePeers(ada, eve), down(), new FakePeers(ada, eve, bob)]))
  await world.judged()
  assert.equal(
    [ada, eve, bob].map(({ told }) => told.length),
    [0, 1, 0],
  )
  assert.equal(
    [ada, eve, bob].map(({ asked }) => asked.length),
    [1, 1, 1],
  )
})

test('the last resort turns to the next peer after a wrong one, as long as there is one', async () => {
  await using world = await World.open()
  const liars = ['eve', 'mallory'].map(label => new Peer(label, giving(wrong)))
  const bob = new Peer('bob', giving(blob))
  await stored(world.fill([new FakePeers(), down(), new FakePeers(...liars, bob)]))
  assert.equal(
    [...liars, bob].map(({ told }) => told.length),
    [1, 1, 0],
  )
})

test('if the blob is never had, of several nobody is told, and nothing is left behind', async () => {
  await using world = await World.open()
  const [ada, eve] = [new Peer('ada', giving(blob, { until: 400_000 })), new Peer('eve', giving(wrong))]
  const { stored } = await world.fill([new FakePeers(ada, eve), down(), new FakePeers(ada, eve)]).settled
  assert.not(stored)
  await world.judged()
  assert.equal([...ada.told, ...eve.told], [])
  assert.is(ada.asked.length, 1)
})

test('who told another size is told once the right one is known', async () => {
  for (const first of [true, false]) {
    await using world = await World.open()
    const [ada, eve] = [new Peer('ada', giving(blob, { until: 400_000 })), new Peer('eve', giving(blob), 7)]
    const { size: _, ...unsized } = wantOf(blob)
    const peers = first ? [eve] : [ada, eve]
    await stored(world.fill([new FakePeers(...peers), good()], blob, first ? {} : { want: unsized }))
    assert.equal(eve.told, [`said that ${digestOf(blob)} has 7 bytes, and it has ${blob.length}`])
    assert.equal(ada.told, [])
  }
})

test('a slow peer that upstream differs with about the size is not waited for', async () => {
  await using world = await World.open()
  const { size: _, ...unsized } = wantOf(blob)
  let given = 0
  const eve = new Peer(
    'eve',
    async (_range, into, signal) => {
      for (; into.room > 0; given += 2000) {
        signal.throwIfAborted()
        await into.write(large.subarray(0, 2000))
        await sleep(20)
      }
    },
    large.length,
  )
  await stored(world.fill([new FakePeers(eve), good()], blob, { want: unsized }))
  assert.ok(given < large.length / 2)
  assert.is(eve.told.length, 1)
})

test('who told another size is not told if the blob is never had', async () => {
  await using world = await World.open()
  const eve = new Peer('eve', giving(blob), 7)
  assert.not((await world.fill([new FakePeers(eve), down()]).settled).stored)
  assert.equal(eve.told, [])
})

test('after a peer that told another size than the manifest the next is asked, also without upstream', async () => {
  await using world = await World.open()
  const [eve, ada] = [new Peer('eve', giving(blob), blob.length + 1), new Peer('ada', giving(blob))]
  await stored(world.fill([new FakePeers(eve, ada), down()]))
  assert.equal(ada.asked, [{ start: 0, end: blob.length }])
  assert.equal(eve.told, [`said that ${digestOf(blob)} has ${blob.length + 1} bytes, and it has ${blob.length}`])
})

for (const [kind, size] of [
  ['manifest', 4 * megabyte + 1],
  ['blob', 2 ** 31 + 1],
] as const)
  test(`no peer is believed that a ${kind} of a size that nobody told has ${size} bytes`, async () => {
    await using world = await World.open()
    const { size: _, ...unsized } = wantOf(blob)
    const eve = new Peer('eve', giving(blob), size)
    await stored(world.fill([new FakePeers(eve), good()], blob, { want: { ...unsized, kind } }))
    assert.equal(eve.asked, [])
    assert.equal(eve.told, [`said that ${digestOf(blob)} has ${size} bytes, and it has ${blob.length}`])
  })

test('of what an earlier run left, what peers gave is not read early either', async () => {
  await using world = await World.open()
  const ada = new Peer('ada', giving(blob, { until: 600_000 }))
  assert.not((await world.fill([new FakePeers(ada)]).settled).stored)
  const release = Promise.withResolvers<void>()
  const hub = new FakeUpstream('hub', blob.length, async (range, into, signal) => {
    await release.promise
    await giving(blob)(range, into, signal)
  })
  const transfer = world.fill([hub])
  await transfer.sized
  let had = false
  const first = transfer.read({ start: 0, end: 10 })
  const reading = readAll(first).then(() => (had = true))
  const whole = readAll(transfer.read({ start: 0, end: blob.length }))
  for (let i = 0; i < 50; i++) await turn()
  assert.not(had)
  release.resolve()
  assert.ok((await whole).equals(blob))
  await reading
  assert.equal(hub.fetched, [{ start: 600_000, end: blob.length }])
})

test('what an earlier run left of a liar is nobody’s fault, and those who gave the rest are found innocent', async () => {
  await using world = await World.open()
  const eve = new Peer('eve', giving(wrong, { until: 600_000 }))
  assert.not((await world.fill([new FakePeers(eve)]).settled).stored)
  const ada = new Peer('ada', giving(blob))
  await stored(world.fill([new FakePeers(ada), good()]))
  await world.judged()
  assert.equal([...eve.told, ...ada.told, ...world.wrong], [])
})

const full = (world: World) => {
  world.disk.before = operation => {
    if (operation === 'write') throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
  }
}

test('on a full disk, a small blob of a peer passes through once it is verified', async () => {
  await using world = await World.open()
  full(world)
  for (const peer of [new Peer('ada', giving(blob)), new Peer('eve', giving(wrong))]) {
    const transfer = world.fill([new FakePeers(peer), good()])
    using interest = transfer.hold()
    await transfer.sized
    assert.ok((await readAll(transfer.read({ start: 0, end: blob.length }))).equals(blob))
    assert.equal(await transfer.settled, { stored: false })
    interest[Symbol.dispose]()
    assert.is(peer.told.length, peer.label === 'eve' ? 1 : 0)
  }
})

test('on a full disk, too, a manifest of a peer is one, of the type that it tells itself', async () => {
  await using world = await World.open()
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(blob), size: blob.length }
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, config, layers: [] }))
  world.disk.before = operation => {
    if (operation === 'write') throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
  }
  const ada = new Peer('ada', giving(manifest), manifest.length)
  const transfer = world.fill([new FakePeers(ada)], manifest, { want: { ...wantOf(manifest), kind: 'manifest' } })
  using _interest = transfer.hold()
  assert.equal(await transfer.settled, { stored: false })
  const held = await world.store.manifest(digestOf(manifest))
  assert.is(held?.manifest.mediaType, 'application/vnd.oci.image.manifest.v1+json')
})

test('on a full disk, a large blob comes from upstream alone', async () => {
  await using world = await World.open()
  full(world)
  const ada = new Peer('ada', giving(large), large.length)
  const hub = good(large)
  const transfer = world.fill([new FakePeers(ada), hub], large)
  using _interest = transfer.hold()
  await transfer.sized
  assert.ok((await readAll(transfer.read({ start: 0, end: large.length }))).equals(large))
  assert.equal(await transfer.settled, { stored: false })
  assert.equal(hub.fetched[0], { start: 0, end: large.length })
})

test('on a disk that becomes full in the middle, what readers wait behind is fetched again, from upstream', async () => {
  await using world = await World.open()
  let writes = 0
  world.disk.before = operation => {
    if (operation === 'write' && ++writes > 5) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
  }
  const ada = new Peer('ada', giving(large), large.length)
  const hub = good(large)
  const transfer = world.fill([new FakePeers(ada), hub], large)
  using _interest = transfer.hold()
  await transfer.sized
  assert.ok((await readAll(transfer.read({ start: 0, end: large.length }))).equals(large))
  assert.equal(hub.fetched[0], { start: 0, end: large.length })
  assert.equal(world.failed, ['peers: skipped'])
})

test('a reader far ahead has no request of its own at peers', async () => {
  await using world = await World.open()
  const ada = new Peer('ada', giving(large, { rate: 40e6 }), large.length)
  const transfer = world.fill([new FakePeers(ada), new FakeUpstream('hub', null)], large)
  await transfer.sized
  const [far, near] = [10 * megabyte, 0].map(start => readAll(transfer.read({ start, end: large.length })))
  assert.ok((await near)!.equals(large))
  assert.ok((await far)!.equals(large.subarray(10 * megabyte)))
  assert.is(ada.asked.length, 1)
})

/** Rates with an upstream that was measured. */
function measured(rate: number): Rates {
  const rates = new Rates()
  rates.begin('hub')(rate, 1000)
  return rates
}

test('peers that are as fast as upstream have the line spared', async () => {
  await using world = await World.open()
  const hub = good(large)
  const ada = new Peer('ada', giving(large, { rate: 16e6 }), large.length)
  await stored(world.fill([new FakePeers(ada), hub], large, { rates: measured(8e6) }))
  assert.equal(hub.found, [])
})

test('upstream helps peers that are slower, and each byte is fetched once', async () => {
  await using world = await World.open()
  const bytes = { given: 0 }
  const hub = new FakeUpstream('hub', large.length, async (range, into, signal) => {
    const room = into.room
    await giving(large, { rate: 40e6 })(range, into, signal)
    bytes.given += Math.min(room, range.end - range.start)
  })
  const ada = new Peer('ada', giving(large, { rate: 4e6 }), large.length)
  const rates = measured(40e6)
  const transfer = world.fill([new FakePeers(ada), hub], large, { rates })
  assert.ok((await readAll(transfer.read({ start: 0, end: large.length }))).equals(large))
  await stored(transfer)
  assert.ok(hub.found[0]!.at! > 0)
  assert.is(hub.fetched[0]!.start, hub.found[0]!.at, 'the answer that came with the offer is used')
  assert.ok(bytes.given > large.length / 2)
  assert.equal(ada.told, [])
  assert.is(rates.fromPeers, 0)
})

test('an upstream that was not measured helps peers that are slower than most lines', async () => {
  await using world = await World.open()
  const hub = good(large)
  const ada = new Peer('ada', giving(large, { rate: 4e6 }), large.length)
  await stored(world.fill([new FakePeers(ada), hub], large))
  assert.ok(hub.fetched.length > 0)
})

test('what peers have not given for a while, upstream gives in their place', async () => {
  await using world = await World.open()
  const ada = new Peer(
    'ada',
    async (range, into, signal) => {
      await into.write(large.subarray(range.start, range.start + megabyte))
      await stalling(range, into, signal)
    },
    large.length,
  )
  const hub = good(large)
  const transfer = world.fill([new FakePeers(ada), hub], large, { rates: measured(40e6) })
  assert.ok((await readAll(transfer.read({ start: 0, end: large.length }))).equals(large))
  assert.equal(ada.told, [])
})

test('an upstream that stands still while it helps is not waited for', async () => {
  await using world = await World.open()
  const hub = new FakeUpstream('hub', large.length)
  const ada = new Peer('ada', giving(large, { rate: 16e6 }), large.length)
  await stored(world.fill([new FakePeers(ada), hub], large, { rates: measured(40e6) }))
  assert.ok(hub.fetched.length > 0)
  assert.equal(ada.told, [])
})

test('an upstream that stood still while it helped peers is asked again if they are slow', async () => {
  await using world = await World.open()
  let answers = 0
  let wasLeft = false
  const hub = new FakeUpstream('hub', large.length, async (range, into, signal) => {
    if (answers++ > 0) return giving(large)(range, into, signal)
    await stalling(range, into, signal).finally(() => (wasLeft = true))
  })
  // What it takes over would take it a minute.
  const ada = new Peer(
    'ada',
    (range, into, signal) => giving(large, { rate: wasLeft ? 100_000 : 8e6 })(range, into, signal),
    large.length,
  )
  const transfer = world.fill([new FakePeers(ada), hub], large, { rates: measured(40e6) })
  assert.ok((await readAll(transfer.read({ start: 0, end: large.length }))).equals(large))
  assert.ok(answers > 1)
  assert.equal(ada.told, [])
})

test('an upstream whose answer does not come in time to help is asked if what peers gave is wrong', async () => {
  await using world = await World.open()
  const eve = new Peer('eve', giving(wrong, { rate: 16e6 }), large.length)
  let asked = 0
  const hub: Source = {
    label: 'hub',
    find: async (want, signal) => {
      if (asked++ === 0) return stalling({ start: 0, end: 1 }, undefined as never, signal).then(() => null)
      return good(large).find(want, signal)
    },
  }
  await stored(world.fill([new FakePeers(eve), hub], large, { rates: measured(40e6) }))
  assert.is(asked, 2)
  assert.is(eve.told.length, 1)
})

test('a reader of what peers and upstream give at once has proven bytes only', async () => {
  await using world = await World.open()
  const eve = new Peer('eve', giving(wrong, { rate: 4e6 }), large.length)
  const transfer = world.fill([new FakePeers(eve), good(large, { rate: 40e6 })], large, { rates: measured(40e6) })
  await transfer.sized
  const whole = readAll(transfer.read({ start: 0, end: large.length }))
  const far = readAll(transfer.read({ start: 8 * megabyte, end: large.length })).catch((error: unknown) => error)
  assert.ok((await whole).equals(large))
  const bytes = await far
  assert.ok(bytes instanceof SourceError || (bytes as Buffer).equals(large.subarray(8 * megabyte)))
  await world.judged()
  assert.is(eve.told.length, 1)
  assert.equal(world.wrong, [])
})

test('a pace holds all who give', async () => {
  await using world = await World.open()
  let taken = 0
  const pace = (bytes: number) => {
    taken += bytes
    return turn().then(() => {})
  }
  const ada = new Peer('ada', giving(blob, { until: 400_000 }))
  await stored(world.fill([new FakePeers(ada), good()], blob, { pace }))
  assert.is(taken, blob.length)
})

test.run()
