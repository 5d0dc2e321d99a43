import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, type Content } from '../../scripts/internet/content.ts'
import type { Image } from '../../scripts/internet/image.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { testUnless, whyNot } from '../prerequisites.ts'
import { type Environment, ShoalProcess, until } from '../shoal-process.ts'
import { fetchWhole } from '../world.ts'

const MB = 1_000_000
const execute = promisify(execFile)
const diskTest = testUnless(whyNot(['mount', 'umount'], 'mount'))

/** A second pull of one tag is one only after so long, in ms. */
const betweenPulls = 1100

/** A daemon with little room. */
class World implements AsyncDisposable {
  readonly internet: Internet
  readonly shoal: ShoalProcess
  readonly images = new Map<string, Image>()
  data: string
  #disk: string | undefined

  private constructor(internet: Internet, shoal: ShoalProcess) {
    this.internet = internet
    this.shoal = shoal
    this.data = join(shoal.folder, 'data')
  }

  /** @param disk in MiB, if the data folder is to be on a small disk of its own */
  static async open(env: Environment, disk?: number): Promise<World> {
    const internet = await Internet.open()
    const shoal = await ShoalProcess.prepare({ internet, env })
    const world = new World(internet, shoal)
    if (disk !== undefined) {
      const folder = join(shoal.folder, 'disk')
      await mkdir(folder)
      await execute('mount', ['-t', 'tmpfs', '-o', `size=${disk}m`, 'none', folder])
      world.#disk = folder
      world.data = join(folder, 'data')
      Object.assign(shoal.env, { SHOAL_DATA_DIR: world.data })
    }
    await shoal.start()
    return world
  }

  /** @param layers sizes in bytes */
  async image(name: string, layers: readonly number[]): Promise<void> {
    const repository = `library/${name}`
    this.images.set(name, await this.internet.add({ repository, tag: 'latest', layers: [...layers] }))
  }

  async get(path: string, content: Content): Promise<void> {
    const { status, body } = await this.shoal.get(path)
    assert.is(status, 200, path)
    assert.ok(body.equals(bytesOf(content)), `${path} has the right bytes`)
  }

  /** As docker does. @throws if anything is wrong or missing */
  async pull(name: string): Promise<void> {
    const { manifest, config, layers, digest } = this.images.get(name)!
    const path = `/v2/library/${name}`
    await this.get(`${path}/manifests/latest`, manifest)
    await this.get(`${path}/manifests/${digest}`, manifest)
    await Promise.all([config, ...layers].map(blob => this.get(`${path}/blobs/${blob.digest}`, blob)))
  }

  /** Of files in `blobs/` and `ingest/`, in bytes. */
  async used(): Promise<number> {
    let bytes = 0
    for (const folder of ['blobs/sha256', 'ingest'])
      for (const name of await readdir(join(this.data, folder)))
        bytes += await stat(join(this.data, folder, name)).then(
          ({ size }) => size,
          () => 0,
        )
    return bytes
  }

  async held(): Promise<Set<string>> {
    return new Set((await readdir(join(this.data, 'blobs', 'sha256'))).map(hex => `sha256:${hex}`))
  }

  /** Whether an image is held whole, or not at all. @throws if its manifest is held without what it needs */
  async isWhole(name: string): Promise<boolean> {
    const { digest, config, layers } = this.images.get(name)!
    const held = await this.held()
    if (!held.has(digest)) return false
    for (const blob of [config, ...layers]) assert.ok(held.has(blob.digest), `${name} is held whole`)
    return true
  }

  async metric(name: string): Promise<number> {
    const { body } = await fetchWhole('GET', `${this.shoal.admin}/metrics`)
    const lines = body
      .toString()
      .split('\n')
      .filter(line => line.startsWith(name))
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  }

  /** The daemon's own answer to a command. */
  async run(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.shoal.run(args)
    assert.is(status, 0, stderr)
    return stdout
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.shoal.process.running) await this.shoal.stop()
    if (this.#disk !== undefined) await execute('umount', [this.#disk])
    await this.shoal[Symbol.asyncDispose]()
    await this.internet.close()
  }
}

test('what is pulled often is held whole when much else was pulled, and can be pulled offline', async () => {
  await using world = await World.open({ SHOAL_STORE_MAX_SIZE: '20MB' })
  const often = ['often-1', 'often-2']
  const seldom = Array.from({ length: 12 }, (_, i) => `seldom-${i}`)
  for (const name of [...often, ...seldom]) await world.image(name, [3 * MB, MB, 20_000])
  for (let pulls = 0; pulls < 4; pulls++) {
    for (const name of often) await world.pull(name)
    await setTimeout(betweenPulls)
  }
  for (const name of seldom) await world.pull(name)
  for (const name of [...often, ...seldom]) await world.isWhole(name)
  assert.ok((await world.used()) <= 20 * MB, `${await world.used()} bytes are used`)
  assert.ok((await world.metric('shoal_evictions_total')) > 0)
  const top = JSON.parse(await world.run('top', '--json')) as { images: { name: string; here: number }[] }
  assert.equal(new Set(top.images.slice(0, 2).map(({ name }) => name)), new Set(often.map(name => `${name}:latest`)))
  await Promise.all([world.internet.hub.down(), world.internet.gcr.down()])
  for (const name of often) await world.pull(name)
  await world.shoal.stop()
  await world.shoal.start()
  for (const name of often) await world.pull(name)
  const after = JSON.parse(await world.run('top', '--json')) as typeof top
  assert.ok(after.images[0]!.here > 3, 'what was counted is known after a restart')
})

test('who reads something gets all of it while everything else goes', async () => {
  await using world = await World.open({ SHOAL_STORE_MAX_SIZE: '20MB' })
  await world.image('read', [12 * MB])
  await world.pull('read')
  const layer = world.images.get('read')!.layers[0]!
  const outgoing = request(`${world.shoal.mirror}/v2/library/read/blobs/${layer.digest}`, { agent: false }).end()
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  const pieces: Buffer[] = [await firstOf(response)]
  for (let i = 0; i < 6; i++) {
    await world.image(`other-${i}`, [6 * MB])
    await world.pull(`other-${i}`)
    await world.pull(`other-${i}`)
  }
  assert.ok((await world.held()).has(layer.digest), 'it stays as long as it is read')
  for await (const piece of response) pieces.push(piece as Buffer)
  assert.ok(Buffer.concat(pieces).equals(bytesOf(layer)))
  assert.ok((await world.used()) <= 20 * MB)
})

/** The first piece of a body; the rest waits. */
async function firstOf(response: IncomingMessage): Promise<Buffer> {
  for (;;) {
    const piece = response.read() as Buffer | null
    if (piece) return piece
    await once(response, 'readable')
  }
}

test('kill -9 in the middle of it leaves no image in pieces', async () => {
  await using world = await World.open({ SHOAL_STORE_MAX_SIZE: '12MB' })
  const names = Array.from({ length: 8 }, (_, i) => `image-${i}`)
  for (const name of names) await world.image(name, [2 * MB, MB, 100_000, 1000])
  const pulled = new Set<string>()
  let gone = 0
  for (let round = 0; round < 12; round++) {
    const pulling = (async () => {
      for (let i = 0; ; i++) {
        const name = names[(3 * round + i) % names.length]!
        pulled.delete(name)
        await world.pull(name)
        pulled.add(name)
      }
    })().catch((error: Error) => error)
    await setTimeout(100 + 41 * round)
    world.shoal.process.kill('SIGKILL')
    await world.shoal.process.end()
    assert.not.instance(await pulling, assert.Assertion)
    // What was under way may be there in part: its manifest comes first.
    for (const name of pulled) if (!(await world.isWhole(name))) gone++
    await world.shoal.start()
    for (const name of pulled) await world.isWhole(name)
    assert.ok((await world.used()) <= 12 * MB + 4 * MB, 'what was cut off is one image at most')
    assert.is((await world.shoal.get('/v2/')).status, 200)
  }
  assert.ok(gone > 0, 'images have gone before the kills')
})

diskTest('when another program fills the disk, what is worth least goes, and what is pinned stays', async () => {
  await using world = await World.open({ SHOAL_STORE_MIN_FREE: '16MiB' }, 64)
  for (const name of ['pinned', 'seldom', 'often']) await world.image(name, [8 * MB])
  for (const name of ['pinned', 'seldom', 'often']) await world.pull(name)
  await world.run('pin', 'pinned')
  await setTimeout(betweenPulls)
  await world.pull('often')
  const filler = join(world.data, '..', 'filler')
  await writeFile(filler, Buffer.alloc(28 * MB))
  await until(
    async () => ((await world.isWhole('seldom')) ? undefined : true),
    () => 'nothing goes',
  )
  assert.ok(await world.isWhole('pinned'))
  assert.ok(await world.isWhole('often'))
  await writeFile(filler, Buffer.alloc(52 * MB)).catch(() => {})
  await until(
    async () => ((await world.isWhole('often')) ? undefined : true),
    () => 'nothing more goes',
  )
  assert.ok(await world.isWhole('pinned'))
  await world.pull('seldom')
  assert.not(await world.isWhole('seldom'))
  assert.match(await world.run('status'), 'store.min_free')
  await rm(filler)
  await until(
    async () => {
      await world.pull('seldom')
      return (await world.isWhole('seldom')) || undefined
    },
    () => 'it is not kept though there is room again',
  )
})

test('when everything is pinned, pulls pass through, and a warning says so', async () => {
  await using world = await World.open({ SHOAL_STORE_MAX_SIZE: '20MB' })
  for (const name of ['pinned-1', 'pinned-2']) {
    await world.image(name, [9 * MB])
    await world.pull(name)
    await world.run('pin', name)
  }
  await world.image('more', [8 * MB])
  await world.pull('more')
  await world.pull('more')
  assert.ok((await world.isWhole('pinned-1')) && (await world.isWhole('pinned-2')))
  assert.ok((await world.used()) <= 20 * MB)
  assert.match(await world.run('status'), 'pinned or in use')
  assert.is(world.shoal.process.output.stderr.match(/store\.max_size is reached/g)?.length, 1)
  await world.run('unpin', 'pinned-1')
  await setTimeout(betweenPulls)
  await world.pull('more')
  assert.ok(await world.isWhole('more'))
  assert.not.match(await world.run('status'), 'pinned or in use')
  const index = JSON.parse(await readFile(join(world.data, 'index.json'), 'utf8')) as { manifests: unknown[] }
  assert.ok(index.manifests.length >= 2)
})

test('what is larger than the store passes through, and the rest stays', async () => {
  await using world = await World.open({ SHOAL_STORE_MAX_SIZE: '20MB' })
  await world.image('small', [4 * MB])
  await world.image('large', [21 * MB, 1000])
  await world.pull('small')
  await world.pull('large')
  assert.ok(await world.isWhole('small'))
  assert.ok((await world.used()) <= 20 * MB)
  await until(
    async () => ((await world.held()).has(world.images.get('large')!.digest) ? undefined : true),
    () => 'the manifest stays without what it needs',
  )
})

test.run()
