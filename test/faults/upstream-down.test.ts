import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Fault } from '../../scripts/internet/fault.ts'
import type { Entry } from '../../scripts/internet/log.ts'
import { Download } from '../download.ts'
import { until } from '../shoal-process.ts'
import { fetchWhole, World } from '../world.ts'

const MiB = 1024 * 1024

type UpstreamStatus = { endpoint: string; state: string; requests: number; errors: number }

async function upstream({ admin }: World, url: string): Promise<UpstreamStatus> {
  const { body } = await fetchWhole('GET', `${admin}/api/v1/status`)
  const { upstreams } = JSON.parse(body.toString()) as { upstreams: UpstreamStatus[] }
  const found = upstreams.find(({ endpoint }) => endpoint === url)
  if (!found) throw new Error(`no ${url}`)
  return found
}

/** Pulls an image: its tag, and all that its manifest points to. */
async function pull(world: World, repository: string): Promise<void> {
  const { images } = world.internet
  const { manifest, config, layers } = images.image(repository)
  const found = await world.get(`/v2/${repository}/manifests/latest`)
  assert.is(found.status, 200)
  assert.ok(found.body.equals(manifest.source as Buffer))
  const blobs = [config, ...layers]
  const answers = await Promise.all(blobs.map(({ digest }) => world.get(`/v2/${repository}/blobs/${digest}`)))
  for (const [index, { status, body }] of answers.entries()) {
    assert.is(status, 200)
    assert.ok(body.equals(blobs[index]!.source as Buffer))
  }
}

const together: [name: string, run: () => Promise<void>][] = []
let running: Map<string, Promise<PromiseSettledResult<void>[]>> | undefined

/** A test that waits for deadlines of some seconds; all of these wait at the same time, each in its own world. */
function testTogether(name: string, run: () => Promise<void>): void {
  together.push([name, run])
}

test('a mirror.gcr.io that is down is passed over, and no longer asked once that is known', async () => {
  await using world = await World.open()
  const { gcr } = world.internet
  await gcr.down()
  await pull(world, 'library/forty')
  const { state, errors, requests } = await upstream(world, gcr.url)
  assert.is(state, 'open')
  // All that asked at once before it was known.
  assert.ok(errors <= requests && requests <= 45)
  await world.restart()
  const { layers } = await world.internet.add({
    repository: 'library/other',
    tag: 'latest',
    layers: [1, 2, 3, 4, 5, 6],
  })
  for (const { digest } of layers) assert.is((await world.get(`/v2/library/other/blobs/${digest}`)).status, 200)
  assert.is((await upstream(world, gcr.url)).requests, 1)
})

testTogether('a mirror.gcr.io that begins blobs and falls silent is soon not asked for blobs', async () => {
  await using world = await World.open()
  const { gcr, log } = world.internet
  const { layers } = await world.internet.add({
    repository: 'library/silent',
    tag: 'latest',
    layers: [200_000, 200_001, 200_002, 200_003],
  })
  gcr.repositories.add('library/silent')
  gcr.intercept = entry => (entry.path.includes('/blobs/') ? { kind: 'slow', bytesPerSecond: 0.001 } : undefined)
  for (const { digest } of layers) assert.is((await world.get(`/v2/library/silent/blobs/${digest}`)).status, 200)
  assert.is(log.requests({ server: 'gcr', path: '/blobs/' }).length, 1)
})

test('a mirror.gcr.io that comes back is used again', async () => {
  await using world = await World.open()
  const { gcr, images } = world.internet
  const { layers } = images.image('library/forty')
  const path = (index: number) => `/v2/library/forty/blobs/${layers[index]!.digest}`
  await gcr.down()
  for (const index of [0, 1, 2]) assert.is((await world.get(path(index))).status, 200)
  assert.is((await upstream(world, gcr.url)).state, 'open')
  await gcr.up()
  await until(
    async () => ((await upstream(world, gcr.url)).state === 'half-open' ? true : undefined),
    () => 'the mirror is given up for good',
  )
  const { headers } = await world.get(path(3))
  assert.is(headers['cache-status'], `shoal; fwd=miss; detail="${new URL(gcr.url).host}"`)
  assert.is((await upstream(world, gcr.url)).state, 'closed')
})

for (const [how, fault] of [
  ['fails', { kind: 'status', status: 500 }],
  ['is unavailable', { kind: 'status', status: 503 }],
  ['limits the rate', { kind: 'status', status: 429 }],
  ['wants a login', { kind: 'status', status: 401 }],
  ['forbids', { kind: 'status', status: 403 }],
  ['is a teapot', { kind: 'status', status: 418 }],
  ['breaks off at once', { kind: 'cut', at: 0 }],
] as const satisfies [string, Fault][])
  test(`a mirror.gcr.io that ${how} keeps nothing from the client`, async () => {
    await using world = await World.open()
    world.internet.gcr.intercept = () => fault
    await pull(world, 'library/forty')
  })

testTogether(
  'a mirror.gcr.io that never answers keeps nothing from the client, and is soon no longer asked',
  async () => {
    await using world = await World.open()
    const { gcr, images, log } = world.internet
    gcr.intercept = () => ({ kind: 'hang' })
    const { layers } = images.image('library/forty')
    const path = (index: number) => `/v2/library/forty/blobs/${layers[index]!.digest}`
    for (const { status } of await Promise.all([0, 1, 2].map(index => world.get(path(index))))) assert.is(status, 200)
    assert.is((await upstream(world, gcr.url)).state, 'open')
    for (const index of [3, 4, 5]) assert.is((await world.get(path(index))).status, 200)
    assert.is(log.requests({ server: 'gcr' }).length, 3)
  },
)

test('with the hub down, what mirror.gcr.io has is still to be had, and the rest is a 404', async () => {
  await using world = await World.open()
  const { hub, images } = world.internet
  await hub.down()
  const { layers } = images.image('library/forty')
  assert.is((await world.get('/v2/library/forty/manifests/latest')).status, 200)
  assert.is((await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)).status, 200)
  // mirror.gcr.io lacks this one.
  const lacking = await world.get(`/v2/library/forty/blobs/${layers[20]!.digest}`)
  assert.is(lacking.status, 404)
  assert.match(lacking.body.toString(), /cannot be reached|given a rest/)
  await hub.up()
  await until(
    async () => {
      const { status } = await world.get(`/v2/library/forty/blobs/${layers[20]!.digest}`)
      return status === 200 ? true : undefined
    },
    () => 'the hub is not asked again',
  )
})

test('with everything down, what is held is served, and the rest is a 404', async () => {
  await using world = await World.open({ settings: { 'tags-ttl': '1ms' } })
  const { hub, gcr, images } = world.internet
  await pull(world, 'library/forty')
  await Promise.all([hub.down(), gcr.down()])
  await pull(world, 'library/forty')
  await world.restart()
  await pull(world, 'library/forty')
  const [layer] = images.image('library/zstd').layers
  for (const path of ['/v2/library/zstd/manifests/latest', `/v2/library/zstd/blobs/${layer!.digest}`])
    for (const ask of ['get', 'head'] as const) assert.is((await world[ask](path)).status, 404)
})

testTogether('with everything silent, a client is told so before long, and hardly anybody is asked again', async () => {
  await using world = await World.open()
  const { hub, gcr, images, log } = world.internet
  hub.intercept = gcr.intercept = () => ({ kind: 'hang' })
  const { layers } = images.image('library/forty')
  const answers = await Promise.all(
    layers.slice(0, 4).map(({ digest }) => world.get(`/v2/library/forty/blobs/${digest}`)),
  )
  for (const { status, body } of answers) {
    assert.is(status, 404)
    assert.match(body.toString(), /no source of docker.io has answered within 2.9 s/)
  }
  log.clear()
  hub.intercept = gcr.intercept = () => ({ kind: 'status', status: 500 })
  assert.is((await world.get(`/v2/library/forty/blobs/${layers[5]!.digest}`)).status, 404)
  // While one endpoint was waited for, the rest of the other may have come to its end.
  assert.ok(log.entries.length <= 2)
})

test('with the token service down, what mirror.gcr.io has is to be had, and the rest is a 404 until it is back', async () => {
  await using world = await World.open()
  const { hub, images } = world.internet
  const { layers } = images.image('library/forty')
  const path = `/v2/library/forty/blobs/${layers[20]!.digest}`
  hub.intercept = ({ server }) => (server === 'token' ? { kind: 'status', status: 503 } : undefined)
  assert.is((await world.get('/v2/library/forty/manifests/latest')).status, 200)
  assert.is((await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)).status, 200)
  const lacking = await world.get(path)
  assert.is(lacking.status, 404)
  assert.match(lacking.body.toString(), /gives no token/)
  hub.intercept = undefined
  await until(
    async () => ((await world.get(path)).status === 200 ? true : undefined),
    () => 'the token service is not asked again',
  )
})

for (const [what, fault] of [
  ['nonsense', { kind: 'corrupt', at: 0 }],
  ['half an answer', { kind: 'cut', at: 5 }],
  ['a refusal', { kind: 'status', status: 401 }],
  ['too many requests', { kind: 'status', status: 429 }],
] as const satisfies [string, Fault][])
  test(`a token service that answers with ${what} is a 404 for the client`, async () => {
    await using world = await World.open()
    const { hub } = world.internet
    hub.intercept = ({ server }) => (server === 'token' ? fault : undefined)
    const { status, headers } = await world.get('/v2/library/zstd/manifests/latest')
    assert.is(status, 404)
    assert.is(headers['www-authenticate'], undefined)
    hub.intercept = undefined
    await until(
      async () => ((await world.get('/v2/library/zstd/manifests/latest')).status === 200 ? true : undefined),
      () => 'the token service is not asked again',
    )
  })

test('many who need a token share one request for it, and the token is used for all that follow', async () => {
  await using world = await World.open()
  const { log, images } = world.internet
  const { layers, config } = images.image('library/zstd')
  const path = '/v2/library/zstd/blobs/'
  await Promise.all(layers.map(({ digest }) => world.get(path + digest)))
  await world.get(path + config.digest)
  await world.get('/v2/library/zstd/manifests/latest')
  assert.is(log.requests({ server: 'token' }).length, 1)
})

test('a token that expires in the middle of a pull is renewed', async () => {
  await using world = await World.open()
  const { hub, images, log } = world.internet
  const { layers } = images.image('library/zstd')
  await world.get('/v2/library/zstd/manifests/latest')
  for (const { digest } of layers) {
    hub.expireTokens()
    assert.is((await world.get(`/v2/library/zstd/blobs/${digest}`)).status, 200)
  }
  assert.is(log.requests({ server: 'token' }).length, 1 + layers.length)
})

test('a token and an address at the CDN that expire in the middle of a blob are renewed', async () => {
  await using world = await World.open()
  const { hub, log } = world.internet
  const { layers } = await world.internet.add({ repository: 'library/long', tag: 'latest', layers: [4 * MiB] })
  const [layer] = layers
  let asked = 0
  hub.intercept = ({ server }) => (server === 'cdn' && asked++ === 0 ? { kind: 'cut', at: 2 * MiB } : undefined)
  await world.get('/v2/library/long/manifests/latest')
  log.on('request', ({ server }) => {
    if (server !== 'cdn' || asked > 1) return
    hub.expireTokens()
  })
  const download = await Download.open(`${world.mirror}/v2/library/long/blobs/${layer!.digest}`)
  hub.expireUrls()
  assert.ok((await download.whole()).equals(layer!.source as Buffer))
  assert.is(asked, 2)
})

for (const failing of ['hub', 'token', 'cdn'] as const)
  for (const status of [500, 503])
    test(`a ${status} of the ${failing} that comes once is not noticed`, async () => {
      await using world = await World.open()
      const { hub, gcr } = world.internet
      await gcr.down()
      const failed = new Set<string>()
      hub.intercept = ({ server, method, path }: Entry) => {
        const key = `${method} ${path.split('?')[0]}`
        if (server !== failing || failed.has(key)) return undefined
        failed.add(key)
        return { kind: 'status', status }
      }
      await pull(world, 'library/zstd')
      assert.ok(failed.size > 0)
    })

testTogether('a body that falls silent in the middle is taken up elsewhere', async () => {
  await using world = await World.open()
  const { gcr, log } = world.internet
  const { layers } = await world.internet.add({ repository: 'library/long', tag: 'latest', layers: [2 * MiB] })
  gcr.repositories.add('library/long')
  const [layer] = layers
  // As good as silent: the next piece would come in an hour.
  gcr.intercept = ({ path }) => (path.includes('/blobs/') ? { kind: 'slow', bytesPerSecond: 0.0003 } : undefined)
  await world.get('/v2/library/long/manifests/latest')
  const { body } = await world.get(`/v2/library/long/blobs/${layer!.digest}`)
  assert.ok(body.equals(layer!.source as Buffer))
  assert.ok(log.requests({ server: 'cdn' }).length > 0)
})

for (const [name] of together)
  test(name, async () => {
    running ??= new Map(together.map(([name, run]) => [name, Promise.allSettled([run()])]))
    const [outcome] = (await running.get(name)) ?? []
    if (outcome?.status === 'rejected') throw outcome.reason
  })

test.run()
