import type { Digest } from '@shoal/oci/digest'
import { digestOf } from '@shoal/oci/digest'
import { formatName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MirrorWorld, name, never } from '../../../test/mirror-world.ts'
import { imageOf } from '../../../test/scripted-registry.ts'
import { Pulls } from './pulls.ts'
import { MirrorServer } from './server.ts'

const image = imageOf('app')
const layer = digestOf(image.layer)
const full = `${formatName(name)}:latest`

/** A mirror that clients ask by HTTP, and what is told of it. */
class Mirror implements AsyncDisposable {
  readonly world: MirrorWorld
  readonly pulled: string[] = []
  readonly used: Digest[] = []
  now = 0
  readonly #server: MirrorServer
  #url = ''

  private constructor(world: MirrorWorld) {
    this.world = world
    const now = () => this.now
    this.#server = new MirrorServer({
      resolver: world.resolver,
      pulls: new Pulls({
        manifest: digest => world.store.hotManifest(digest)?.manifest,
        now,
        onPulled: pulled => void this.pulled.push(pulled),
      }),
      onUsed: digest => void this.used.push(digest),
      onServed: () => {},
      now,
    })
  }

  static async open(): Promise<Mirror> {
    const world = await MirrorWorld.open()
    world.remote.put(name.repository, 'latest', image)
    const mirror = new Mirror(world)
    const { port } = await mirror.#server.listen('127.0.0.1', 0)
    mirror.#url = `http://127.0.0.1:${port}/v2/${name.repository}`
    return mirror
  }

  async ask(method: string, path: string, headers: Record<string, string> = {}): Promise<number> {
    const response = await fetch(`${this.#url}/${path}`, { method, headers })
    await response.arrayBuffer()
    return response.status
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.close(0)
    await this.world[Symbol.asyncDispose]()
  }
}

test('a pull by tag counts once, in however many requests, and again when the next begins', async () => {
  await using mirror = await Mirror.open()
  for (const pulls of [1, 2]) {
    assert.is(await mirror.ask('HEAD', 'manifests/latest'), 200)
    assert.is(await mirror.ask('GET', 'manifests/latest'), 200)
    assert.is(await mirror.ask('GET', `manifests/${image.digest}`), 200)
    assert.is(await mirror.ask('GET', `blobs/${layer}`), 200)
    assert.equal(mirror.pulled, Array(pulls).fill(full))
    mirror.now += 5000
  }
})

test('a HEAD by tag is a pull, also if nothing else follows', async () => {
  await using mirror = await Mirror.open()
  await mirror.ask('HEAD', 'manifests/latest')
  assert.equal(mirror.pulled, [full])
})

test('a pull by digest counts, also of a manifest that is at hand', async () => {
  await using mirror = await Mirror.open()
  for (let pull = 0; pull < 2; pull++) {
    await mirror.ask('HEAD', `manifests/${image.digest}`)
    await mirror.ask('GET', `manifests/${image.digest}`)
    mirror.now += 5000
  }
  const pulled = `${formatName(name)}@${image.digest}`
  assert.equal(mirror.pulled, [pulled, pulled])
})

test('what is refused, and what is asked for by others than clients, is no pull', async () => {
  await using mirror = await Mirror.open()
  const { resolver } = mirror.world
  assert.is(await mirror.ask('HEAD', 'manifests/other'), 404)
  assert.is(await mirror.ask('GET', `manifests/${layer}`), 404)
  assert.is(await mirror.ask('GET', `blobs/${digestOf(image.config)}`), 200)
  await resolver.checkTag(formatName(name), 'latest')
  await resolver.errand({ name, digest: image.digest, kind: 'manifest' })
  assert.ok(mirror.world.store.sizeOf(image.digest))
  await resolver.taggedManifest(name, 'latest', never)
  assert.is(await mirror.ask('GET', `manifests/latest`, { range: 'bytes=100000-' }), 416)
  assert.equal(mirror.pulled, [])
})

test('it tells what was held and goes to a client, and not what is only told of, or arrives', async () => {
  await using mirror = await Mirror.open()
  await mirror.ask('GET', 'manifests/latest')
  await mirror.ask('GET', `blobs/${layer}`)
  await mirror.ask('HEAD', 'manifests/latest')
  await mirror.ask('HEAD', `blobs/${layer}`)
  await mirror.world.store.transfer(layer)?.settled
  assert.equal(mirror.used, [])
  await mirror.ask('GET', 'manifests/latest')
  await mirror.ask('GET', `manifests/${image.digest}`)
  await mirror.ask('GET', `blobs/${layer}`)
  assert.equal(mirror.used, [image.digest, image.digest, layer])
})

test.run()
