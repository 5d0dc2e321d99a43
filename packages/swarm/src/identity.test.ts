import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nodeDisk } from '@shoal/store/disk'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { IdentityError, loadIdentity } from './identity.ts'

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-identity-'))
  try {
    await use(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('an identity is made once, and is the same at the next start', () =>
  withFolder(async folder => {
    const first = await loadIdentity(folder, nodeDisk)
    const second = await loadIdentity(folder, nodeDisk)
    assert.match(first.peerId, /^12D3KooW/)
    assert.is(second.peerId, first.peerId)
  }))

test('nobody else may read the key', () =>
  withFolder(async folder => {
    await loadIdentity(folder, nodeDisk)
    assert.is((await stat(join(folder, 'peer.key'))).mode & 0o777, 0o600)
  }))

test('a key that cannot be read is not overwritten, and the error says what to do', () =>
  withFolder(async folder => {
    await writeFile(join(folder, 'peer.key'), 'nonsense\n')
    try {
      await loadIdentity(folder, nodeDisk)
      assert.unreachable()
    } catch (error) {
      assert.instance(error, IdentityError)
      assert.match((error as Error).message, /remove it/)
    }
  }))

test.run()
