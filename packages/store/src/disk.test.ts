import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { nodeDisk } from './disk.ts'

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-disk-'))
  try {
    await use(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Tells of each file or folder that is synced, by its inode, and what is in a folder then. */
async function watchingSyncs(folder: string, act: () => Promise<void>): Promise<{ inode: number; names: string[] }[]> {
  const seen: { inode: number; names: string[] }[] = []
  const handle = await open(folder)
  const prototype: { sync(this: typeof handle): Promise<void> } = Object.getPrototypeOf(handle)
  await handle.close()
  const { sync } = prototype
  prototype.sync = async function () {
    seen.push({ inode: (await this.stat()).ino, names: (await readdir(folder)).sort() })
    return sync.call(this)
  }
  try {
    await act()
  } finally {
    prototype.sync = sync
  }
  return seen
}

async function inodeOf(path: string): Promise<number> {
  const handle = await open(path)
  try {
    return (await handle.stat()).ino
  } finally {
    await handle.close()
  }
}

test('a file is replaced by one that is synced before it gets the name, and its folder after', () =>
  withFolder(async folder => {
    const path = join(folder, 'file')
    await writeFile(path, 'old')
    const syncs = await watchingSyncs(folder, () => nodeDisk.replaceFile(path, 'new'))
    assert.equal(syncs, [
      { inode: await inodeOf(path), names: ['file', 'file.new'] },
      { inode: await inodeOf(folder), names: ['file'] },
    ])
    assert.is(await readFile(path, 'utf8'), 'new')
  }))

test('what a replacement left that was cut off does not get into the next', () =>
  withFolder(async folder => {
    const path = join(folder, 'file')
    await writeFile(`${path}.new`, 'longer than what comes next')
    await nodeDisk.replaceFile(path, 'new')
    assert.is(await readFile(path, 'utf8'), 'new')
    assert.equal(await readdir(folder), ['file'])
  }))

test('folders that are made are synced in those above them, and no others', () =>
  withFolder(async folder => {
    const path = join(folder, 'a', 'b', 'c')
    await mkdir(join(folder, 'a'))
    const syncs = await watchingSyncs(folder, () => nodeDisk.makeFolder(path))
    const above = [await inodeOf(join(folder, 'a', 'b')), await inodeOf(join(folder, 'a'))]
    assert.equal(
      syncs.map(({ inode }) => inode),
      above,
    )
    assert.equal(await watchingSyncs(folder, () => nodeDisk.makeFolder(path)), [])
  }))

test.run()
