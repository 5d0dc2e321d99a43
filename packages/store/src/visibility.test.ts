import { digestOf } from '@shoal/oci/digest'
import { parseManifest } from '@shoal/oci/manifest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Index } from './index.ts'
import { Visibilities } from './visibility.ts'

const digest = (text: string) => digestOf(Buffer.from(text))
const name = parseName('docker.io', 'team/app')
const other = parseName('docker.io', 'someone/app')
const descriptor = (text: string, mediaType = 'application/x') => ({ mediaType, digest: digest(text), size: 7 })
const parse = (document: object) => parseManifest(Buffer.from(JSON.stringify({ schemaVersion: 2, ...document })))

function imageOf(...layers: string[]) {
  const config = descriptor('config')
  return parse({ mediaType: mediaTypes.ociManifest, config, layers: layers.map(text => descriptor(text)) })
}

function indexOf(...manifests: string[]) {
  return parse({
    mediaType: mediaTypes.ociIndex,
    manifests: manifests.map(text => descriptor(text, mediaTypes.ociManifest)),
  })
}

class World implements AsyncDisposable {
  readonly index: Index
  visibilities: Visibilities
  readonly #disk: WatchedDisk

  private constructor(disk: WatchedDisk, index: Index) {
    this.#disk = disk
    this.index = index
    this.visibilities = new Visibilities(index)
  }

  static async open(): Promise<World> {
    const disk = await WatchedDisk.open()
    return new World(disk, await Index.open(disk.folder))
  }

  /** Which of some digests are public, and which are not. */
  of(of = name) {
    const states = ['index', 'image', 'config', 'layer', 'other image', 'other layer'].map(text => {
      return { text, isPublic: this.visibilities.of(of, digest(text)) === 'public' }
    })
    return states.filter(({ isPublic }) => isPublic).map(({ text }) => text)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.index.close()
    await this.#disk[Symbol.asyncDispose]()
  }
}

test('the children of a manifest that is public are public, also if this fetch bore credentials', async () => {
  await using world = await World.open()
  const { visibilities } = world
  await visibilities.note(name, digest('index'), 'public', indexOf('image', 'other image'))
  assert.equal(world.of(), ['index', 'image', 'other image'])
  await visibilities.note(name, digest('image'), 'private', imageOf('layer'))
  assert.equal(world.of(), ['index', 'image', 'config', 'layer', 'other image'])
  assert.equal(world.of(other), [])
})

test('a manifest that is found public later makes public what it points to, as far as it is held', async () => {
  await using world = await World.open()
  const { visibilities, index } = world
  await index.addBlob(digest('index'), 7, indexOf('image', 'other image'))
  await index.addBlob(digest('image'), 7, imageOf('layer'))
  await visibilities.note(name, digest('index'), 'private', indexOf('image', 'other image'))
  await visibilities.note(name, digest('image'), 'private', imageOf('layer'))
  assert.equal(world.of(), [])
  await visibilities.note(name, digest('index'), 'public')
  assert.equal(world.of(), ['index', 'image', 'config', 'layer', 'other image'])
  // What comes only now shares their lot as soon as it is held.
  await index.addBlob(digest('other image'), 7, imageOf('other layer'))
  await visibilities.learned(digest('other image'), imageOf('other layer'))
  assert.equal(world.of(), ['index', 'image', 'config', 'layer', 'other image', 'other layer'])
  assert.equal(world.of(other), [])
})

test('it does not matter which of an index and its image is noted first, or at once', async () => {
  for (const first of ['index', 'image'] as const) {
    await using world = await World.open()
    const { visibilities, index } = world
    const acts = {
      index: async () => {
        await index.addBlob(digest('index'), 7, indexOf('image'))
        await visibilities.note(name, digest('index'), 'public', indexOf('image'))
      },
      image: async () => {
        await index.addBlob(digest('image'), 7, imageOf('layer'))
        await visibilities.note(name, digest('image'), 'private', imageOf('layer'))
      },
    }
    await Promise.all([acts[first](), acts[first === 'index' ? 'image' : 'index']()])
    assert.equal(world.of(), ['index', 'image', 'config', 'layer'], first)
  }
})

test('what is public under one name is private under another, and what a manifest of that learns stays with it', async () => {
  await using world = await World.open()
  const { visibilities, index } = world
  await visibilities.note(name, digest('image'), 'public')
  await visibilities.note(other, digest('image'), 'private')
  await index.addBlob(digest('image'), 7, imageOf('layer'))
  await visibilities.learned(digest('image'), imageOf('layer'))
  assert.equal(world.of(), ['image', 'config', 'layer'])
  assert.equal(world.of(other), [])
})

test('what a peer gave is public, and proves nothing', async () => {
  await using world = await World.open()
  const { visibilities } = world
  await visibilities.noteGiven(name, digest('image'))
  assert.equal(world.of(), ['image'])
  assert.not(visibilities.isProven(name, digest('image')))
  // Neither a fetch with credentials nor that it is held makes more of it.
  await visibilities.note(name, digest('image'), 'private', imageOf('layer'))
  await visibilities.learned(digest('image'), imageOf('layer'))
  assert.equal(world.of(), ['image'])
  await visibilities.note(name, digest('image'), 'public', imageOf('layer'))
  assert.equal(world.of(), ['image', 'config', 'layer'])
  assert.ok(visibilities.isProven(name, digest('image')))
})

test('what a manifest of a peer points to shares its lot, but for what is known to be private', async () => {
  await using world = await World.open()
  const { visibilities } = world
  await visibilities.note(name, digest('old image'), 'private', imageOf('layer'))
  await visibilities.noteGiven(name, digest('image'), imageOf('layer', 'other layer'))
  assert.equal(world.of(), ['image', 'other layer'])
  await visibilities.noteGiven(name, digest('old image'), imageOf('layer'))
  assert.equal(world.of(), ['image', 'other layer'])
})

test('what was public once stays so, and it is told what becomes public, once', async () => {
  await using world = await World.open()
  const { visibilities } = world
  const told: string[] = []
  const subscription = visibilities.onPublished(({ repository }, digests) =>
    told.push(`${repository} ${digests.length}`),
  )
  await visibilities.note(name, digest('image'), 'private', imageOf('layer'))
  await visibilities.note(name, digest('image'), 'public', imageOf('layer'))
  await visibilities.note(name, digest('image'), 'public', imageOf('layer'))
  await visibilities.note(name, digest('image'), 'private', imageOf('layer'))
  await visibilities.noteGiven(name, digest('image'), imageOf('layer'))
  assert.equal(world.of(), ['image', 'config', 'layer'])
  assert.equal(told, ['team/app 3'])
  subscription[Symbol.dispose]()
  await visibilities.note(other, digest('image'), 'public')
  assert.is(told.length, 1)
})

test('indexes that list each other end', async () => {
  await using world = await World.open()
  const { visibilities, index } = world
  await index.addBlob(digest('index'), 7, indexOf('other image', 'index'))
  await index.addBlob(digest('other image'), 7, indexOf('index'))
  await visibilities.note(name, digest('index'), 'public')
  assert.equal(world.of(), ['index', 'other image'])
})

test('an index that cannot be written loses that note alone', async () => {
  await using world = await World.open()
  const { visibilities, index } = world
  const write = index.setStanding.bind(index)
  index.setStanding = () => Promise.reject(new Error('full'))
  assert.is(await visibilities.note(name, digest('image'), 'public').catch((error: Error) => error.message), 'full')
  assert.equal(world.of(), [])
  index.setStanding = write
  await visibilities.note(name, digest('image'), 'public')
  assert.equal(world.of(), ['image'])
})

test.run()
