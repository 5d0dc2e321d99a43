import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { Store } from '@shoal/store/store'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { publicSighting } from './public-tag.ts'

test('peers may know of a tag what is public and of a registry that is shared', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-public-tag-'))
  try {
    const store = await Store.open({ folder, onWarning: () => {} })
    const descriptor = { mediaType: 'text/plain', digest: digestOf(Buffer.from('a')), size: 1 }
    const see = (registry: string, repository: string, visibility: 'public' | 'private') =>
      store.refs.see(parseName(registry, repository), 'latest', { descriptor, at: 1, from: registry, visibility })
    see('docker.io', 'library/nginx', 'public')
    see('docker.io', 'me/secret', 'private')
    see('hub.example', 'a/b', 'public')
    const known = (name: string, tag = 'latest') =>
      publicSighting(store, registry => registry === 'docker.io', name, tag)
    assert.is(known('docker.io/library/nginx')?.descriptor, descriptor)
    for (const name of ['docker.io/me/secret', 'hub.example/a/b', 'docker.io/library/none', 'nginx', '', '/', 'A/../b'])
      assert.is(known(name), undefined, name)
    assert.is(known('docker.io/library/nginx', '../latest'), undefined)
    await store.close()
  } finally {
    await rm(folder, { recursive: true })
  }
})

test.run()
