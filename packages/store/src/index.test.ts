import { join } from 'node:path'
import { digestOf } from '@shoal/oci/digest'
import { parseManifest } from '@shoal/oci/manifest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Index, IndexError } from './index.ts'
import { Visibilities } from './visibility.ts'

const digest = (text: string) => digestOf(Buffer.from(text))
const name = parseName('docker.io', 'busybox')
const other = parseName('docker.io', 'someone/busybox')

function image(layerSize: number) {
  const descriptor = (text: string, size: number) => ({ mediaType: 'application/x', digest: digest(text), size })
  const document = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: descriptor('config', 7),
    layers: [descriptor('layer', layerSize)],
  }
  return parseManifest(Buffer.from(JSON.stringify(document)))
}

async function withIndex(use: (index: Index, folder: string) => Promise<void>): Promise<void> {
  await using disk = await WatchedDisk.open()
  const folder = join(disk.folder, 'index')
  const index = await Index.open(folder)
  try {
    await use(index, folder)
  } finally {
    await index.close()
  }
}

test('a second one cannot open it until the first has closed it', () =>
  withIndex(async (index, folder) => {
    const error = await Index.open(folder).catch((error: unknown) => error)
    assert.instance(error, IndexError)
    assert.is((error as IndexError).code, 'LOCKED')
    await index.close()
    await (await Index.open(folder)).close()
  }))

test('a folder that cannot be one is broken, not locked', async () => {
  await using disk = await WatchedDisk.open()
  const file = join(disk.folder, 'index')
  await disk.replaceFile(file, 'no folder')
  const error = await Index.open(file).catch((error: unknown) => error)
  assert.is(error instanceof IndexError && error.code, 'INDEX_BROKEN')
})

test('blobs are listed in the order of digests, with what they are', () =>
  withIndex(async index => {
    await index.addBlob(digest('b'), 5, undefined)
    await index.addBlob(digest('m'), 6, image(100))
    await index.addBlob(digest('gone'), 1, image(100))
    await index.removeBlob(digest('gone'))
    const expected = [
      [digest('b'), { size: 5 }],
      [digest('m'), { size: 6, mediaType: mediaTypes.ociManifest }],
    ].sort()
    assert.equal(await index.blobs(), expected)
    assert.is(index.manifest(digest('gone')), undefined)
    assert.is(index.manifest(digest('m'))?.layers.length, 1)
  }))

test('a manifest tells the sizes of what it points to', () =>
  withIndex(async index => {
    await index.addBlob(digest('m'), 6, image(100))
    assert.is(index.sizeOf(digest('layer')), 100)
    assert.is(index.sizeOf(digest('config')), 7)
    assert.is(index.sizeOf(digest('unknown')), undefined)
  }))

test('a size that manifests do not agree on is not known, whichever came first', () =>
  withIndex(async index => {
    await index.addBlob(digest('honest'), 6, image(100))
    await index.addBlob(digest('evil'), 6, image(5))
    assert.is(index.sizeOf(digest('layer')), undefined)
    await index.addBlob(digest('honest too'), 6, image(100))
    assert.is(index.sizeOf(digest('layer')), undefined)
    assert.is(index.sizeOf(digest('config')), 7)
  }))

test('listings are kept', () =>
  withIndex(async index => {
    const listing = { body: '{}', contentType: 'application/json', at: 5 }
    assert.is(await index.listing('x'), undefined)
    await index.setListing('x', listing)
    assert.equal(await index.listing('x'), listing)
  }))

test('what is not known is private, and belongs to one repository', () =>
  withIndex(async index => {
    const visibilities = new Visibilities(index)
    assert.is(visibilities.of(name, digest('m')), 'private')
    await visibilities.note(name, digest('m'), 'public', image(100))
    for (const part of ['m', 'config', 'layer']) {
      assert.is(visibilities.of(name, digest(part)), 'public', part)
      assert.is(visibilities.of(other, digest(part)), 'private', part)
    }
  }))

test('a manifest that is public as a child of an index makes its own children public', () =>
  withIndex(async index => {
    const visibilities = new Visibilities(index)
    await visibilities.note(name, digest('m'), 'public')
    await visibilities.note(name, digest('m'), 'public', image(100))
    assert.is(visibilities.of(name, digest('layer')), 'public')
  }))

test.run()
