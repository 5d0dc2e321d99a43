import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, type Content } from '../../scripts/internet/content.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { testUnless, whyNot } from '../prerequisites.ts'
import { ShoalProcess, until } from '../shoal-process.ts'
import { fetchWhole } from '../world.ts'

const MiB = 1024 * 1024
const execute = promisify(execFile)
const diskTest = testUnless(whyNot(['mount', 'umount', 'prlimit'], 'mount, util-linux'))

const repository = 'library/disk'
const pathOf = ({ digest }: Content) => `/v2/${repository}/blobs/${digest}`

/** A daemon whose data folder is a small disk of its own. */
class World implements AsyncDisposable {
  readonly internet: Internet
  readonly shoal: ShoalProcess
  readonly disk: string
  readonly data: string
  layers: readonly Content[] = []
  readonly #mounts: string[] = []

  private constructor(internet: Internet, shoal: ShoalProcess) {
    this.internet = internet
    this.shoal = shoal
    this.disk = join(shoal.folder, 'disk')
    this.data = join(this.disk, 'data')
  }

  /** @param size of the disk, and of the layers of an image, in MiB */
  static async open(size: number, layers: readonly number[]): Promise<World> {
    const internet = await Internet.open()
    const shoal = await ShoalProcess.prepare({ internet })
    const world = new World(internet, shoal)
    Object.assign(shoal.env, { SHOAL_DATA_DIR: world.data })
    const image = await internet.add({ repository, tag: 'latest', layers: layers.map(each => each * MiB) })
    internet.gcr.repositories.add(repository)
    world.layers = image.layers
    await mkdir(world.disk)
    await world.mount('-t', 'tmpfs', '-o', `size=${size}m`, 'none', world.disk)
    await shoal.start()
    return world
  }

  async mount(...args: readonly string[]): Promise<void> {
    await execute('mount', args)
    this.#mounts.push(args.at(-1)!)
  }

  async get(layer: Content, headers: Record<string, string> = {}): Promise<void> {
    const { status, body } = await this.shoal.get(pathOf(layer), headers)
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers['range'] ?? '')
    assert.is(status, range ? 206 : 200)
    const expected = range ? bytesOf(layer).subarray(Number(range[1]), Number(range[2]) + 1) : bytesOf(layer)
    assert.ok(body.equals(expected))
  }

  /** Why what is pulled is not stored. */
  async problem(): Promise<string | null> {
    const { body } = await fetchWhole('GET', `${this.shoal.admin}/api/v1/status`)
    return (JSON.parse(body.toString()) as { store: { problem: string | null } }).store.problem
  }

  /** The lines of the log with a text. */
  said(text: string): string[] {
    return this.shoal.process.output.stderr.split('\n').filter(line => line.includes(text))
  }

  async blobs(): Promise<string[]> {
    return readdir(join(this.data, 'blobs', 'sha256'))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.shoal.process.running) await this.shoal.stop()
    for (const folder of this.#mounts.toReversed()) await execute('umount', [folder])
    await this.shoal[Symbol.asyncDispose]()
    await this.internet.close()
  }
}

const warning = 'nothing more can be stored'
const hexOf = ({ digest }: Content) => digest.replace('sha256:', '')

diskTest('on a full disk pulls pass through, what is held is served, and one warning says so', async () => {
  await using world = await World.open(24, [1, 8, 8])
  const [small, large, other] = world.layers as [Content, Content, Content]
  await world.get(small)
  const filler = join(world.disk, 'filler')
  const full = await writeFile(filler, Buffer.alloc(64 * MiB)).catch((error: NodeJS.ErrnoException) => error.code)
  assert.is(full, 'ENOSPC')
  const range = { range: 'bytes=7000000-7000999' }
  await Promise.all([world.get(large), world.get(large), world.get(large, range), world.get(other), world.get(small)])
  const manifest = await world.shoal.get(`/v2/${repository}/manifests/latest`)
  assert.is(manifest.status, 200)
  assert.match((await world.problem()) ?? '', 'store.min_free')
  assert.is(world.said(warning).length, 1)
  assert.equal(await world.blobs(), [hexOf(small)])
  assert.match((await world.shoal.run(['status'])).stdout, 'is not kept')
  await rm(filler)
  await world.get(large)
  assert.is(await world.problem(), null)
  assert.ok((await world.blobs()).includes(hexOf(large)))
  await world.shoal.stop()
  await world.shoal.start()
  await world.internet.hub.down()
  await world.internet.gcr.down()
  await world.get(large)
  await world.get(small)
})

diskTest('a disk that becomes full in the middle of a blob costs no client anything', async () => {
  await using world = await World.open(64, [40])
  world.internet.gcr.intercept = ({ path }) =>
    path.includes('blobs') ? { kind: 'slow', bytesPerSecond: 20 * MiB } : undefined
  const [layer] = world.layers as [Content]
  const ranges = ['bytes=30000000-30000999', 'bytes=100-40000000'].map(range => ({ range }))
  // One that had bytes from beyond what the disk took in order may break off: they are lost, unverified.
  const beyond = world.get(layer, { range: 'bytes=41000000-41900000' }).catch(error => {
    assert.is(error.message, 'aborted')
  })
  const filler = join(world.disk, 'filler')
  const filling = until(
    async () => ((await readdir(join(world.data, 'ingest'))).length > 0 ? true : undefined),
    () => 'nothing arrives',
  ).then(() => writeFile(filler, Buffer.alloc(64 * MiB)).catch((error: NodeJS.ErrnoException) => error.code))
  const gets = [world.get(layer), world.get(layer), ...ranges.map(range => world.get(layer, range)), beyond]
  assert.is((await Promise.all([filling, ...gets]))[0], 'ENOSPC')
  assert.match((await world.problem()) ?? '', 'ENOSPC')
  assert.is(world.said(warning).length, 1)
  assert.equal(await world.blobs(), [])
  // The part that was in the way is gone.
  await until(
    async () => ((await readdir(join(world.data, 'ingest'))).length === 0 ? true : undefined),
    () => 'the part stays',
  )
  await rm(filler)
  await world.get(layer)
  assert.equal(await world.blobs(), [hexOf(layer)])
})

diskTest('where nothing can be written, pulls pass through', async () => {
  await using world = await World.open(24, [1, 3])
  const [held, layer] = world.layers as [Content, Content]
  await world.get(held)
  for (const folder of ['ingest', 'blobs']) {
    const path = join(world.data, folder)
    await world.mount('--bind', path, path)
    await execute('mount', ['-o', 'remount,ro,bind', path])
  }
  await Promise.all([world.get(layer), world.get(layer), world.get(held)])
  assert.match((await world.problem()) ?? '', 'EROFS')
  assert.is(world.said(warning).length, 1)
})

diskTest('with no descriptor left for a file, a pull passes through', async () => {
  await using world = await World.open(24, [1, 1])
  const [before, layer] = world.layers as [Content, Content]
  const { pid } = world.shoal.process
  // The connections that the pull needs stand already.
  await using stack = new AsyncDisposableStack()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  stack.defer(() => agent.destroy())
  const get = async ({ digest }: Content): Promise<Buffer> => {
    const outgoing = request(`${world.shoal.mirror}/v2/${repository}/blobs/${digest}`, { agent }).end()
    const [response] = await once(outgoing, 'response')
    return Buffer.concat(await response.toArray())
  }
  assert.ok((await get(before)).equals(bytesOf(before)))
  const open = await until(
    async () => {
      const names = await readdir(`/proc/${pid}/fd`)
      await new Promise(resolve => setTimeout(resolve, 200))
      return (await readdir(`/proc/${pid}/fd`)).length === names.length ? names : undefined
    },
    () => 'the descriptors do not settle',
  )
  // The lowest number that is free is given next; from the limit on there is none.
  const used = new Set(open.map(Number))
  let lowest = 0
  while (used.has(lowest)) lowest++
  await execute('prlimit', ['--pid', String(pid), `--nofile=${lowest}:`])
  assert.ok((await get(layer)).equals(bytesOf(layer)))
  await execute('prlimit', ['--pid', String(pid), '--nofile=4096:'])
  assert.match((await world.problem()) ?? '', 'EMFILE')
  assert.is(world.said(warning).length, 1)
})

test.run()
