import { randomBytes } from 'node:crypto'
import { open, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { formatName, parseName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Store } from './store.ts'
import { type Finding, Verification } from './verification.ts'

const MiB = 1024 * 1024
const name = parseName('docker.io', 'busybox')

const config = randomBytes(1000)
const layer = randomBytes(3 * MiB + 7)
const [configDigest, layerDigest] = [digestOf(config), digestOf(layer)]
const manifest = manifestOf(config.length)
const manifestDigest = digestOf(manifest)

function manifestOf(configSize: number): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: { mediaType: 'application/x', digest: configDigest, size: configSize },
      layers: [{ mediaType: 'application/x', digest: layerDigest, size: layer.length }],
    }),
  )
}

/** A store with one image, and somebody to fetch it again from. */
class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly warnings: string[] = []
  /** What was fetched again, and under which name. */
  readonly fetched: string[] = []
  /** Why nothing can be fetched. */
  unreachable: Error | undefined
  store!: Store

  private constructor(disk: WatchedDisk) {
    this.disk = disk
  }

  static async open(): Promise<World> {
    const world = new World(await WatchedDisk.open())
    await world.openStore()
    const descriptor = { mediaType: mediaTypes.ociManifest, digest: manifestDigest, size: manifest.length }
    world.store.refs.see(name, 'latest', { descriptor, at: 5, from: 'hub', visibility: 'public' })
    for (const bytes of [manifest, config, layer]) await world.put(bytes)
    return world
  }

  async openStore(): Promise<void> {
    this.store = await Store.open({
      folder: this.disk.folder,
      disk: this.disk,
      onWarning: message => this.warnings.push(message),
    })
  }

  path(digest: Digest): string {
    return join(this.disk.folder, 'blobs', ...digest.split(':'))
  }

  quarantined(digest: Digest): Promise<Buffer> {
    return readFile(join(this.disk.folder, 'quarantine', digest.replace(':', '-')))
  }

  quarantine(): Promise<string[]> {
    return this.disk.list(join(this.disk.folder, 'quarantine'))
  }

  async put(bytes: Buffer): Promise<void> {
    const transfer = this.store.begin(digestOf(bytes))
    await transfer.begin(bytes.length)
    const lease = transfer.lease({ start: 0, end: bytes.length })
    for (let at = 0; at < bytes.length; at += 256 * 1024) await lease.write(bytes.subarray(at, at + 256 * 1024))
    await lease.close()
    const contentType = bytes[0] === 0x7b ? mediaTypes.ociManifest : undefined
    assert.ok((await this.store.verify(transfer, contentType)).matches)
    await transfer.settled
  }

  verification(): Verification {
    return new Verification({
      store: this.store,
      fetch: async (name, digest, kind) => {
        if (this.unreachable) throw this.unreachable
        this.fetched.push(`${kind} ${formatName(name)}@${digest}`)
        const bytes = [manifest, config, layer].find(bytes => digestOf(bytes) === digest)
        if (bytes) await this.put(bytes)
      },
    })
  }

  verify(verification = this.verification()): Promise<Finding[]> {
    return findingsOf(verification)
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

async function findingsOf(verification: Verification, signal = new AbortController().signal): Promise<Finding[]> {
  const findings: Finding[] = []
  for await (const finding of verification.run(signal)) findings.push(finding)
  return findings
}

/** Inverts one byte. */
async function flip(path: string, at: number): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const byte = Buffer.alloc(1)
    await file.read(byte, 0, 1, at)
    await file.write(Buffer.from([255 - byte[0]!]), 0, 1, at)
  } finally {
    await file.close()
  }
}

test('what is sound is read once, and nothing is found', async () => {
  await using world = await World.open()
  let read = 0
  world.disk.before = operation => {
    if (operation === 'read') read++
  }
  const verification = world.verification()
  assert.equal(await world.verify(verification), [])
  const bytes = manifest.length + config.length + layer.length
  assert.equal(verification.progress, { checked: 3, of: 3, bytes, of_bytes: bytes })
  // Seven pieces of the layer, and one of each of the others.
  assert.is(read, 9)
  assert.equal([world.fetched, world.warnings, await world.quarantine()], [[], [], []])
})

test('an empty store is verified at once', async () => {
  await using disk = await WatchedDisk.open()
  const store = await Store.open({ folder: disk.folder, disk, onWarning: () => {} })
  const verification = new Verification({ store, fetch: async () => {} })
  assert.equal(await findingsOf(verification), [])
  await store.close()
})

for (const [what, problem, spoil] of [
  ['one byte has flipped', 'bytes', (path: string) => flip(path, 900)],
  [
    'the bytes are zeros',
    'bytes',
    async (path: string) => writeFile(path, Buffer.alloc((await readFile(path)).length)),
  ],
  ['the file was cut short', 'length', (path: string) => truncate(path, 100)],
  ['the file has grown', 'length', (path: string) => writeFile(path, 'more', { flag: 'a' })],
] as const)
  for (const bytes of [layer, config, manifest])
    test(`of ${nameOf(bytes)} ${what}: it goes to quarantine, and is fetched again`, async () => {
      await using world = await World.open()
      const digest = digestOf(bytes)
      const at = bytes === manifest ? (path: string) => (what.startsWith('one') ? flip(path, 50) : spoil(path)) : spoil
      await at(world.path(digest))
      const rotten = await readFile(world.path(digest))
      assert.equal(await world.verify(), [{ digest, size: bytes.length, problem, quarantined: true, refetched: true }])
      assert.equal(world.fetched, [`${bytes === manifest ? 'manifest' : 'blob'} docker.io/library/busybox@${digest}`])
      assert.ok((await world.quarantined(digest)).equals(rotten))
      assert.ok((await readFile(world.path(digest))).equals(bytes))
      assert.is(world.warnings.length, 1)
      assert.ok(world.store.refs.held(name, 'latest'))
      assert.is(world.store.held.blobs, 3)
      assert.equal(await world.verify(), [])
    })

function nameOf(bytes: Buffer): string {
  return bytes === layer ? 'a layer' : bytes === config ? 'a config' : 'a manifest'
}

test('a file that is gone is found, and fetched again', async () => {
  await using world = await World.open()
  await world.disk.remove(world.path(layerDigest))
  const found = { digest: layerDigest, size: layer.length, problem: 'missing', quarantined: false, refetched: true }
  assert.equal(await world.verify(), [found])
  assert.equal(await world.quarantine(), [])
  assert.ok((await readFile(world.path(layerDigest))).equals(layer))
})

test('what the disk cannot read goes to quarantine, but not for an error of another kind', async () => {
  await using world = await World.open()
  const failWith = (code: string) => {
    world.disk.before = (operation, path) => {
      if (operation === 'read' && path === world.path(layerDigest))
        throw Object.assign(new Error(`${code}: it fails`), { code })
    }
  }
  const found = { digest: layerDigest, size: layer.length, problem: 'unreadable' }
  failWith('EMFILE')
  assert.equal(await world.verify(), [{ ...found, quarantined: false, refetched: false, reason: 'EMFILE: it fails' }])
  assert.is(world.store.held.blobs, 3)
  failWith('EIO')
  assert.equal(await world.verify(), [{ ...found, quarantined: true, refetched: true }])
  assert.is(world.store.held.blobs, 3)
})

test('what cannot be had is a finding with the reason; it is not held, and the rest is', async () => {
  await using world = await World.open()
  world.unreachable = new Error('the registry cannot be reached')
  await flip(world.path(manifestDigest), 50)
  const [finding, ...more] = await world.verify()
  assert.equal(more, [])
  assert.equal([finding?.refetched, finding?.reason], [false, 'the registry cannot be reached'])
  assert.is(world.store.sizeOf(manifestDigest), undefined)
  assert.is(world.store.refs.held(name, 'latest'), undefined)
  assert.ok(world.store.refs.seen(name, 'latest'))
  assert.is(world.store.held.blobs, 2)
  assert.equal(await world.verify(), [])
})

test('of what no tag leads to it is not known where to fetch it', async () => {
  await using world = await World.open()
  const stray = randomBytes(5000)
  await world.put(stray)
  await flip(world.path(digestOf(stray)), 5)
  const [finding] = await world.verify()
  assert.is(finding?.reason, 'no repository is known that has it')
  // Unless it was had under a name that there is a tag of.
  await world.put(stray)
  await world.store.visibilities.note(name, digestOf(stray), 'public')
  await flip(world.path(digestOf(stray)), 5)
  assert.ok((await world.verify())[0]?.refetched)
})

test('where it cannot be moved to quarantine, it is removed', async () => {
  await using world = await World.open()
  await flip(world.path(layerDigest), 5)
  world.disk.before = operation => {
    if (operation === 'makeFolder') throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
  }
  world.unreachable = new Error('nobody is there')
  const [finding] = await world.verify()
  assert.equal([finding?.problem, finding?.quarantined, finding?.refetched], ['bytes', false, false])
  assert.is(await world.disk.sizeOf(world.path(layerDigest)), undefined)
})

test('the move to quarantine survives power loss', async () => {
  await using world = await World.open()
  await flip(world.path(layerDigest), 5)
  const operations: string[] = []
  world.disk.before = (operation, path) => {
    if (operation === 'rename' || operation === 'syncFolder')
      operations.push(`${operation} ${path.slice(world.disk.folder.length + 1)}`)
  }
  world.unreachable = new Error('nobody is there')
  await world.verify()
  const [rename, ...syncs] = operations.slice(0, 4)
  assert.is(rename, `rename blobs/sha256/${layerDigest.slice(7)}`)
  assert.equal(syncs, ['syncFolder ', 'syncFolder quarantine', 'syncFolder blobs/sha256'])
})

test('who reads what has rotten is broken off, also if it was sound before', async () => {
  await using world = await World.open()
  const held = await world.store.open(layerDigest)
  const whole = held!.read({ start: 0, end: layer.length })
  const part = held!.read({ start: MiB, end: 2 * MiB })
  held!.close()
  const buffer = Buffer.alloc(1000)
  assert.is(await whole.read(buffer), 1000)
  await flip(world.path(layerDigest), layer.length - 1)
  assert.is((await world.verify()).length, 1)
  for (const reader of [whole, part]) {
    assert.match(String(await reader.read(buffer).catch((error: unknown) => error)), 'no longer has the bytes')
    reader.close()
  }
  // It came too late to say anything of what was stored since.
  assert.ok(world.store.sizeOf(layerDigest))
})

test('who reads a file whose name is gone reads on', async () => {
  await using world = await World.open()
  const held = await world.store.open(layerDigest)
  await world.disk.remove(world.path(layerDigest))
  assert.is((await world.verify()).length, 1)
  const buffer = Buffer.alloc(layer.length)
  const reader = held!.read({ start: 0, end: layer.length })
  held!.close()
  for (let at = 0; at < layer.length; ) at += await reader.read(buffer.subarray(at))
  reader.close()
  assert.ok(buffer.equals(layer))
})

test('rot that is found in a file without a name says nothing of what was stored since', async () => {
  await using world = await World.open()
  await world.store.close()
  await flip(world.path(configDigest), 5)
  await world.openStore()
  const held = await world.store.open(configDigest)
  const reader = held!.read({ start: 0, end: config.length })
  held!.close()
  await world.disk.remove(world.path(configDigest))
  assert.is((await world.verify())[0]?.problem, 'missing')
  assert.instance(await reader.read(Buffer.alloc(config.length)).catch((error: unknown) => error), Error)
  reader.close()
  assert.is(world.store.sizeOf(configDigest), config.length)
  assert.ok((await readFile(world.path(configDigest))).equals(config))
})

test('rot that a reader finds is moved to quarantine, too', async () => {
  await using world = await World.open()
  await world.store.close()
  await flip(world.path(configDigest), 5)
  const rotten = await readFile(world.path(configDigest))
  await world.openStore()
  const held = await world.store.open(configDigest)
  const reader = held!.read({ start: 0, end: config.length })
  held!.close()
  assert.instance(await reader.read(Buffer.alloc(config.length)).catch((error: unknown) => error), Error)
  reader.close()
  assert.ok((await world.quarantined(configDigest)).equals(rotten))
})

test('a blob that was found sound is not hashed again by its first reader', async () => {
  await using world = await World.open()
  await world.store.close()
  await world.openStore()
  assert.equal(await world.verify(), [])
  await flip(world.path(configDigest), 5)
  const held = await world.store.open(configDigest)
  const reader = held!.read({ start: 0, end: config.length })
  held!.close()
  assert.is(await reader.read(Buffer.alloc(config.length)), config.length)
  reader.close()
})

test('what goes and comes during the run is not found', async () => {
  await using world = await World.open()
  let first = true
  world.disk.before = async operation => {
    if (operation !== 'read' || !first) return
    first = false
    // Dropped by a reader, and fetched again by nobody.
    for (const digest of [configDigest, layerDigest, manifestDigest]) await world.disk.remove(world.path(digest))
    for (const digest of [configDigest, layerDigest, manifestDigest]) await world.store.open(digest)
    await world.put(randomBytes(100))
  }
  const verification = world.verification()
  assert.equal(await world.verify(verification), [])
  assert.equal([verification.progress.checked, verification.progress.of], [1, 1])
})

test('it stops within one piece when it is aborted', async () => {
  await using world = await World.open()
  const abort = new AbortController()
  let read = 0
  world.disk.before = (operation, path) => {
    if (operation === 'read' && path === world.path(layerDigest) && ++read === 2) abort.abort(new Error('enough'))
  }
  const verification = world.verification()
  const error = await findingsOf(verification, abort.signal).catch((error: unknown) => error)
  assert.match(String(error), 'enough')
  assert.is(read, 2)
})

test('a manifest that gives a wrong size is found, and kept', async () => {
  await using world = await World.open()
  const liar = manifestOf(12_345)
  await world.put(liar)
  const [finding, ...more] = await world.verify()
  assert.equal(more, [])
  assert.equal([finding?.digest, finding?.problem, finding?.quarantined], [digestOf(liar), 'sizes', false])
  assert.is(finding?.reason, `it gives 12345 bytes for ${configDigest}, which has ${config.length}`)
  assert.is(world.store.held.blobs, 4)
})

test('what the index has wrong of a manifest is put right', async () => {
  await using world = await World.open()
  const wrong = { mediaType: mediaTypes.dockerManifest, manifests: [], layers: [] }
  await world.store.index.addBlob(manifestDigest, manifest.length, wrong)
  assert.equal(await world.verify(), [])
  assert.is(world.store.index.manifest(manifestDigest)?.layers.length, 1)
  assert.is(world.warnings.length, 1)
})

test('while clients are served it gives way', async () => {
  await using world = await World.open()
  assert.not(world.store.busy)
  const held = await world.store.open(configDigest)
  assert.ok(world.store.busy)
  assert.equal(await world.verify(), [])
  held!.close()
  assert.not(world.store.busy)
})

test.run()
