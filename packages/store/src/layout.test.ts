import { join } from 'node:path'
import { digestOf } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Layout } from './layout.ts'

const small = digestOf(Buffer.from('a'))
const long = digestOf(Buffer.from('a'), 'sha512')

test('a new folder is an OCI image layout, and opening it again changes nothing', async () => {
  await using disk = await WatchedDisk.open()
  const root = join(disk.folder, 'a', 'b')
  await Layout.open(root, disk)
  assert.equal(JSON.parse((await disk.readFile(join(root, 'oci-layout'))).toString()), { imageLayoutVersion: '1.0.0' })
  assert.equal((await disk.list(root)).sort(), ['blobs', 'ingest', 'oci-layout'])
  disk.before = operation => assert.is.not(operation, 'replaceFile')
  await Layout.open(root, disk)
})

test('blobs lie under their algorithm and hex', async () => {
  await using disk = await WatchedDisk.open()
  const layout = await Layout.open(disk.folder, disk)
  assert.is(layout.blob(small), join(disk.folder, 'blobs', 'sha256', small.slice(7)))
  assert.is(layout.blob(long), join(disk.folder, 'blobs', 'sha512', long.slice(7)))
})

test('file names have no colon, which Windows forbids', async () => {
  await using disk = await WatchedDisk.open()
  const layout = await Layout.open(disk.folder, disk)
  for (const path of [layout.blob(small), layout.part(small), layout.partState(long)])
    assert.not.match(path.slice(disk.folder.length), ':')
})

test('only files that are named after a digest are blobs', async () => {
  await using disk = await WatchedDisk.open()
  const layout = await Layout.open(disk.folder, disk)
  for (const path of [
    layout.blob(small),
    layout.blob(long),
    `${layout.blob(small)}.new`,
    join(layout.blobFolder('sha256'), long.slice(7)),
    join(layout.blobFolder('sha256'), 'A'.repeat(64)),
    join(layout.blobFolder('sha256'), '.DS_Store'),
  ])
    await disk.replaceFile(path, '')
  assert.equal(await layout.blobs(), [small, long])
})

test.run()
