import { randomBytes } from 'node:crypto'
import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readAll } from '../../../test/read-all.ts'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { SourceError } from './source.ts'
import { Store, StoreError } from './store.ts'

const blob = randomBytes(200_000)
const digest = digestOf(blob)
const layer = digestOf(Buffer.from('layer'))
const manifest = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: 'application/x', digest, size: blob.length },
    layers: [{ mediaType: 'application/x', digest: layer, size: 12_345 }],
  }),
)
const name = parseName('docker.io', 'busybox')

/** A data folder that stores are opened in, one after another. */
class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly warnings: string[] = []
  store!: Store

  private constructor(disk: WatchedDisk) {
    this.disk = disk
  }

  static async open(): Promise<World> {
    const world = new World(await WatchedDisk.open())
    world.store = await world.openStore()
    return world
  }

  openStore(): Promise<Store> {
    return Store.open({
      folder: this.disk.folder,
      disk: this.disk,
      onWarning: message => this.warnings.push(message),
    })
  }

  async reopen(meanwhile: () => Promise<void> = async () => {}): Promise<void> {
    await this.store.close()
    await meanwhile()
    this.store = await this.openStore()
  }

  path(digest: Digest): string {
    return join(this.disk.folder, 'blobs', ...digest.split(':'))
  }

  /** Brings content into the store. */
  async put(bytes: Buffer, contentType?: string): Promise<Digest> {
    const digest = digestOf(bytes)
    const transfer = this.store.begin(digest)
    await transfer.begin(bytes.length)
    if (bytes.length > 0) {
      const lease = transfer.lease({ start: 0, end: bytes.length })
      await lease.write(bytes)
      await lease.close()
    }
    assert.ok((await this.store.verify(transfer, contentType)).matches)
    return digest
  }

  async get(digest: Digest): Promise<Buffer | undefined> {
    const held = await this.store.open(digest)
    if (!held) return undefined
    const reader = held.read({ start: 0, end: held.size })
    held.close()
    return readAll(reader)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close()
    for (let i = 0; this.disk.openFiles > 0 && i < 100; i++) await new Promise(resolve => setImmediate(resolve))
    const { openFiles, misused } = this.disk
    await this.disk[Symbol.asyncDispose]()
    assert.is(openFiles, 0, 'all files are closed')
    assert.equal(misused, [])
  }
}

test('what was stored is there, also after it is opened again', async () => {
  await using world = await World.open()
  await world.put(blob)
  await world.put(manifest, mediaTypes.ociManifest)
  await world.put(Buffer.alloc(0))
  for (const again of [false, true]) {
    if (again) await world.reopen()
    assert.ok((await world.get(digest))?.equals(blob))
    assert.equal(world.store.held, { blobs: 3, bytes: blob.length + manifest.length })
    assert.is((await world.store.manifest(digestOf(manifest)))?.manifest.mediaType, mediaTypes.ociManifest)
    assert.is(world.store.expectedSizeOf(layer), 12_345)
    assert.is(world.store.sizeOf(layer), undefined)
  }
  assert.is(await world.store.manifest(digest), undefined)
  assert.equal(world.warnings, [])
})

test('a second store cannot open the folder', async () => {
  await using world = await World.open()
  const error = await world.openStore().catch((error: unknown) => error)
  assert.is(error instanceof StoreError && error.code, 'LOCKED')
})

test('an open that fails leaves the folder free', async () => {
  await using world = await World.open()
  await world.store.close()
  world.disk.before = operation => {
    if (operation === 'list') throw new Error('input/output error')
  }
  const error = await world.openStore().catch((error: unknown) => error)
  assert.is(error instanceof StoreError && error.code, 'UNUSABLE')
  assert.match(String(error), 'input/output error')
  world.disk.before = () => {}
  world.store = await world.openStore()
})

test('a blob whose file was cut short is dropped, and can be stored again', async () => {
  await using world = await World.open()
  await world.put(blob)
  await truncate(world.path(digest), 1000)
  assert.equal(await Promise.all([world.get(digest), world.get(digest)]), [undefined, undefined])
  assert.is(world.warnings.length, 1)
  assert.is(await world.disk.sizeOf(world.path(digest)), undefined)
  assert.equal(world.store.held, { blobs: 0, bytes: 0 })
  await world.put(blob)
  assert.ok((await world.get(digest))?.equals(blob))
})

test('a blob whose file is gone is dropped', async () => {
  await using world = await World.open()
  await world.put(blob)
  await world.disk.remove(world.path(digest))
  assert.is(await world.get(digest), undefined)
  assert.equal(world.store.held, { blobs: 0, bytes: 0 })
  await world.reopen()
  assert.equal(world.store.held, { blobs: 0, bytes: 0 })
})

test('a disk that fails for a moment loses no blob', async () => {
  await using world = await World.open()
  await world.put(blob)
  for (const failing of ['open', 'size']) {
    world.disk.before = operation => {
      if (operation === failing) throw Object.assign(new Error('too many open files'), { code: 'EMFILE' })
    }
    assert.match(String(await world.get(digest).catch((error: unknown) => error)), 'too many open files')
  }
  world.disk.before = () => {}
  assert.ok((await world.get(digest))?.equals(blob))
})

test('blobs that others put there or took away while it was closed are found and missed', async () => {
  await using world = await World.open()
  await world.put(blob)
  await world.reopen(async () => {
    await world.disk.remove(world.path(digest))
    await writeFile(world.path(digestOf(manifest)), manifest)
  })
  assert.is(world.store.sizeOf(digest), undefined)
  assert.is((await world.store.manifest(digestOf(manifest)))?.manifest.layers.length, 1)
  assert.is(world.store.expectedSizeOf(layer), 12_345)
})

test('an index that cannot be read is made anew', async () => {
  await using world = await World.open()
  await world.put(blob)
  await world.put(manifest, mediaTypes.ociManifest)
  await world.reopen(async () => {
    for (const file of await world.disk.list(join(world.disk.folder, 'index')))
      await writeFile(join(world.disk.folder, 'index', file), 'torn')
  })
  assert.is(world.warnings.length, 1)
  assert.is(world.store.held.blobs, 2)
  assert.is(world.store.expectedSizeOf(layer), 12_345)
})

test('what a killed daemon left in ingest/ is removed, save for parts that can be gone on with', async () => {
  await using world = await World.open()
  const ingest = join(world.disk.folder, 'ingest')
  await world.reopen(async () => {
    for (const file of ['a.part', 'a.json', 'b.part', 'c.json', 'd.json.new']) await writeFile(join(ingest, file), '{}')
  })
  assert.equal((await world.disk.list(ingest)).sort(), ['a.json', 'a.part'])
})

test('a transfer that was parked is gone on with after it is opened again', async () => {
  await using world = await World.open()
  const first = world.store.begin(digest)
  await first.begin(blob.length)
  const lease = first.lease({ start: 0, end: 150_000 })
  await lease.write(blob.subarray(0, 150_000))
  await first.park(new SourceError('revoked', 'shoal is stopping'))
  await first.settled
  assert.is(world.store.transfer(digest), undefined)
  await world.reopen()
  const second = world.store.begin(digest)
  await second.begin(blob.length)
  assert.equal(second.have.toJSON(), [[0, 150_000]])
  const rest = second.lease({ start: 150_000, end: blob.length })
  await rest.write(blob.subarray(150_000))
  await rest.close()
  assert.equal(await world.store.verify(second), { matches: true, stored: true, resumed: false })
  assert.ok((await world.get(digest))?.equals(blob))
})

test('a tag holds once its manifest is stored', async () => {
  await using world = await World.open()
  const descriptor = { mediaType: mediaTypes.ociManifest, digest: digestOf(manifest), size: manifest.length }
  world.store.refs.see(name, 'latest', { descriptor, at: 5, from: 'hub', visibility: 'public' })
  assert.is(world.store.refs.held(name, 'latest'), undefined)
  await world.put(manifest, mediaTypes.ociManifest)
  assert.ok(world.store.refs.held(name, 'latest'))
  await world.reopen()
  assert.ok(world.store.refs.held(name, 'latest'))
})

test('a manifest is read from the disk once, and those in memory stay within their bound', async () => {
  await using world = await World.open()
  const large = Array.from({ length: 10 }, (_, i) =>
    Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [], padding: `${i}`.repeat(4_000_000) })),
  )
  for (const bytes of large) await writeFile(world.path(digestOf(bytes)), bytes)
  await world.reopen()
  let opened = 0
  world.disk.before = operation => {
    if (operation === 'open') opened++
  }
  const manifestOf = async (i: number) => assert.ok(await world.store.manifest(digestOf(large[i]!)))
  for (let i = 0; i < 10; i++) await manifestOf(i)
  assert.is(opened, 10)
  // 32 MiB are eight of these. The last ones are there, the first is not.
  for (let i = 9; i > 1; i--) await manifestOf(i)
  assert.is(opened, 10)
  await manifestOf(0)
  assert.is(opened, 11)
  // To make room, the one that was asked for least lately went.
  await manifestOf(2)
  assert.is(opened, 11)
  await manifestOf(9)
  assert.is(opened, 12)
})

test('a reader of a held blob goes on when the blob is closed, until it is cancelled', async () => {
  await using world = await World.open()
  await world.put(blob)
  const held = await world.store.open(digest)
  assert.ok(held)
  const [one, two] = [held!.read({ start: 0, end: 10 }), held!.read({ start: 100_000, end: blob.length })]
  held!.close()
  assert.ok((await readAll(two)).equals(blob.subarray(100_000)))
  one.cancel()
  assert.instance(await one.read(Buffer.alloc(10)).catch((error: unknown) => error), Error)
  one.close()
})

test('a failing write to the index is no stored blob', async () => {
  await using world = await World.open()
  const transfer = world.store.begin(digest)
  await transfer.begin(blob.length)
  const lease = transfer.lease({ start: 0, end: blob.length })
  await lease.write(blob)
  await lease.close()
  world.disk.before = operation => {
    if (operation === 'rename') throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
  }
  assert.match(String(await world.store.verify(transfer).catch((error: unknown) => error)), 'no space left')
  world.disk.before = () => {}
  await transfer.park(new Error('no space left on device'))
  assert.is(world.store.sizeOf(digest), undefined)
})

test('a manifest that there was no room for is stored when it is asked for again, and there is', async () => {
  await using world = await World.open()
  let room = false
  world.store.keepRoom({ make: async () => {}, admits: async () => room })
  const transfer = world.store.begin(digestOf(manifest))
  await transfer.begin(manifest.length)
  const lease = transfer.lease({ start: 0, end: manifest.length })
  await lease.write(manifest)
  await lease.close()
  assert.not((await world.store.verify(transfer, mediaTypes.ociManifest)).stored)
  assert.equal(world.store.held, { blobs: 0, bytes: 0 })
  room = true
  const stored = new Promise<void>(resolve => world.store.onChange(() => resolve()))
  assert.ok(world.store.hotManifest(digestOf(manifest))?.bytes.equals(manifest))
  await stored
  assert.ok((await world.get(digestOf(manifest)))?.equals(manifest))
})

test.run()
