import { join } from 'node:path'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Refs, type Sighting } from './refs.ts'

const name = parseName('docker.io', 'busybox')
const digest = (text: string) => digestOf(Buffer.from(text))

const sighting = (text: string, at = 1_700_000_000_123): Sighting => ({
  descriptor: { mediaType: mediaTypes.ociIndex, digest: digest(text), size: 100 },
  at,
  from: 'mirror.gcr.io',
  visibility: 'public',
})

/** Refs of a store that holds what `held` names. */
class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly held = new Set<Digest>()
  readonly errors: string[] = []
  readonly removed: string[] = []
  writes = 0

  private constructor(disk: WatchedDisk) {
    this.disk = disk
    disk.before = operation => {
      if (operation === 'replaceFile') this.writes++
    }
  }

  static async open(...held: string[]): Promise<World> {
    const world = new World(await WatchedDisk.open())
    for (const text of held) world.held.add(digest(text))
    return world
  }

  get path(): string {
    return join(this.disk.folder, 'index.json')
  }

  refs(): Promise<Refs> {
    return Refs.open({
      path: this.path,
      disk: this.disk,
      holds: digest => this.held.has(digest),
      onError: error => this.errors.push(error.message),
      onRemoved: reference => this.removed.push(reference),
    })
  }

  async document(): Promise<{ manifests: Record<string, unknown>[] }> {
    return JSON.parse((await this.disk.readFile(this.path)).toString())
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.disk[Symbol.asyncDispose]()
  }
}

test('a new store gets an empty index.json at once', async () => {
  await using world = await World.open()
  await world.refs()
  assert.equal(await world.document(), { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] })
})

test('a tag whose manifest is held is there after a restart', async () => {
  await using world = await World.open('a')
  const refs = await world.refs()
  refs.see(name, '1.36', sighting('a'))
  await refs.flush()
  const again = await world.refs()
  assert.equal(again.held(name, '1.36'), sighting('a'))
  assert.equal(again.seen(name, '1.36'), sighting('a'))
  assert.equal(again.list(), [{ name, tag: '1.36', sighting: sighting('a') }])
})

test('any sighting survives the way through index.json', async () => {
  await using world = await World.open('a', 'b')
  const tag = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/)
  const plain = { noNullPrototype: true }
  const any = fc.record(
    {
      descriptor: fc.record(
        {
          mediaType: fc.constantFrom(...Object.values(mediaTypes)),
          digest: fc.constantFrom(digest('a'), digest('b')),
          size: fc.nat(),
        },
        plain,
      ),
      at: fc.integer({ min: 0, max: 4e12 }),
      from: fc.string({ unit: 'binary' }),
      visibility: fc.constantFrom('public' as const, 'private' as const),
    },
    plain,
  )
  await fc.assert(
    fc.asyncProperty(fc.dictionary(tag, any, { maxKeys: 4 }), async tags => {
      await world.disk.remove(world.path)
      const refs = await world.refs()
      for (const [tag, sighting] of Object.entries(tags)) refs.see(name, tag, sighting)
      await refs.flush()
      const again = await world.refs()
      for (const [tag, sighting] of Object.entries(tags)) assert.equal(again.held(name, tag), sighting)
      assert.is(again.list().length, Object.keys(tags).length)
    }),
    { numRuns: 20 },
  )
})

test('a tag whose manifest is not held is remembered, but not written until it is', async () => {
  await using world = await World.open('old')
  const refs = await world.refs()
  refs.see(name, 'latest', sighting('old'))
  refs.see(name, 'latest', sighting('new'))
  assert.is(refs.seen(name, 'latest')?.descriptor.digest, digest('new'))
  assert.is(refs.held(name, 'latest')?.descriptor.digest, digest('old'))
  await refs.flush()
  assert.is((await world.document()).manifests[0]?.['digest'], digest('old'))
  world.held.add(digest('new'))
  refs.stored(digest('new'))
  await refs.flush()
  assert.is((await world.document()).manifests[0]?.['digest'], digest('new'))
})

test('a tag whose manifest has been lost is not held after a restart', async () => {
  await using world = await World.open('a')
  const refs = await world.refs()
  refs.see(name, 'latest', sighting('a'))
  await refs.flush()
  world.held.clear()
  assert.is((await world.refs()).held(name, 'latest'), undefined)
})

test('entries of other tools are kept as they are', async () => {
  await using world = await World.open('a')
  const foreign = [
    {
      mediaType: mediaTypes.ociManifest,
      digest: digest('x'),
      size: 3,
      annotations: { 'com.example': 'y' },
      extra: [1],
    },
    { mediaType: mediaTypes.ociManifest, digest: digest('x'), size: 3 },
    { digest: 'md5:1', annotations: { 'org.opencontainers.image.ref.name': 'latest' } },
    'nonsense',
    null,
  ]
  await world.disk.replaceFile(world.path, JSON.stringify({ schemaVersion: 2, manifests: foreign }))
  const refs = await world.refs()
  refs.see(name, 'latest', sighting('a'))
  await refs.flush()
  const { manifests } = await world.document()
  assert.is(manifests.length, foreign.length + 1)
  assert.equal(manifests.slice(1), foreign)
  assert.is((await world.refs()).list().length, 1)
})

test('a removed tag is gone, and stays so', async () => {
  await using world = await World.open('a')
  const refs = await world.refs()
  refs.see(name, 'latest', sighting('a'))
  refs.remove(name, 'latest')
  assert.is(refs.seen(name, 'latest'), undefined)
  await refs.flush()
  assert.equal((await world.document()).manifests, [])
})

test('many changes are one write, and no change is none', async () => {
  await using world = await World.open('a')
  const refs = await world.refs()
  world.writes = 0
  for (let i = 0; i < 100; i++) refs.see(name, `t${i}`, sighting('a'))
  await Promise.all([refs.flush(), refs.flush()])
  assert.is(world.writes, 1)
  refs.see(name, 't1', sighting('a'))
  await refs.flush()
  assert.is(world.writes, 1)
})

test('a change is written by itself after a while', async () => {
  await using world = await World.open('a')
  const refs = await world.refs()
  const written = new Promise<void>(resolve => {
    world.disk.before = () => resolve()
  })
  refs.see(name, 'latest', sighting('a'))
  await written
  await refs.flush()
  assert.is((await world.document()).manifests.length, 1)
})

test('an index.json that cannot be read is set aside, and told of', async () => {
  for (const text of ['', '{', 'null', '[]', '{"manifests": 5}']) {
    await using world = await World.open()
    await world.disk.replaceFile(world.path, text)
    await world.refs()
    assert.is(world.errors.length, 1)
    assert.is((await world.disk.readFile(`${world.path}.unreadable`)).toString(), text)
    assert.equal((await world.document()).manifests, [])
  }
})

test('a write that fails is told of, and made up for at the next flush', async () => {
  await using world = await World.open('a')
  const refs = await world.refs()
  refs.see(name, 'latest', sighting('a'))
  world.disk.before = () => Promise.reject(new Error('no space left on device'))
  await refs.flush()
  assert.equal(world.errors, ['no space left on device'])
  world.disk.before = () => {}
  await refs.flush()
  assert.is((await world.document()).manifests.length, 1)
})

test('what is found public makes public the tags of that name that were seen to be it', async () => {
  await using world = await World.open('a')
  const refs = await world.refs()
  const other = parseName('docker.io', 'busybox2')
  const secret = { ...sighting('a'), visibility: 'private' } as const
  refs.see(name, '1', secret)
  refs.see(other, '1', secret)
  refs.see(name, '2', { ...sighting('b'), visibility: 'private' })
  assert.not(refs.isPublic(name))
  refs.published(name, digest('a'))
  assert.is(refs.seen(name, '1')?.visibility, 'public')
  assert.is(refs.held(name, '1')?.visibility, 'public')
  assert.is(refs.seen(name, '2')?.visibility, 'private')
  assert.is(refs.seen(other, '1')?.visibility, 'private')
  assert.equal([refs.isPublic(name), refs.isPublic(other)], [true, false])
  await refs.flush()
  const reopened = await world.refs()
  assert.is(reopened.held(name, '1')?.visibility, 'public')
  assert.equal([reopened.isPublic(name), reopened.isPublic(other)], [true, false])
})

test('what is pinned is kept, also after a restart and when its tag is another image, until it is unpinned', async () => {
  await using world = await World.open('old', 'new')
  const refs = await world.refs()
  const reference = 'docker.io/library/busybox:latest'
  refs.see(name, 'latest', sighting('old'))
  await refs.pin({ reference, descriptor: sighting('old').descriptor, at: 1_700_000_000_123 })
  refs.see(name, 'latest', sighting('new', 1_800_000_000_000))
  await refs.flush()
  const again = await world.refs()
  assert.equal(again.pins, refs.pins)
  assert.equal([...again.kept], [digest('old')])
  assert.is(again.held(name, 'latest')?.descriptor.digest, digest('new'))
  assert.ok(await again.unpin(reference))
  assert.not(await again.unpin(reference))
  assert.is(again.kept.size, 0)
  assert.equal((await world.refs()).pins, [])
})

test('what others have written an entry for is kept', async () => {
  await using world = await World.open()
  const entry = { mediaType: mediaTypes.ociIndex, digest: digest('theirs'), size: 100 }
  await world.disk.replaceFile(world.path, JSON.stringify({ schemaVersion: 2, manifests: [entry, { odd: true }] }))
  assert.equal([...(await world.refs()).kept], [digest('theirs')])
})

test('a pin that cannot be written is told of', async () => {
  await using world = await World.open('old')
  const refs = await world.refs()
  world.disk.before = operation => {
    if (operation === 'replaceFile') throw new Error('ENOSPC')
  }
  const pinning = refs.pin({ reference: 'busybox', descriptor: sighting('old').descriptor, at: 0 })
  assert.match(String(await pinning.catch((error: unknown) => error)), 'ENOSPC')
  world.disk.before = () => {}
  await refs.flush()
})

test.run()
