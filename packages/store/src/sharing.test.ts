import { setImmediate } from 'node:timers/promises'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { type Name, parseName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { SharedBlobs } from './sharing.ts'
import { Store } from './store.ts'

const layer = Buffer.from('layer')
const config = Buffer.from('{}')
const descriptor = (bytes: Buffer, mediaType = 'application/x') => {
  return { mediaType, digest: digestOf(bytes), size: bytes.length }
}
const image = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: descriptor(config),
    layers: [descriptor(layer)],
  }),
)
const index = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: [descriptor(image, mediaTypes.ociManifest)],
  }),
)
const name = parseName('docker.io', 'team/app')
const officeName = parseName('registry.office:5000', 'team/app')

/** A store, and what of it may be shared, with `docker.io` as a registry that may be. */
class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly warnings: string[] = []
  readonly changes: string[] = []
  shareable: ReadonlySet<string> = new Set(['docker.io'])
  store!: Store
  sharing!: SharedBlobs

  private constructor(disk: WatchedDisk) {
    this.disk = disk
  }

  static async open(): Promise<World> {
    const world = new World(await WatchedDisk.open())
    await world.#start()
    return world
  }

  async #start(): Promise<void> {
    this.store = await Store.open({ folder: this.disk.folder, disk: this.disk, onWarning: () => {} })
    this.share()
    await this.sharing.ready
  }

  share(): void {
    this.sharing = new SharedBlobs({
      store: this.store,
      mayShare: registry => this.shareable.has(registry),
      onWarning: message => this.warnings.push(message),
    })
    this.sharing.onChange(({ added, removed }) => {
      for (const digest of added) this.changes.push(`+${titleOf(digest)}`)
      for (const digest of removed) this.changes.push(`-${titleOf(digest)}`)
    })
  }

  async restart(): Promise<void> {
    this.sharing[Symbol.dispose]()
    await this.store.close()
    await this.#start()
  }

  async put(bytes: Buffer, contentType?: string): Promise<void> {
    const transfer = this.store.begin(digestOf(bytes))
    await transfer.begin(bytes.length)
    const lease = transfer.lease({ start: 0, end: bytes.length })
    await lease.write(bytes)
    await lease.close()
    assert.ok((await this.store.verify(transfer, contentType)).matches)
    await transfer.settled
  }

  async putImage(): Promise<void> {
    await this.put(image, mediaTypes.ociManifest)
  }

  /** Damages a blob on disk, and has that noticed. */
  async rot(bytes: Buffer): Promise<void> {
    const digest = digestOf(bytes)
    await this.disk.replaceFile(`${this.disk.folder}/blobs/sha256/${digest.slice('sha256:'.length)}`, 'x')
    assert.is(await this.store.open(digest), undefined)
  }

  /** What is shared now, once all that was under way is done. */
  async shared(): Promise<string[]> {
    await this.#settled()
    const titles = [...this.sharing.digests()].map(titleOf).sort()
    for (const bytes of [layer, config, image, index])
      assert.is(this.sharing.has(digestOf(bytes)), titles.includes(titleOf(digestOf(bytes))))
    return titles
  }

  async #settled(): Promise<void> {
    await this.sharing.ready
    await this.store.visibilities.settled()
    // Looking up in the index takes some turns of the event loop.
    for (let turns = 0; turns < 20; turns++) {
      await this.store.index.ownersOf(digestOf(layer))
      await setImmediate()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.sharing[Symbol.dispose]()
    await this.store.close()
    await this.disk[Symbol.asyncDispose]()
    assert.equal(this.warnings, [])
  }
}

function titleOf(digest: Digest): string {
  const titles = { layer, config, image, index }
  return Object.entries(titles).find(([, bytes]) => digestOf(bytes) === digest)?.[0] ?? digest
}

const note = ({ store }: World, as: Name, visibility: 'public' | 'private', bytes = image) =>
  store.visibilities.note(as, digestOf(bytes), visibility, store.index.manifest(digestOf(bytes)))

test('what is held is shared once it is known to be public, and nothing before', async () => {
  await using world = await World.open()
  for (const bytes of [config, layer]) await world.put(bytes)
  await world.putImage()
  assert.equal(await world.shared(), [])
  await note(world, name, 'private')
  assert.equal(await world.shared(), [])
  await note(world, name, 'public')
  assert.equal(await world.shared(), ['config', 'image', 'layer'])
  assert.equal(world.changes.sort(), ['+config', '+image', '+layer'])
})

test('what is known to be public is shared once it is held', async () => {
  await using world = await World.open()
  await world.putImage()
  await note(world, name, 'public')
  assert.equal(await world.shared(), ['image'])
  await world.put(layer)
  assert.equal(await world.shared(), ['image', 'layer'])
})

test('an index shares its image, and that its layers, in whatever order they come', async () => {
  for (const order of [
    [index, image, layer],
    [layer, image, index],
    [image, index, layer],
  ]) {
    await using world = await World.open()
    for (const bytes of order) {
      await world.put(bytes, bytes === layer ? undefined : mediaTypes.ociManifest)
      if (bytes === index) await note(world, name, 'public', index)
      if (bytes === image) await note(world, name, 'private', image)
    }
    assert.equal(await world.shared(), ['image', 'index', 'layer'])
  }
})

test('an image that came under another name is shared under the name of its index', async () => {
  await using world = await World.open()
  await world.put(index, mediaTypes.ociIndex)
  await note(world, name, 'public', index)
  await world.putImage()
  await note(world, officeName, 'private')
  await world.put(layer)
  assert.equal(await world.shared(), ['image', 'index', 'layer'])
})

test('a digest that is private under one name and public under another is shared', async () => {
  await using world = await World.open()
  await world.putImage()
  await note(world, parseName('docker.io', 'team/private'), 'private')
  assert.equal(await world.shared(), [])
  await note(world, name, 'public')
  await note(world, parseName('docker.io', 'team/private'), 'private')
  assert.equal(await world.shared(), ['image'])
})

test('content of a registry that may not be shared never is, though everybody may have it there', async () => {
  await using world = await World.open()
  await world.putImage()
  await note(world, officeName, 'public')
  await world.put(layer)
  assert.equal(await world.shared(), [])
  await world.restart()
  assert.equal(await world.shared(), [])
  assert.equal(world.changes, [])
})

for (const [what, as] of [
  ['of a registry that may not be shared', officeName],
  ['private', parseName('docker.io', 'team/private')],
] as const)
  test(`a manifest that a peer gave does not have what it lists shared that is ${what}, be it held before or after`, async () => {
    await using world = await World.open()
    await world.put(layer)
    await world.store.visibilities.note(as, digestOf(layer), as === officeName ? 'public' : 'private')
    // The peer has made it up, or kept it from when it still had the right to it.
    await world.putImage()
    const manifest = world.store.index.manifest(digestOf(image))
    await world.store.visibilities.noteGiven(name, digestOf(image), manifest)
    assert.equal(await world.shared(), ['image'])
    await world.store.visibilities.note(as, digestOf(config), as === officeName ? 'public' : 'private')
    await world.put(config)
    assert.equal(await world.shared(), ['image'])
    await world.restart()
    assert.equal(await world.shared(), ['image'])
    // The registry's own word is another thing.
    await note(world, name, 'public')
    assert.equal(await world.shared(), ['config', 'image', 'layer'])
  })

test('what a peer gave, and what its manifest lists, is shared', async () => {
  await using world = await World.open()
  await world.putImage()
  await world.put(layer)
  await world.store.visibilities.noteGiven(name, digestOf(image), world.store.index.manifest(digestOf(image)))
  await world.put(config)
  assert.equal(await world.shared(), ['config', 'image', 'layer'])
  await world.restart()
  assert.equal(await world.shared(), ['config', 'image', 'layer'])
})

test('what is dropped is withdrawn, and shared again when it is stored anew', async () => {
  await using world = await World.open()
  await world.putImage()
  await world.put(layer)
  await note(world, name, 'public')
  await world.rot(layer)
  assert.equal(await world.shared(), ['image'])
  await world.put(layer)
  assert.equal(await world.shared(), ['image', 'layer'])
  assert.equal(
    world.changes.filter(change => change.endsWith('layer')),
    ['+layer', '-layer', '+layer'],
  )
  await world.rot(image)
  assert.equal(await world.shared(), ['layer'])
})

test('a restart keeps it, unless the registry may no longer be shared', async () => {
  await using world = await World.open()
  await world.putImage()
  await world.put(layer)
  await world.put(config)
  await note(world, officeName, 'public')
  world.shareable = new Set(['docker.io', 'registry.office:5000'])
  await world.restart()
  assert.equal(await world.shared(), ['config', 'image', 'layer'])
  assert.equal(world.changes.sort(), ['+config', '+image', '+layer'])
  world.shareable = new Set(['docker.io'])
  await world.restart()
  assert.equal(await world.shared(), [])
})

test('nothing is shared before all that was held at the beginning is known, and nothing that changes meanwhile is missed', async () => {
  await using world = await World.open()
  await world.putImage()
  await world.put(layer)
  await note(world, name, 'public')
  await world.shared()
  world.changes.length = 0
  world.sharing[Symbol.dispose]()
  world.share()
  assert.not(world.sharing.has(digestOf(image)))
  assert.equal([...world.sharing.digests()], [])
  await Promise.all([world.rot(layer), world.put(config)])
  assert.equal(await world.shared(), ['config', 'image'])
  assert.equal(new Set(world.changes.filter(change => change.startsWith('+'))).has('+image'), true)
})

test('who has left is told nothing', async () => {
  await using world = await World.open()
  const told: number[] = []
  const one = world.sharing.onChange(({ added }) => told.push(added.length))
  one[Symbol.dispose]()
  await world.putImage()
  await note(world, name, 'public')
  assert.equal(await world.shared(), ['image'])
  assert.equal(told, [])
})

test.run()
