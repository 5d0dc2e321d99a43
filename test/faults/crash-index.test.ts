import { randomBytes } from 'node:crypto'
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, type Content } from '../../scripts/internet/content.ts'
import { World } from '../world.ts'

const images = ['library/forty', 'library/zstd'] as const
const noiseRuns = 12

/** A world that holds images, with nobody to ask any more, and its index as it was when the daemon stopped. */
class Stopped implements AsyncDisposable {
  readonly world: World
  readonly index: string
  readonly saved: string
  cases = 0
  anew = 0

  private constructor(world: World) {
    this.world = world
    this.index = join(world.data, 'index')
    this.saved = join(world.folder, 'index-saved')
  }

  static async open(): Promise<Stopped> {
    const stopped = new Stopped(await World.open({ settings: { 'tags-ttl': '1h' } }))
    const { world, index, saved } = stopped
    for (const repository of images) await stopped.#pull(repository)
    await world.get('/v2/library/forty/tags/list')
    // At the second start Level turns its log into a table; what comes then is in a log.
    await world.restart()
    await world.get('/v2/library/zstd/tags/list')
    await world.daemon.close()
    await cp(index, saved, { recursive: true })
    await Promise.all([world.internet.hub.down(), world.internet.gcr.down()])
    return stopped
  }

  /** The files of one kind in the index. */
  async files(kind: string): Promise<string[]> {
    const names = (await readdir(this.saved)).filter(name => name.startsWith(kind) || name.endsWith(`.${kind}`))
    assert.ok(names.length > 0, `the index has a ${kind}`)
    return names
  }

  /** Starts with an index that was damaged, and checks that all is there. */
  async survives(what: string, damage: (index: string) => Promise<void>): Promise<void> {
    const { world } = this
    await rm(this.index, { recursive: true, force: true })
    await cp(this.saved, this.index, { recursive: true })
    await damage(this.index)
    world.log.length = 0
    await world.start()
    try {
      for (const repository of images) await this.#pull(repository)
      const [warning, ...more] = world.log.filter(line => JSON.parse(line).level >= 40)
      if (warning !== undefined) {
        this.anew++
        assert.match(warning, /index cannot be read; it is made anew from the blobs/)
      }
      assert.equal(more, [])
    } catch (error) {
      const reason = error instanceof Error ? error.message : error
      throw new Error(`${what}: ${reason}\n${world.log.join('')}`, { cause: error })
    } finally {
      await world.daemon.close()
    }
    this.cases++
  }

  /** Pulls an image, by its tag, by its digest, and all of its blobs. */
  async #pull(repository: string): Promise<void> {
    const { world } = this
    const { manifest, config, layers } = world.internet.images.image(repository)
    const get = async (path: string, content: Content) => {
      const { status, headers, body } = await world.get(`/v2/${repository}/${path}`)
      assert.is(status, 200, path)
      assert.ok(body.equals(bytesOf(content)), path)
      return headers['content-type']
    }
    for (const reference of ['latest', manifest.digest])
      assert.is(await get(`manifests/${reference}`, manifest), manifest.mediaType)
    for (const blob of [config, ...layers]) await get(`blobs/${blob.digest}`, blob)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]()
  }
}

const change = async (path: string, to: (bytes: Buffer) => Buffer) => writeFile(path, to(await readFile(path)))

const damages: Readonly<Record<string, (path: string) => Promise<void>>> = {
  deleted: path => rm(path),
  emptied: path => writeFile(path, ''),
  'cut in half': path => change(path, bytes => bytes.subarray(0, bytes.length >> 1)),
  'cut short by a byte': path => change(path, bytes => bytes.subarray(0, -1)),
  zeroed: path => change(path, bytes => Buffer.alloc(bytes.length)),
  'noise from the middle on': path =>
    change(path, bytes => Buffer.concat([bytes.subarray(0, bytes.length >> 1), randomBytes((bytes.length + 1) >> 1)])),
  noise: path => change(path, bytes => randomBytes(bytes.length)),
}

const kinds = ['CURRENT', 'MANIFEST', 'log', 'ldb'] as const

test('whatever is lost of the index, images are held, with their tags', async () => {
  await using stopped = await Stopped.open()
  const survives = (what: string, damage: (index: string) => Promise<void>) => stopped.survives(what, damage)
  await survives('deleted', index => rm(index, { recursive: true }))
  for (const kind of kinds)
    for (const [how, damage] of Object.entries(damages))
      for (const name of await stopped.files(kind)) await survives(`${name} ${how}`, index => damage(join(index, name)))
  for (const kind of kinds)
    for (const name of await stopped.files(kind))
      for (let run = 0; run < noiseRuns; run++) {
        let at = 0
        const flip = (bytes: Buffer) => {
          at = Math.floor((bytes.length * (run + Math.random())) / noiseRuns)
          bytes[at]! ^= 1 + Math.floor(Math.random() * 255)
          return bytes
        }
        await survives(`${name} with a wrong byte`, index => change(join(index, name), flip)).catch(error => {
          throw new Error(`at ${at}: ${error.message}`, { cause: error })
        })
      }
  console.log(`measured: ${stopped.cases} damaged indexes, ${stopped.anew} of them made anew with a warning`)
})

test.run()
