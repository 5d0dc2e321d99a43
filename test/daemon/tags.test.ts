import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Fault } from '../../scripts/internet/fault.ts'
import { until } from '../shoal-process.ts'
import { type Answer, fetchWhole, World } from '../world.ts'

const stale = 'shoal; hit; detail=stale'
const local = 'shoal; hit; detail=local'
const path = '/v2/library/busybox/manifests/1'

/** With every tag checked anew at each request. */
function openWorld(settings: Readonly<Record<string, string>> = {}): Promise<World> {
  return World.open({ settings: { 'tags-ttl': '1ms', ...settings } })
}

function digestOf({ status, headers }: Answer): string | undefined {
  assert.is(status, 200)
  return headers['docker-content-digest'] as string | undefined
}

/** What `library/busybox:1` is at mirror.gcr.io, whose tag lags, and at Docker Hub. */
function digests({ internet: { images, gcr } }: World): { lagging: string; current: string } {
  const lagging = gcr.tags.get('library/busybox:1')
  const current = images.repositories.get('library/busybox')?.tags.get('1')
  if (lagging === undefined || current === undefined) throw new Error('no such tag')
  return { lagging, current }
}

/** Resolves once Docker Hub has been asked what a tag is so many times, and that is over. */
async function hubAsked({ internet: { log } }: World, times: number): Promise<void> {
  const asked = () => log.requests({ server: 'hub', method: 'HEAD', path: '/manifests/', closed: true, status: 200 })
  await until(
    () => (asked().length >= times ? true : undefined),
    () => 'the hub was not asked',
  )
}

function everywhere({ internet: { hub, gcr } }: World, fault: Fault | undefined): void {
  hub.intercept = gcr.intercept = fault && (() => fault)
}

test('a tag that was seen within its time is believed, without a question', async () => {
  await using world = await World.open({ settings: { 'tags-ttl': '1h' } })
  const { log, images } = world.internet
  const first = digestOf(await world.get('/v2/library/forty/manifests/latest'))
  await hubAsked(world, 1)
  await log.idle()
  log.clear()
  const { digest } = await world.internet.add({ repository: 'library/forty', tag: 'latest', layers: [10] })
  for (const ask of ['get', 'head'] as const) {
    const again = await world[ask]('/v2/library/forty/manifests/latest')
    assert.is(digestOf(again), first)
    assert.is(again.headers['cache-status'], local)
  }
  assert.is(log.entries.length, 0)
  assert.is(images.repositories.get('library/forty')?.tags.get('latest'), digest)
  await world.restart()
  assert.is(digestOf(await world.get('/v2/library/forty/manifests/latest')), first)
  assert.is(log.entries.length, 0)
})

test('a tag that was seen longer ago is asked for again by HEAD, and content that is held is not fetched', async () => {
  await using world = await openWorld({ 'tags-authority': 'never' })
  const { log } = world.internet
  await world.get('/v2/library/forty/manifests/latest')
  log.clear()
  const again = await world.get('/v2/library/forty/manifests/latest')
  assert.is(again.headers['cache-status'], local)
  assert.equal(
    log.entries.map(({ server, method }) => `${method} ${server}`),
    ['HEAD gcr'],
  )
})

test('a tag that has moved is followed', async () => {
  await using world = await openWorld({ 'tags-authority': 'never' })
  await world.get('/v2/library/forty/manifests/latest')
  const { digest, manifest } = await world.internet.add({ repository: 'library/forty', tag: 'latest', layers: [10] })
  const head = await world.head('/v2/library/forty/manifests/latest')
  assert.is(digestOf(head), digest)
  assert.is(head.headers['content-length'], String(manifest.size))
  const moved = await world.get('/v2/library/forty/manifests/latest')
  assert.is(digestOf(moved), digest)
  assert.match(moved.headers['cache-status'] as string, /^shoal; fwd=miss/)
})

test('many who ask for a tag at once share one question', async () => {
  await using world = await World.open({ settings: { 'tags-authority': 'never' } })
  await Promise.all(Array.from({ length: 20 }, () => world.get('/v2/library/forty/manifests/latest')))
  assert.is(world.internet.log.requests({ method: 'HEAD' }).length, 1)
  assert.is(world.internet.log.requests({ method: 'GET', path: '/manifests/' }).length, 1)
})

test("authority after: the mirror's tag is served, and the hub's from the next pull on, for good", async () => {
  await using world = await openWorld({ 'tags-authority': 'after' })
  const { lagging, current } = digests(world)
  assert.is(digestOf(await world.get(path)), lagging)
  await hubAsked(world, 1)
  await until(
    async () => (digestOf(await world.head(path)) === current ? true : undefined),
    () => "the hub's digest does not hold",
  )
  // The mirror goes on to tell the old digest, which must not bring it back.
  for (let pull = 0; pull < 5; pull++) assert.is(digestOf(await world.get(path)), current)
  await world.restart()
  assert.is(digestOf(await world.get(path)), current)
})

test('authority after: what the hub says next replaces what it said before', async () => {
  await using world = await openWorld({ 'tags-authority': 'after' })
  const { images } = world.internet
  const { current } = digests(world)
  const turned = (digest: string) =>
    until(
      async () => (digestOf(await world.get(path)) === digest ? true : undefined),
      () => `the tag does not become ${digest}`,
    )
  await turned(current)
  const { digest } = images.image('library/busybox', '1.35')
  images.move('library/busybox', '1', digest)
  await turned(digest)
  images.move('library/busybox', '1', current)
  await turned(current)
})

test('authority before: the hub is asked first, and the mirror only when the hub does not answer', async () => {
  await using world = await openWorld({ 'tags-authority': 'before' })
  const { log, hub } = world.internet
  const { lagging, current } = digests(world)
  assert.is(digestOf(await world.get(path)), current)
  assert.is(log.requests({ server: 'gcr', method: 'HEAD' }).length, 0)
  hub.intercept = () => ({ kind: 'hang' })
  assert.is(digestOf(await world.head(path)), lagging)
})

test("authority before: the hub's word that there is no such tag is the last", async () => {
  await using world = await openWorld({ 'tags-authority': 'before' })
  const { images } = world.internet
  assert.is((await world.get(path)).status, 200)
  images.repositories.get('library/busybox')!.tags.delete('1')
  assert.is((await world.get(path)).status, 404)
  assert.is((await world.head(path)).status, 404)
})

test('authority never: the mirror is believed, and the hub asked only for what the mirror lacks', async () => {
  await using world = await openWorld({ 'tags-authority': 'never' })
  const { log } = world.internet
  const { lagging } = digests(world)
  for (let pull = 0; pull < 3; pull++) assert.is(digestOf(await world.get(path)), lagging)
  assert.is(log.requests({ server: 'hub' }).length, 0)
  assert.is((await world.get('/v2/library/zstd/manifests/latest')).status, 200)
})

for (const [how, fault] of [
  ['is down', undefined],
  ['limits the rate', { kind: 'status', status: 429, headers: { 'retry-after': '60' } }],
  ['fails', { kind: 'status', status: 500 }],
  ['is unavailable', { kind: 'status', status: 503 }],
  ['wants a login', { kind: 'status', status: 401 }],
  ['forbids', { kind: 'status', status: 403 }],
  ['breaks off', { kind: 'cut', at: 0 }],
] as const satisfies [string, Fault | undefined][])
  test(`when everything upstream ${how}, a tag that was known is served stale`, async () => {
    await using world = await openWorld()
    const { hub, gcr } = world.internet
    const { digest, layers } = world.internet.images.image('library/forty')
    const before = await world.get('/v2/library/forty/manifests/latest')
    await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)
    await hubAsked(world, 1)
    if (fault) everywhere(world, fault)
    else await Promise.all([hub.down(), gcr.down()])
    if (how === 'breaks off')
      hub.intercept = gcr.intercept = ({ method }) => (method === 'HEAD' ? { kind: 'status', status: 418 } : fault)
    for (const ask of ['get', 'head'] as const) {
      const answer = await world[ask]('/v2/library/forty/manifests/latest')
      assert.is(digestOf(answer), digest)
      assert.is(answer.headers['cache-status'], stale)
      if (ask === 'get') assert.equal(answer.body, before.body)
    }
    const byDigest = await world.get(`/v2/library/forty/manifests/${digest}`)
    assert.is(byDigest.headers['cache-status'], local)
    const blob = await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)
    assert.is(blob.headers['cache-status'], local)
    const unknown = await world.get('/v2/library/zstd/manifests/latest')
    assert.is(unknown.status, 404)
    assert.is(JSON.parse(unknown.body.toString()).errors[0].code, 'MANIFEST_UNKNOWN')
    await world.restart()
    const restarted = await world.get('/v2/library/forty/manifests/latest')
    assert.is(restarted.headers['cache-status'], stale)
    assert.equal(restarted.body, before.body)
  })

test('a tag that the authority says is gone is gone, also when the hub can no longer be asked', async () => {
  await using world = await openWorld()
  const { images, hub, gcr } = world.internet
  assert.is((await world.get('/v2/library/zstd/manifests/latest')).status, 200)
  const { digest } = images.image('library/zstd')
  images.repositories.get('library/zstd')!.tags.delete('latest')
  assert.is((await world.get('/v2/library/zstd/manifests/latest')).status, 404)
  await Promise.all([hub.down(), gcr.down()])
  assert.is((await world.get('/v2/library/zstd/manifests/latest')).status, 404)
  assert.is((await world.get(`/v2/library/zstd/manifests/${digest}`)).status, 200)
})

test('a tag that only the mirror says it lacks is not gone', async () => {
  await using world = await openWorld()
  const { hub, gcr } = world.internet
  await world.get('/v2/library/forty/manifests/latest')
  await hubAsked(world, 1)
  await hub.down()
  gcr.repositories.delete('library/forty')
  const answer = await world.get('/v2/library/forty/manifests/latest')
  assert.is(answer.headers['cache-status'], stale)
})

test("the hub's rate limit is in the status, and HEADs do not count", async () => {
  await using world = await openWorld()
  const { hub } = world.internet
  const limitOf = async () => {
    const { body } = await world.head('/v2/library/zstd/manifests/latest').then(() => fetchStatus(world))
    return JSON.parse(body.toString()).upstreams.find(({ endpoint }: { endpoint: string }) => endpoint === hub.url)
  }
  for (let asked = 0; asked < 5; asked++) assert.equal((await limitOf()).rate_limit.remaining, 100)
  await world.get('/v2/library/zstd/manifests/latest')
  const { registry, rate_limit, state } = await limitOf()
  assert.is(registry, 'docker.io')
  assert.is(state, 'closed')
  assert.equal(rate_limit, { limit: 100, remaining: 99, reset_s: 21_600, allowance: 'ample', from: 'registry' })
})

test('when the hub refuses a GET for its rate, the older manifest that is held is served stale', async () => {
  await using world = await openWorld()
  const { hub, log } = world.internet
  const old = digestOf(await world.get('/v2/library/zstd/manifests/latest'))
  await world.internet.add({ repository: 'library/zstd', tag: 'latest', layers: [10] })
  hub.rateLimit = { limit: 100, remaining: 0, retryAfter: 60 }
  for (const ask of ['get', 'head', 'get'] as const) {
    const answer = await world[ask]('/v2/library/zstd/manifests/latest')
    assert.is(digestOf(answer), old)
    assert.is(answer.headers['cache-status'], stale)
  }
  assert.equal(log.requests({ server: 'hub', status: 429 }), [])
  const { body } = await fetchStatus(world)
  const upstream = JSON.parse(body.toString()).upstreams.at(-1)
  assert.is(upstream.state, 'limited')
  assert.is(upstream.rate_limit.remaining, 0)
  // With nothing held it is a 404, so that the client asks the hub itself.
  const unknown = await world.get('/v2/library/artifact/manifests/latest')
  assert.is(unknown.status, 404)
  assert.match(unknown.body.toString(), /rate/)
})

test('what mirror.gcr.io has is served while the hub refuses GETs for their rate', async () => {
  await using world = await openWorld()
  world.internet.hub.rateLimit = { limit: 100, remaining: 0 }
  assert.is((await world.get('/v2/library/forty/manifests/latest')).status, 200)
})

test('cached_only: what is held is served, and the rest is a 404 that costs nothing upstream', async () => {
  await using world = await World.open()
  const { log, images } = world.internet
  const { layers, digest } = images.image('library/forty')
  await world.get('/v2/library/forty/manifests/latest')
  await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)
  await world.get('/v2/library/forty/tags/list')
  await world.restart({ 'mirror-cached-only': 'true', 'tags-ttl': '1ms' })
  await log.idle()
  log.clear()
  assert.is(digestOf(await world.get('/v2/library/forty/manifests/latest')), digest)
  assert.is((await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)).status, 200)
  assert.is((await world.get('/v2/library/forty/tags/list')).status, 200)
  for (const ask of ['get', 'head'] as const) {
    assert.is((await world[ask](`/v2/library/forty/blobs/${layers[1]!.digest}`)).status, 404)
    assert.is((await world[ask]('/v2/library/zstd/manifests/latest')).status, 404)
    assert.is((await world[ask](`/v2/library/zstd/manifests/${images.image('library/zstd').digest}`)).status, 404)
    assert.is((await world[ask]('/v2/library/zstd/tags/list')).status, 404)
  }
  assert.is(log.requests({ method: 'GET', path: /\/(manifests|blobs|tags)\// }).length, 0)
})

function fetchStatus(world: World): Promise<Answer> {
  return fetchWhole('GET', `${world.admin}/api/v1/status`)
}

test.run()
