import { randomBytes } from 'node:crypto'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { formatReference, parseReference } from '@shoal/oci/reference'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readAll } from '../../../test/read-all.ts'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { type Copies, type Evicted, Eviction } from './eviction.ts'
import { SourceError } from './source.ts'
import { Store } from './store.ts'
import type { Transfer } from './transfer.ts'

const now = Date.UTC(2026, 0, 1)
const alone: Copies = { proved: () => 0, claimed: () => 0, keeps: () => true, prove: async () => {} }

type Image = { readonly manifest: Digest; readonly layers: readonly Digest[] }

/** A store of a certain size on a disk of a certain size. */
class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly evicted: string[] = []
  readonly refused: string[] = []
  readonly failures: unknown[] = []
  /** How often images were pulled. */
  readonly pulls = new Map<string, number>()
  readonly names = new Map<Digest, string>()
  readonly #readers: (() => void)[] = []
  copies = alone
  now = now
  free = 1e12
  minFree = 0
  store!: Store
  eviction!: Eviction
  readonly #maxBytes: number

  private constructor(disk: WatchedDisk, maxBytes: number) {
    this.disk = disk
    this.#maxBytes = maxBytes
    disk.space = async () => ({ total: 1e12, free: this.free - (await this.diskUsed()) })
  }

  static async open(maxBytes: number, settings: { free?: number; minFree?: number } = {}): Promise<World> {
    const world = new World(await WatchedDisk.open(), maxBytes)
    Object.assign(world, settings)
    await world.#start()
    return world
  }

  async #start(): Promise<void> {
    this.store = await Store.open({ folder: this.disk.folder, disk: this.disk, onWarning: () => {} })
    this.eviction = new Eviction({
      store: this.store,
      maxBytes: this.#maxBytes,
      minFree: this.minFree,
      demands: () =>
        [...this.pulls].map(([image, count]) => ({
          image: formatReference(parseReference(image)),
          own: count,
          office: count,
        })),
      copies: {
        proved: digest => this.copies.proved(digest),
        claimed: digest => this.copies.claimed(digest),
        keeps: digest => this.copies.keeps(digest),
        prove: async blobs => this.copies.prove(blobs),
      },
      now: () => this.now,
      random: () => 0.5,
      events: {
        evicted: ({ digest }) => this.evicted.push(this.names.get(digest) ?? digest),
        refused: (digest, why) => this.refused.push(`${this.names.get(digest)}: ${why}`),
        failed: error => this.failures.push(error),
      },
    })
  }

  async restart(): Promise<void> {
    await this.eviction[Symbol.asyncDispose]()
    await this.store.close()
    await this.#start()
  }

  /** Of all files there are, in bytes. */
  async diskUsed(): Promise<number> {
    let bytes = 0
    for (const folder of ['blobs/sha256', 'ingest', 'quarantine'])
      for (const name of await this.disk.list(`${this.disk.folder}/${folder}`))
        bytes += (await this.disk.sizeOf(`${this.disk.folder}/${folder}/${name}`)) ?? 0
    return bytes
  }

  blob(name: string, size: number): Buffer {
    const bytes = randomBytes(size)
    this.names.set(digestOf(bytes), name)
    return bytes
  }

  async begin(bytes: Buffer): Promise<Transfer> {
    const transfer = this.store.begin(digestOf(bytes))
    await transfer.begin(bytes.length)
    return transfer
  }

  /** Brings content into the store; @returns whether it was kept */
  async put(bytes: Buffer, contentType?: string): Promise<boolean> {
    if (this.store.sizeOf(digestOf(bytes)) !== undefined) return true
    const transfer = await this.begin(bytes)
    const lease = transfer.lease({ start: 0, end: bytes.length })
    await lease.write(bytes)
    await lease.close()
    return (await this.store.verify(transfer, contentType)).stored
  }

  /** Pulls an image as a client does, so many times. */
  async pull(reference: string, layers: readonly Buffer[], times = 1): Promise<Image> {
    const config = this.blob(`${reference} config`, 10)
    const describe = (bytes: Buffer) => ({ mediaType: 'application/x', digest: digestOf(bytes), size: bytes.length })
    const document = {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: describe(config),
      layers: layers.map(describe),
    }
    const manifest = Buffer.from(JSON.stringify(document))
    const digest = digestOf(manifest)
    this.names.set(digest, reference)
    const { name, tag = 'latest' } = parseReference(reference)
    const descriptor = { mediaType: mediaTypes.ociManifest, digest, size: manifest.length }
    this.store.refs.see(name, tag, { descriptor, at: now, from: 'hub', visibility: 'public' })
    await this.put(manifest, mediaTypes.ociManifest)
    this.pulls.set(reference, times)
    for (const bytes of [config, ...layers]) await this.put(bytes)
    await this.eviction.look()
    return { manifest: digest, layers: layers.map(bytes => digestOf(bytes)) }
  }

  async collect(dry: boolean): Promise<Evicted[]> {
    const blobs: Evicted[] = []
    await this.eviction.collect(dry, collected => {
      if ('blob' in collected) blobs.push(collected.blob)
    })
    return blobs
  }

  holds({ manifest, layers }: Image): boolean {
    return [manifest, ...layers].every(digest => this.store.sizeOf(digest) !== undefined)
  }

  /** No manifest is held without what it needs. */
  assertWhole(): void {
    for (const [digest] of this.store.blobs) {
      const manifest = this.store.index.manifest(digest)
      const parts = manifest ? [manifest.config!, ...manifest.layers] : []
      for (const part of parts)
        assert.ok(this.store.sizeOf(part.digest) !== undefined, `${this.names.get(digest)} is whole`)
    }
  }

  /** Has somebody read a blob until the end of the test. */
  async read(digest: Digest): Promise<() => Promise<Buffer>> {
    const held = await this.store.open(digest)
    assert.ok(held)
    const reader = held.read({ start: 0, end: held.size })
    this.#readers.push(() => held.close())
    return () => readAll(reader)
  }

  close(): void {
    for (const close of this.#readers.splice(0)) close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
    for (const transfer of this.store.transfers) await transfer.park(new SourceError('revoked', 'the test is over'))
    await this.eviction[Symbol.asyncDispose]()
    await this.store.close()
    await this.disk[Symbol.asyncDispose]()
    assert.equal(this.failures, [])
  }
}

test('what is pulled least goes, as a whole image, and the store stays under its size', async () => {
  await using world = await World.open(100_000)
  const often = await world.pull('often', [world.blob('often 1', 20_000), world.blob('often 2', 20_000)], 9)
  const seldom = await world.pull('seldom', [world.blob('seldom 1', 20_000), world.blob('seldom 2', 20_000)], 1)
  const fresh = await world.pull('new', [world.blob('new 1', 20_000), world.blob('new 2', 20_000)], 2)
  assert.ok(world.holds(often))
  assert.ok(world.holds(fresh))
  assert.not(world.holds(seldom))
  assert.is(world.store.sizeOf(seldom.manifest), undefined)
  assert.is(world.evicted[0], 'seldom', 'the manifest goes before what it needs')
  assert.ok((await world.diskUsed()) <= 100_000)
  world.assertWhole()
})

test('a layer that an image needs which stays is kept with it', async () => {
  await using world = await World.open(100_000)
  const base = world.blob('base', 40_000)
  const seldom = await world.pull('seldom', [base, world.blob('top of seldom', 20_000)], 1)
  const often = await world.pull('often', [base, world.blob('top of often', 20_000)], 5)
  const more = await world.pull('more', [world.blob('more', 30_000)], 3)
  assert.ok(world.holds(often) && world.holds(more))
  assert.is(world.store.sizeOf(seldom.layers[1]!), undefined)
  world.assertWhole()
})

test('what is worth less than all that would have to go for it is not kept, nor what it is of', async () => {
  await using world = await World.open(100_000)
  const often = await world.pull('often', [world.blob('often', 90_000)], 50)
  const once = await world.pull('once', [world.blob('once 1', 1000), world.blob('once 2', 60_000)], 0.01)
  assert.ok(world.holds(often))
  assert.equal(world.refused, ['once 2: worth'])
  assert.is(world.store.sizeOf(once.manifest), undefined, 'an image is useful only whole')
  world.assertWhole()
})

test('what is pinned stays; if nothing may go, what is pulled is not kept', async () => {
  await using world = await World.open(100_000)
  const pinned = await world.pull('pinned', [world.blob('pinned', 90_000)], 0.01)
  const { store } = world
  const descriptor = {
    mediaType: mediaTypes.ociManifest,
    digest: pinned.manifest,
    size: store.sizeOf(pinned.manifest)!,
  }
  await store.refs.pin({ reference: 'docker.io/library/pinned:latest', descriptor, at: now })
  await world.restart()
  await world.pull('often', [world.blob('often', 60_000)], 50)
  assert.equal(world.refused, ['often: stuck'])
  assert.ok(world.holds(pinned))
  await world.store.refs.unpin('docker.io/library/pinned:latest')
  const often = await world.pull('again', [world.blob('again', 60_000)], 50)
  assert.ok(world.holds(often))
  assert.not(world.holds(pinned))
})

test('what is being read stays until it has been', async () => {
  await using world = await World.open(100_000)
  const seldom = await world.pull('seldom', [world.blob('seldom', 60_000)], 1)
  const reading = await world.read(seldom.layers[0]!)
  const often = await world.pull('often', [world.blob('often', 60_000)], 50)
  assert.equal(world.refused, ['often: stuck'])
  assert.ok(world.holds(seldom))
  assert.is((await reading()).length, 60_000)
  world.close()
  assert.not(world.holds(often))
  const again = await world.pull('again', [world.blob('again', 60_000)], 50)
  assert.ok(world.holds(again))
  assert.not(world.holds(seldom))
})

test('an image of which something arrives stays', async () => {
  await using world = await World.open(100_000)
  const [first, second] = [world.blob('first', 40_000), world.blob('second', 30_000)]
  const transfer = await world.begin(second)
  const image = await world.pull('image', [first], 1)
  const both = await world.pull('both', [first], 1)
  const lease = transfer.lease({ start: 0, end: second.length })
  await lease.write(second)
  await lease.close()
  assert.ok((await world.store.verify(transfer)).stored)
  assert.ok(world.holds(image) && world.holds(both))
})

test('what is larger than the whole store passes through', async () => {
  await using world = await World.open(100_000)
  const small = await world.pull('small', [world.blob('small', 50_000)], 0.1)
  const large = world.blob('large', 100_001)
  const transfer = world.store.begin(digestOf(large))
  const error: unknown = await transfer.begin(large.length).catch((error: unknown) => error)
  assert.match(String(error), 'store.max_size')
  assert.ok(world.holds(small))
})

test('what transfers have left goes before anything that is held', async () => {
  await using world = await World.open(100_000)
  const part = await world.begin(world.blob('part', 50_000))
  const lease = part.lease({ start: 0, end: 50_000 })
  await lease.write(randomBytes(40_000))
  await lease.close()
  await part.park(new SourceError('revoked', 'nobody wants it'))
  const first = await world.pull('first', [world.blob('first', 40_000)])
  const second = await world.pull('second', [world.blob('second', 40_000)])
  assert.ok(world.holds(first) && world.holds(second))
  assert.equal([...world.store.parked], [])
  assert.ok((await world.diskUsed()) <= 100_000)
})

test('when something else fills the disk, room is made; what there is no room for passes through', async () => {
  await using world = await World.open(1e9, { free: 1_000_000_000, minFree: 100_000 })
  const often = await world.pull('often', [world.blob('often', 60_000)], 9)
  const seldom = await world.pull('seldom', [world.blob('seldom', 60_000)], 1)
  world.free = 200_000
  await world.eviction.look()
  assert.not(world.holds(seldom))
  assert.not(world.holds(often), 'the margin is made free, too')
  world.free = 1_000_000_000
  const again = await world.pull('again', [world.blob('again', 60_000)], 1)
  world.free = 120_000
  const transfer = world.store.begin(digestOf(world.blob('more', 1)))
  assert.match(String(await transfer.begin(60_000).catch((error: unknown) => error)), 'store.min_free')
  world.free = 220_000
  const small = await world.begin(world.blob('small', 20_000))
  assert.ok(small.stores, 'what passes through takes up no room')
  assert.ok(world.holds(again), 'nothing goes for what is worth less')
})

test('of several who hold something, it goes from those who are not to keep it', async () => {
  for (const keeps of [true, false]) {
    await using world = await World.open(100_000)
    const shared = await world.pull('shared', [world.blob('shared', 50_000)], 3)
    const held = new Set([shared.manifest, ...shared.layers])
    world.copies = { ...alone, proved: digest => (held.has(digest) ? 5 : 0), keeps: () => keeps }
    const own = await world.pull('own', [world.blob('own', 40_000)], 2)
    const fresh = await world.pull('new', [world.blob('new', 40_000)], 2.5)
    assert.is(world.holds(shared), keeps)
    assert.is(world.holds(own), !keeps)
    assert.ok(world.holds(fresh))
  }
})

test('before it is needed, others are asked to prove that they hold what might go because of them', async () => {
  await using world = await World.open(100_000)
  const image = await world.pull('image', [world.blob('image', 95_000)], 1)
  const proved: Digest[] = []
  world.copies = {
    ...alone,
    claimed: () => 3,
    keeps: () => false,
    prove: async blobs => void proved.push(...blobs.map(({ digest }) => digest)),
  }
  await world.restart()
  await world.eviction.look()
  assert.ok(proved.includes(image.layers[0]!))
})

test('a dry run tells what would go, and why, and removes nothing', async () => {
  await using world = await World.open(100_000)
  const often = await world.pull('often', [world.blob('often', 48_000)], 9)
  const seldom = await world.pull('seldom', [world.blob('seldom', 50_500)], 1)
  const blobs = await world.collect(true)
  assert.equal(world.evicted, [])
  assert.ok(world.holds(often) && world.holds(seldom))
  assert.equal(blobs.map(({ digest, because, images }) => [world.names.get(digest), because, images]).slice(0, 2), [
    ['seldom', 'least', ['docker.io/library/seldom:latest']],
    ['seldom config', 'alone', ['docker.io/library/seldom:latest']],
  ])
  const done = await world.collect(false)
  assert.equal(
    done.map(({ digest }) => digest),
    blobs.map(({ digest }) => digest),
  )
  assert.not(world.holds(seldom))
})

test('what no image needs is collected once it has been there for a while', async () => {
  await using world = await World.open(1_000_000)
  await world.put(world.blob('loose', 1000))
  assert.equal(await world.collect(false), [])
  world.now += 2 * 3_600_000
  assert.is((await world.collect(false)).length, 1)
  assert.equal(world.evicted, ['loose'])
})

test('an image is removed with what only it needs', async () => {
  await using world = await World.open(1_000_000)
  const base = world.blob('base', 1000)
  const one = await world.pull('one', [base, world.blob('one', 1000)])
  const two = await world.pull('two', [base, world.blob('two', 1000)])
  await world.eviction.remove(one.manifest)
  assert.equal(world.evicted, ['one', 'one', 'one config'])
  assert.ok(world.holds(two))
})

test('what a tag was is known after its image has gone, also after a restart', async () => {
  await using world = await World.open(1_000_000)
  const image = await world.pull('gone', [world.blob('gone', 1000)])
  await world.eviction.remove(image.manifest)
  const { name } = parseReference('gone')
  for (const again of [false, true]) {
    if (again) await world.restart()
    assert.is(world.store.refs.held(name, 'latest'), undefined)
    assert.is(world.store.refs.seen(name, 'latest')?.descriptor.digest, image.manifest)
  }
  world.store.refs.remove(name, 'latest')
  await world.restart()
  assert.is(world.store.refs.seen(name, 'latest'), undefined, 'the registry has said that there is no such tag')
})

test('what peers want that nobody here has pulled is kept for them', async () => {
  await using world = await World.open(100_000)
  await world.pull('seldom', [world.blob('seldom', 60_000)], 0.5)
  const errand = world.blob('errand', 50_000)
  world.eviction.wanted(digestOf(errand))
  assert.ok(await world.put(errand))
})

test('what is not used goes first of what is worth nothing', async () => {
  await using world = await World.open(100_000)
  const [old, used] = [world.blob('old', 40_000), world.blob('used', 40_000)]
  await world.put(old)
  await world.put(used)
  await world.restart()
  await world.collect(true)
  world.now += 24 * 3_600_000
  world.eviction.used(digestOf(used))
  await world.pull('new', [world.blob('new', 40_000)])
  assert.equal(world.evicted, ['old'])
})

test('a collection removes no more than the disk lacks', async () => {
  await using world = await World.open(1e9, { free: 1_000_000_000, minFree: 100_000 })
  for (const name of ['one', 'two', 'three']) await world.pull(name, [world.blob(name, 60_000)])
  world.free = (await world.diskUsed()) + 99_990
  for (const dry of [true, false]) {
    const bytes = (await world.collect(dry)).reduce((sum, { size }) => sum + size, 0)
    assert.ok(bytes > 0 && bytes < 120_000, `${bytes} bytes`)
  }
})

test('what cannot be removed is held on, and no pull fails for it', async () => {
  await using world = await World.open(100_000)
  const seldom = await world.pull('seldom', [world.blob('seldom', 60_000)], 1)
  world.disk.before = (operation, path) => {
    if (operation === 'remove' && path.includes('blobs')) throw new Error('EPERM')
  }
  const often = world.blob('often', 60_000)
  assert.not(await world.put(often))
  assert.ok(world.holds(seldom))
  world.disk.before = () => {}
  assert.is(world.store.held.bytes, await world.diskUsed())
})

test.run()
