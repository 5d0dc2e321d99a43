import type { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { ShoalProcess } from '../shoal-process.ts'
import type { Client } from './client.ts'
import { ClientWorld } from './client-world.ts'

/** What every client is to do, whatever its way to ask. */
const pulls: Record<string, (world: ClientWorld) => Promise<void>> = {
  'cold: each blob comes through Shoal, and once from upstream': async world => {
    assert.equal(await world.pull(), { local: 0, upstream: world.bytes })
    const got = (await world.asked()).filter(line => line.includes(' GET '))
    assert.is(got.length, 1 + world.blobs.length, got.join('\n'))
    for (const { digest } of [world.image.manifest, ...world.blobs]) {
      const hex = digest.slice('sha256:'.length)
      assert.ok(
        got.some(line => line.includes(hex)),
        `${digest} did not come from upstream`,
      )
    }
  },

  'warm: with its own store emptied, upstream is asked for nothing but the tag': async world => {
    await world.pull()
    await world.client.forget()
    await world.asked()
    assert.is((await world.pull()).upstream, 0)
    const asked = await world.asked()
    assert.ok(
      asked.every(line => / HEAD .*\/manifests\/latest$/.test(line)),
      asked.join('\n'),
    )
  },

  'after a cut: upstream breaks off in the middle of a layer, and the client has the whole of it': async world => {
    const { internet, image } = world
    const [layer] = image.layers
    const path = layer?.digest.slice('sha256:'.length) ?? 'no layer'
    let cuts = 1
    internet.hub.intercept = request =>
      request.server === 'cdn' && request.path.includes(path) && cuts-- > 0 ? { kind: 'cut', at: 700_000 } : undefined
    assert.equal(await world.pull(), { local: 0, upstream: world.bytes })
    const [broken, resumed, ...more] = internet.log.requests({ server: 'cdn', path })
    assert.is(broken?.bytes, 700_000)
    assert.match(resumed?.range ?? '', /^bytes=[1-9]\d*-/)
    assert.equal(more, [])
  },

  'hub gone: what Shoal holds is pulled with no internet at all': async world => {
    await world.pull()
    await world.client.forget()
    await world.asked()
    await world.internetDown()
    assert.is((await world.pull()).upstream, 0)
    assert.equal(await world.asked(), [])
  },

  'for what no source has it goes to Docker Hub itself': async ({ client }) => {
    const { status } = await client.pull('library/nonesuch')
    assert.is.not(status, 0)
    assert.equal([...new Set(client.wanted)], ['registry-1.docker.io:443'])
  },

  'with Shoal stopped it goes to Docker Hub itself': async ({ client, shoal, repository }) => {
    assert.is(await shoal.stop(), 0)
    const { status } = await client.pull(repository)
    assert.is.not(status, 0)
    assert.equal([...new Set(client.wanted)], ['registry-1.docker.io:443'])
  },
}

/** Adds a test of each of these pulls with the clients that `start` gives. */
export function testPulls(
  clientTest: typeof test | typeof test.skip,
  name: string,
  start: (shoal: ShoalProcess) => Promise<Client>,
): void {
  for (const [sentence, pull] of Object.entries(pulls))
    clientTest(`${name}, ${sentence}`, async () => {
      await using world = await ClientWorld.open(start)
      await pull(world)
    })
}
