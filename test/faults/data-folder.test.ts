import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { StoreError } from '@shoal/store/store'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { startDaemon } from '../../packages/shoal/src/daemon.ts'
import { createLog } from '../../packages/shoal/src/log.ts'
import { loadSettings } from '../../packages/shoal/src/settings/load.ts'
import { bytesOf, type Content } from '../../scripts/internet/content.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { Download } from '../download.ts'
import { plainEnvironment, root, ShoalProcess, until } from '../shoal-process.ts'
import { type Answer, World } from '../world.ts'

const MiB = 1024 * 1024
const local = 'shoal; hit; detail=local'
const stale = 'shoal; hit; detail=stale'

/** A world that has pulled library/forty, tag and all. */
async function openPulled(): Promise<{ world: World; blobs: readonly Content[]; digest: string }> {
  const world = await World.open()
  const { manifest, config, layers, digest } = world.internet.images.image('library/forty')
  await world.get('/v2/library/forty/manifests/latest')
  for (const blob of [config, ...layers]) await world.get(pathOf(blob))
  return { world, blobs: [manifest, config, ...layers], digest }
}

const pathOf = ({ digest }: Content) => `/v2/library/forty/blobs/${digest}`
const fileOf = ({ data }: World, digest: string) => join(data, 'blobs', ...digest.split(':'))

async function goOffline({ internet: { hub, gcr } }: World): Promise<void> {
  await Promise.all([hub.down(), gcr.down()])
}

/** Everything of library/forty is to be had, with nobody to ask. */
async function assertAllHeld(world: World, blobs: readonly Content[]): Promise<void> {
  const tagged = await world.get('/v2/library/forty/manifests/latest')
  assert.is(tagged.status, 200)
  assert.ok(tagged.body.equals(bytesOf(blobs[0]!)))
  for (const blob of blobs) {
    const { headers, body } = await world.get(pathOf(blob))
    assert.is(headers['cache-status'], local)
    assert.ok(body.equals(bytesOf(blob)))
  }
}

/** Writes garbage over a file, of the same length. */
async function spoil(path: string): Promise<void> {
  await writeFile(path, Buffer.alloc((await stat(path)).size, 'garbage '))
}

test('an index that was deleted is made anew, with the tags still there', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  await world.daemon.close()
  await rm(join(world.data, 'index'), { recursive: true })
  await goOffline(world)
  await world.start()
  await assertAllHeld(world, blobs)
})

test('an index that was deleted still knows manifests from blobs', async () => {
  await using world = await World.open()
  const { images } = world.internet
  const image = images.image('library/busybox', '1.35')
  const index = await world.get('/v2/library/busybox/manifests/latest')
  await world.get('/v2/library/busybox/manifests/1.35')
  await world.get(`/v2/library/busybox/blobs/${image.config.digest}`)
  await world.daemon.close()
  await rm(join(world.data, 'index'), { recursive: true })
  await goOffline(world)
  await world.start()
  for (const [reference, type] of [
    [image.digest, 'application/vnd.docker.distribution.manifest.v2+json'],
    [index.headers['docker-content-digest'], 'application/vnd.oci.image.index.v1+json'],
  ] as const) {
    const { status, headers } = await world.get(`/v2/library/busybox/manifests/${reference}`)
    assert.is(status, 200)
    assert.is(headers['content-type'], type)
  }
  assert.is((await world.get(`/v2/library/busybox/manifests/${image.config.digest}`)).status, 404)
})

for (const what of ['CURRENT', 'MANIFEST', 'log', 'ldb', 'everything'] as const)
  test(`an index with garbage for ${what} is made anew`, async () => {
    const { world: opened, blobs } = await openPulled()
    await using world = opened
    // At the second start Level turns its log into a table.
    await world.restart()
    await world.daemon.close()
    const folder = join(world.data, 'index')
    const names = await readdir(folder)
    const spoilt = names.filter(name => what === 'everything' || name.startsWith(what) || name.endsWith(`.${what}`))
    assert.ok(spoilt.length > 0, names.join(' '))
    for (const name of spoilt) await spoil(join(folder, name))
    await goOffline(world)
    await world.start()
    await assertAllHeld(world, blobs)
    await world.restart()
    await assertAllHeld(world, blobs)
  })

test('an index that is a file is a clear error, and nothing is lost', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  await world.daemon.close()
  const folder = join(world.data, 'index')
  await rm(folder, { recursive: true })
  await writeFile(folder, 'a file')
  const error = await world.start().then(
    () => undefined,
    thrown => thrown,
  )
  if (error) {
    assert.instance(error, StoreError)
    assert.is(error.code, 'UNUSABLE')
    await rm(folder)
    await world.start()
  }
  await goOffline(world)
  await assertAllHeld(world, blobs)
})

for (const [what, text] of [
  ['garbage', '\0\0\0 garbage'],
  ['empty', ''],
  ['cut off', '{"schemaVersion": 2, "manifests": [{"mediaTy'],
  ['something else', '[]'],
  ['null', 'null'],
  ['without manifests', '{"schemaVersion": 2}'],
] as const)
  test(`an index.json that is ${what} is set aside with a warning, and the daemon starts`, async () => {
    const { world: opened, blobs, digest } = await openPulled()
    await using world = opened
    await world.daemon.close()
    const path = join(world.data, 'index.json')
    await writeFile(path, text)
    world.log.length = 0
    await world.start()
    assert.match(world.log.join(''), /index\.json cannot be read/)
    assert.is(await readFile(`${path}.unreadable`, 'utf8'), text)
    assert.equal(JSON.parse(await readFile(path, 'utf8')).manifests, [])
    // The content is here, and a tag comes back with its next pull.
    const byDigest = await world.get(`/v2/library/forty/manifests/${digest}`)
    assert.is(byDigest.headers['cache-status'], local)
    assert.is((await world.get('/v2/library/forty/manifests/latest')).status, 200)
    await goOffline(world)
    await world.restart()
    await assertAllHeld(world, blobs)
  })

test('entries of index.json that others wrote are kept, and odd ones do no harm', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  await world.daemon.close()
  const path = join(world.data, 'index.json')
  const index = JSON.parse(await readFile(path, 'utf8'))
  const foreign = { mediaType: 'application/x', digest: `sha256:${'0'.repeat(64)}`, size: 3, annotations: { a: 'b' } }
  index.manifests.push(foreign, null, 5, { annotations: null }, { annotations: { 'dev.shoal.seen.at': 'yesterday' } })
  await writeFile(path, JSON.stringify(index))
  await goOffline(world)
  await world.start()
  await assertAllHeld(world, blobs)
  await world.daemon.close()
  const { manifests } = JSON.parse(await readFile(path, 'utf8'))
  assert.ok(manifests.some((entry: unknown) => JSON.stringify(entry) === JSON.stringify(foreign)))
  await world.start()
})

for (const when of ['while the daemon runs', 'while it is stopped'] as const)
  for (const [what, spoilFile] of [
    ['truncated', (path: string) => truncate(path, 10)],
    ['emptied', (path: string) => truncate(path, 0)],
    ['longer', (path: string) => writeFile(path, 'more', { flag: 'a' })],
    ['gone', (path: string) => rm(path)],
  ] as const)
    test(`a blob and a manifest whose files are ${what} ${when} are fetched again`, async () => {
      const { world: opened, blobs, digest } = await openPulled()
      await using world = opened
      const [manifest, , layer] = blobs
      if (when === 'while it is stopped') await world.daemon.close()
      await spoilFile(fileOf(world, layer!.digest))
      if (when === 'while it is stopped') {
        await spoilFile(fileOf(world, digest))
        await world.start()
        const found = await world.get(`/v2/library/forty/manifests/${digest}`)
        assert.is(found.status, 200)
        assert.ok(found.body.equals(bytesOf(manifest!)))
      }
      const { status, headers, body } = await world.get(pathOf(layer!))
      assert.is(status, 200)
      assert.match(headers['cache-status'] as string, /^shoal; fwd=miss/)
      assert.ok(body.equals(bytesOf(layer!)))
      const again = await world.get(pathOf(layer!))
      assert.is(again.headers['cache-status'], local)
      assert.ok((await readFile(fileOf(world, layer!.digest))).equals(bytesOf(layer!)))
    })

test('with the index lost and files cut short, nothing wrong is served', async () => {
  const { world: opened, blobs, digest } = await openPulled()
  await using world = opened
  const [manifest, , layer, other] = blobs
  await world.daemon.close()
  await rm(join(world.data, 'index'), { recursive: true })
  await truncate(fileOf(world, layer!.digest), 10)
  await truncate(fileOf(world, digest), 10)
  await spoil(fileOf(world, other!.digest))
  await world.start()
  const found = await world.get('/v2/library/forty/manifests/latest')
  assert.is(found.status, 200)
  assert.ok(found.body.equals(bytesOf(manifest!)))
  for (const blob of [layer!, other!]) {
    const { status, body } = await world.get(pathOf(blob))
    assert.is(status, 200)
    assert.ok(body.equals(bytesOf(blob)))
  }
})

test('what does not belong in the data folder does no harm', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  await world.daemon.close()
  const { data } = world
  await writeFile(join(data, 'blobs', 'sha256', 'README'), 'hello')
  await writeFile(join(data, 'blobs', 'sha256', '0'.repeat(64)), 'not these bytes')
  await mkdir(join(data, 'blobs', 'sha256', '1'.repeat(64)))
  await writeFile(join(data, 'ingest', `sha256-${'2'.repeat(64)}.part`), 'half')
  await writeFile(join(data, 'ingest', `sha256-${'3'.repeat(64)}.json`), 'garbage')
  await writeFile(join(data, 'index.json.new'), 'half')
  await world.start()
  for (const digit of ['0', '1']) {
    const { status } = await world.get(`/v2/library/forty/blobs/sha256:${digit.repeat(64)}`)
    assert.is(status, 404, digit)
  }
  await goOffline(world)
  await assertAllHeld(world, blobs)
})

for (const state of [
  '{',
  'null',
  '{"version":1}',
  '{"version":1,"size":4194304,"ranges":[[0,99999999]]}',
  '{"version":9}',
])
  test(`a part whose state is ${state} is fetched from the beginning`, async () => {
    await using world = await World.open()
    const { layers } = await world.internet.add({ repository: 'library/one', tag: 'latest', layers: [4 * MiB] })
    const [layer] = layers
    await world.get('/v2/library/one/manifests/latest')
    await world.daemon.close()
    const part = join(world.data, 'ingest', layer!.digest.replace(':', '-'))
    await writeFile(`${part}.part`, Buffer.alloc(MiB, 1))
    await writeFile(`${part}.json`, state)
    await world.start()
    const { status, body } = await world.get(`/v2/library/one/blobs/${layer!.digest}`)
    assert.is(status, 200)
    assert.ok(body.equals(bytesOf(layer!)))
  })

test('a second daemon on the same folder is refused, and the first is not disturbed', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  const { settings } = await loadSettings({
    argvFlags: { 'data-dir': world.data, 'mirror-listen': '127.0.0.1:0', 'admin-listen': '127.0.0.1:0' },
    env: {},
  })
  const log = createLog(() => {})
  for (let attempt = 0; attempt < 2; attempt++) {
    const error = await startDaemon(settings, log).then(
      daemon => daemon.close(),
      thrown => thrown,
    )
    assert.instance(error, StoreError)
    assert.is(error.code, 'LOCKED')
    assert.match(error.message, 'in use by another shoal daemon')
  }
  await goOffline(world)
  await assertAllHeld(world, blobs)
})

test('a daemon in another process is refused the same folder with one line', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.start({ internet })
  const second = await shoal.run(['start'], { SHOAL_MIRROR_LISTEN: '127.0.0.1:0', SHOAL_ADMIN_LISTEN: '127.0.0.1:0' })
  assert.is(second.status, 1)
  assert.match(second.stderr, /^shoal: the data folder .* is in use by another shoal daemon\n$/)
  assert.is((await shoal.get('/v2/')).status, 200)
})

test('kill -9 in the middle of transfers loses nothing that was held, and spoils nothing', async () => {
  await using internet = await Internet.open()
  const { layers } = await internet.add({
    repository: 'library/kill',
    tag: 'latest',
    layers: [20 * MiB, 12 * MiB, 100],
  })
  const path = ({ digest }: Content) => `/v2/library/kill/blobs/${digest}`
  await using shoal = await ShoalProcess.start({ internet })
  for (let round = 1; round <= 3; round++) {
    internet.hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'slow', bytesPerSecond: 16 * MiB } : undefined)
    assert.is((await shoal.get('/v2/library/kill/manifests/latest')).status, 200)
    assert.ok((await shoal.get(path(layers[2]!))).body.equals(bytesOf(layers[2]!)))
    const downloads = await Promise.all(layers.slice(0, 2).map(layer => Download.open(shoal.mirror + path(layer))))
    for (const download of downloads) await download.until(round * 2 * MiB + round)
    shoal.process.kill('SIGKILL')
    await shoal.process.end()
    for (const [index, download] of downloads.entries()) {
      assert.is(await download.end(), 'broken')
      assert.ok(download.body.equals(bytesOf(layers[index]!).subarray(0, download.received)))
    }
    await shoal.start()
  }
  internet.hub.intercept = undefined
  const held = await shoal.get(path(layers[2]!))
  assert.is(held.headers['cache-status'], local)
  for (const layer of layers) assert.ok((await shoal.get(path(layer))).body.equals(bytesOf(layer)))
  assert.equal(await readdir(join(shoal.folder, 'data', 'ingest')), [])
})

test('a tag that was written survives kill -9', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.start({ internet, env: { SHOAL_TAGS_TTL: '1ms' } })
  const before = await shoal.get('/v2/library/forty/manifests/latest')
  await until(
    async () => {
      const index = await readFile(join(shoal.folder, 'data', 'index.json'), 'utf8')
      return index.includes('library/forty:latest') ? true : undefined
    },
    () => 'the tag is not written',
  )
  shoal.process.kill('SIGKILL')
  await shoal.process.end()
  await Promise.all([internet.hub.down(), internet.gcr.down()])
  await shoal.start()
  const after = await shoal.get('/v2/library/forty/manifests/latest')
  assert.is(after.headers['cache-status'], stale)
  assert.ok(after.body.equals(before.body))
})

test('a data folder that cannot be made or written is a clear error, on one line', async () => {
  const { world: opened } = await openPulled()
  await using world = opened
  await world.daemon.close()
  const file = join(world.folder, 'file')
  await writeFile(file, '')
  const readOnly = join(world.folder, 'read-only')
  await mkdir(readOnly)
  await chmod(readOnly, 0o555)
  await chmod(world.folder, 0o755)
  const mode = async (path: string, change: number) => {
    for (const name of await readdir(path, { recursive: true })) await chmod(join(path, name), 0o755)
    await chmod(path, change)
    for (const folder of ['ingest', 'index', 'blobs/sha256', 'blobs']) await chmod(join(path, folder), change)
  }
  await mode(world.data, 0o555)
  for (const folder of [file, join(file, 'data'), join(readOnly, 'data'), readOnly, world.data]) {
    const { status, stderr } = await startAsNobody(folder)
    assert.is(status, 1, folder)
    const [line, ...more] = stderr.trimEnd().split('\n')
    assert.equal(more, [], stderr)
    assert.ok(line?.startsWith(`shoal: the data folder ${folder} cannot be used: `), line)
    assert.match(line ?? '', /EACCES|ENOTDIR|EEXIST|permission|Permission/)
  }
  await mode(world.data, 0o755)
  await world.start()
  const tagged: Answer = await world.get('/v2/library/forty/manifests/latest')
  assert.is(tagged.headers['cache-status'], local)
})

/** `shoal start`, for a user who may not write everywhere: root is made nobody. */
async function startAsNobody(folder: string): Promise<{ status: number | null; stderr: string }> {
  const env = plainEnvironment({
    HOME: '/nonexistent',
    SHOAL_DATA_DIR: folder,
    SHOAL_MIRROR_LISTEN: '127.0.0.1:0',
    SHOAL_ADMIN_LISTEN: '127.0.0.1:0',
  })
  const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
  const main = join(root, 'packages', 'shoal', 'src', 'main.ts')
  const child = spawn(process.execPath, [main, 'start'], { env, stdio: ['ignore', 'ignore', 'pipe'], ...nobody })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', text => (stderr += text))
  const [status] = (await once(child, 'close')) as [number | null]
  return { status, stderr }
}

test('a manifest that has rotten on disk is fetched again', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  const [manifest] = blobs
  await world.daemon.close()
  await spoil(fileOf(world, manifest!.digest))
  await world.start()
  const { status, headers, body } = await world.get('/v2/library/forty/manifests/latest')
  assert.is(status, 200)
  assert.match(headers['cache-status'] as string, 'fwd=miss')
  assert.ok(body.equals(bytesOf(manifest!)))
})

test('a blob that has rotten on disk is never sent whole, and is fetched again', async () => {
  await using world = await World.open()
  const { layers } = await world.internet.add({ repository: 'library/rot', tag: 'latest', layers: [2 * MiB] })
  const [layer] = layers
  const path = `/v2/library/rot/blobs/${layer!.digest}`
  assert.is((await world.get(path)).status, 200)
  await world.daemon.close()
  await spoil(fileOf(world, layer!.digest))
  await world.start()
  assert.is(await (await Download.open(world.mirror + path)).end(), 'broken')
  const { headers, body } = await world.get(path)
  assert.match(headers['cache-status'] as string, 'fwd=miss')
  assert.ok(body.equals(bytesOf(layer!)))
})

test.run()
