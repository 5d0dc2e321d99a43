import { open, readdir, writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, sha256 } from '../../scripts/internet/content.ts'
import type { Image } from '../../scripts/internet/image.ts'
import type { Layer } from '../../scripts/internet/layer.ts'
import type { Entry } from '../../scripts/internet/log.ts'
import { Download } from '../download.ts'
import { ScriptedServer } from '../scripted-server.ts'
import { until } from '../shoal-process.ts'
import { fetchWhole, World } from '../world.ts'

const KiB = 1024
const MiB = 1024 * KiB

/** An image of one layer that both Docker Hub and mirror.gcr.io have. */
async function openWorld(size: number): Promise<{ world: World; image: Image; layer: Layer; path: string }> {
  const world = await World.open()
  const image = await world.internet.add({ repository: 'library/wrong', tag: 'latest', layers: [size] })
  world.internet.gcr.repositories.add('library/wrong')
  const [layer] = image.layers
  if (!layer) throw new Error('no layer')
  await world.get('/v2/library/wrong/manifests/latest')
  return { world, image, layer, path: `/v2/library/wrong/blobs/${layer.digest}` }
}

const bringsBlob = ({ server, path }: Entry) => server === 'cdn' || (server === 'gcr' && path.includes('/blobs/'))

async function stored({ data }: World, digest: string): Promise<boolean> {
  return (await readdir(join(data, 'blobs', 'sha256'))).includes(digest.slice('sha256:'.length))
}

/** How often bytes of that endpoint were thrown away. */
async function wrongDigests({ admin }: World, endpoint: string): Promise<number> {
  const { body } = await fetchWhole('GET', `${admin}/metrics`)
  const line = body
    .toString()
    .split('\n')
    .find(text => text.startsWith(`shoal_wrong_digests_total{source="${new URL(endpoint).host}"}`))
  return Number(line?.split(' ')[1] ?? 0)
}

/** Resolves when nothing is arriving any more. */
async function settled({ admin }: World): Promise<void> {
  await until(
    async () => {
      const { body } = await fetchWhole('GET', `${admin}/api/v1/status`)
      return JSON.parse(body.toString()).transfers === 0 ? true : undefined
    },
    () => 'a transfer is still under way',
  )
}

/** A world whose first endpoint is a server that answers like this. */
async function openWithMirror(answer: RequestListener): Promise<{ world: World; mirror: ScriptedServer }> {
  const world = await World.open()
  const mirror = await ScriptedServer.open(answer)
  await world.restart({ 'upstreams-docker-io-endpoints': `${mirror.url},${world.internet.hub.url}` })
  return { world, mirror }
}

const layerType = 'application/vnd.oci.image.layer.v1.tar'

for (const at of [0, 100, 60_000, 64 * KiB - 1])
  test(`a small blob that is wrong at byte ${at} at mirror.gcr.io comes right from the hub, unnoticed`, async () => {
    const { world: opened, layer, path } = await openWorld(64 * KiB)
    await using world = opened
    const { gcr, log } = world.internet
    gcr.intercept = entry => (bringsBlob(entry) ? { kind: 'corrupt', at } : undefined)
    const answers = await Promise.all(Array.from({ length: 3 }, () => world.get(path)))
    for (const { status, body } of answers) {
      assert.is(status, 200)
      assert.ok(body.equals(bytesOf(layer)))
    }
    assert.is(await wrongDigests(world, gcr.url), 1)
    assert.is(log.requests({ server: 'cdn' }).length, 1)
    const again = await world.get(path)
    assert.is(again.headers['cache-status'], 'shoal; hit; detail=local')
  })

for (const at of [0, MiB, 3 * MiB - 1])
  test(`a large blob that is wrong at byte ${at} is never answered whole, and the next try has the hub's`, async () => {
    const { world: opened, layer, path } = await openWorld(3 * MiB)
    await using world = opened
    const { gcr, log } = world.internet
    gcr.intercept = entry => (bringsBlob(entry) ? { kind: 'corrupt', at } : undefined)
    const download = await Download.open(world.mirror + path)
    assert.is(await download.end(), 'broken')
    assert.ok(download.received <= layer.size - 64 * KiB)
    const { status, body } = await world.get(path)
    assert.is(status, 200)
    assert.ok(body.equals(bytesOf(layer)))
    assert.is(await wrongDigests(world, gcr.url), 1)
    assert.is(log.requests({ server: 'gcr', path: '/blobs/' }).length, 1)
  })

test('ranges of a blob that is wrong elsewhere are not answered whole either', async () => {
  const { world: opened, layer, path } = await openWorld(3 * MiB)
  await using world = opened
  const { gcr, hub } = world.internet
  gcr.intercept = hub.intercept = entry => (bringsBlob(entry) ? { kind: 'corrupt', at: 10 } : undefined)
  for (const range of ['bytes=100-199', 'bytes=-100', `bytes=${MiB}-${2 * MiB}`]) {
    const download = await Download.open(world.mirror + path, { range }).catch(() => undefined)
    if (download?.status === 206) assert.is(await download.end(), 'broken', range)
    else assert.is(download?.status ?? 404, 404)
  }
  assert.not.ok(await stored(world, layer.digest))
})

test('bytes that are wrong everywhere are stored nowhere, and only the registry itself is asked again', async () => {
  const { world: opened, layer, path } = await openWorld(MiB)
  await using world = opened
  const { gcr, hub, log } = world.internet
  gcr.intercept = hub.intercept = entry => (bringsBlob(entry) ? { kind: 'corrupt', at: MiB / 2 } : undefined)
  assert.is(await (await Download.open(world.mirror + path)).end(), 'broken')
  await settled(world)
  assert.not.ok(await stored(world, layer.digest))
  assert.equal(await readdir(join(world.data, 'ingest')), [])
  assert.is(await wrongDigests(world, gcr.url), 1)
  assert.is(await wrongDigests(world, hub.url), 1)
  assert.is(await (await Download.open(world.mirror + path)).end(), 'broken')
  await settled(world)
  assert.is(await wrongDigests(world, gcr.url), 1)
  assert.is(await wrongDigests(world, hub.url), 2)
  gcr.intercept = hub.intercept = undefined
  const { config } = world.internet.images.image('library/wrong')
  assert.is((await world.get(`/v2/library/wrong/blobs/${config.digest}`)).status, 200)
  const before = log.requests({ server: 'gcr', path }).length
  const { status, body } = await world.get(path)
  assert.is(status, 200)
  assert.ok(body.equals(bytesOf(layer)))
  assert.is(log.requests({ server: 'gcr', path }).length, before)
})

test('wrong bytes of one source and a cut of the other end in the right bytes', async () => {
  const { world: opened, layer, path } = await openWorld(2 * MiB)
  await using world = opened
  const { gcr, hub } = world.internet
  let asked = 0
  gcr.intercept = entry => {
    if (!bringsBlob(entry)) return undefined
    return asked++ === 0 ? { kind: 'cut', at: MiB } : { kind: 'corrupt', at: MiB + 1 }
  }
  hub.intercept = () => undefined
  await Download.open(world.mirror + path).then(download => download.end())
  const { body } = await world.get(path)
  assert.ok(body.equals(bytesOf(layer)))
})

test('a part that rotted while the daemon was stopped is fetched anew', async () => {
  const { world: opened, layer, path } = await openWorld(12 * MiB)
  await using world = opened
  const { gcr, hub } = world.internet
  gcr.intercept = entry => (bringsBlob(entry) ? { kind: 'slow', bytesPerSecond: 4 * MiB } : undefined)
  const download = await Download.open(world.mirror + path)
  await download.until(MiB)
  download.leave()
  await world.daemon.close()
  const [part] = (await readdir(join(world.data, 'ingest'))).filter(name => name.endsWith('.part'))
  const file = await open(join(world.data, 'ingest', part!), 'r+')
  await file.write(Buffer.from('rotten'), 0, 6, 1000)
  await file.close()
  gcr.intercept = undefined
  await world.start()
  const first = await Download.open(world.mirror + path)
  if ((await first.end()) === 'whole') assert.ok(first.body.equals(bytesOf(layer)))
  const { body } = await world.get(path)
  assert.ok(body.equals(bytesOf(layer)))
  // Nobody is to blame for the disk.
  assert.is(await wrongDigests(world, gcr.url), 0)
  assert.is(await wrongDigests(world, hub.url), 0)
})

test('a manifest that is wrong at mirror.gcr.io comes from the hub', async () => {
  await using world = await World.open()
  const { gcr, hub, images } = world.internet
  const { manifest } = images.image('library/forty')
  gcr.intercept = ({ method }) => (method === 'GET' ? { kind: 'corrupt', at: 5 } : undefined)
  const { status, headers, body } = await world.get('/v2/library/forty/manifests/latest')
  assert.is(status, 200)
  assert.ok(body.equals(manifest.source as Buffer))
  assert.is(await wrongDigests(world, gcr.url), 1)
  assert.match(headers['cache-status'] as string, new URL(hub.url).host)
})

test('a manifest that is wrong everywhere is a 404, and stored nowhere', async () => {
  await using world = await World.open()
  const { gcr, hub, images } = world.internet
  const { digest } = images.image('library/forty')
  gcr.intercept = hub.intercept = ({ method, path }) =>
    method === 'GET' && path.includes('/manifests/') ? { kind: 'corrupt', at: 5 } : undefined
  const answer = await world.get('/v2/library/forty/manifests/latest')
  assert.is(answer.status, 404)
  assert.match(answer.body.toString(), /other bytes/)
  assert.not.ok(await stored(world, digest))
})

for (const [what, body] of [
  ['another length', Buffer.from('{"schemaVersion":2}')],
  ['an empty body', Buffer.alloc(0)],
] as const)
  test(`a mirror that answers for a manifest with ${what} does not keep the hub's from the client`, async () => {
    const { world: opened, mirror: server } = await openWithMirror((request, response) => {
      const found = request.method === 'GET' && request.url?.includes('/manifests/')
      if (!found) return response.writeHead(404).end()
      const headers = { 'content-type': 'application/vnd.oci.image.manifest.v1+json', 'content-length': body.length }
      return response.writeHead(200, headers).end(body)
    })
    await using world = opened
    await using _mirror = server
    const { manifest, digest } = world.internet.images.image('library/forty')
    const answer = await world.get(`/v2/library/forty/manifests/${digest}`)
    assert.is(answer.status, 200)
    assert.ok(answer.body.equals(manifest.source as Buffer))
  })

test('a captive portal, which answers everything with its page, costs nothing but its question', async () => {
  const page = '<html>Welcome to our Wi-Fi</html>'
  const { world: opened, mirror: server } = await openWithMirror((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/html', 'content-length': page.length }).end(page)
  })
  await using world = opened
  await using _mirror = server
  const { images, hub } = world.internet
  const { manifest, layers } = images.image('library/forty')
  const found = await world.get('/v2/library/forty/manifests/latest')
  assert.is(found.status, 200)
  assert.ok(found.body.equals(manifest.source as Buffer))
  for (const layer of layers.slice(0, 3)) {
    const { status, body, headers } = await world.get(`/v2/library/forty/blobs/${layer.digest}`)
    assert.is(status, 200)
    assert.ok(body.equals(bytesOf(layer)))
    assert.match(headers['cache-status'] as string, new URL(hub.url).host)
  }
  const tags = await world.get('/v2/library/forty/tags/list')
  assert.equal(JSON.parse(tags.body.toString()).tags, ['latest'])
})

test('behind a captive portal that is everywhere, what is not held is a 404', async () => {
  await using portal = await ScriptedServer.open((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/html', 'content-length': 20 }).end('<html>Welcome</html>')
  })
  await using world = await World.open()
  await world.get('/v2/library/forty/manifests/latest')
  await world.restart({ 'upstreams-docker-io-endpoints': portal.url, 'tags-ttl': '1ms' })
  const held = await world.get('/v2/library/forty/manifests/latest')
  assert.is(held.status, 200)
  assert.is(held.headers['cache-status'], 'shoal; hit; detail=stale')
  const { layers } = world.internet.images.image('library/forty')
  for (const path of [
    '/v2/library/zstd/manifests/latest',
    `/v2/library/forty/blobs/${layers[0]!.digest}`,
    '/v2/library/zstd/tags/list',
  ]) {
    assert.is((await world.get(path)).status, 404, path)
    assert.is((await world.head(path)).status, 404, path)
  }
})

test('a blob of unknown size that a mirror has wrong is right at the next try', async () => {
  const { world: opened, mirror: server } = await openWithMirror((request, response) => {
    if (!request.url?.includes('/blobs/')) return response.writeHead(404).end()
    return response.writeHead(200, { 'content-type': 'text/html' }).end('x'.repeat(200_000))
  })
  await using world = opened
  await using _mirror = server
  const [layer] = world.internet.images.image('library/forty').layers
  const path = `/v2/library/forty/blobs/${layer!.digest}`
  const first = await Download.open(world.mirror + path).catch(() => undefined)
  if (first && (await first.end()) === 'whole' && first.status === 200) assert.ok(first.body.equals(bytesOf(layer!)))
  const { status, body } = await world.get(path)
  assert.is(status, 200)
  assert.ok(body.equals(bytesOf(layer!)))
})

for (const [what, headers, body] of [
  ['too short', {}, Buffer.alloc(1000)],
  ['too long', {}, Buffer.alloc(400_000)],
  ['endless', { 'transfer-encoding': 'chunked' }, undefined],
] as const)
  test(`a mirror's answer that is ${what} is not believed`, async () => {
    const timers = new Set<NodeJS.Timeout>()
    const { world: opened, mirror: server } = await openWithMirror((request, response) => {
      if (!request.url?.includes('/blobs/')) return response.writeHead(404).end()
      response.on('error', () => {})
      response.writeHead(200, { 'content-type': layerType, ...headers })
      if (body) return response.end(body)
      const timer = setInterval(() => response.write(Buffer.alloc(64 * KiB)), 5)
      timers.add(timer)
      return response.once('close', () => clearInterval(timer))
    })
    await using world = opened
    await using _mirror = server
    const { layers } = await world.internet.add({ repository: 'library/other', tag: 'latest', layers: [300_000] })
    const [layer] = layers
    await world.get('/v2/library/other/manifests/latest')
    const path = `/v2/library/other/blobs/${layer!.digest}`
    const download = await Download.open(world.mirror + path)
    if ((await download.end()) === 'whole') assert.ok(download.body.equals(bytesOf(layer!)))
    const again = await world.get(path)
    assert.is(again.status, 200)
    assert.ok(again.body.equals(bytesOf(layer!)))
    for (const timer of timers) clearInterval(timer)
  })

test('a manifest that lies about the size of a layer of another image does no harm to that image', async () => {
  await using world = await World.open()
  const { images } = world.internet
  const { layers, config } = images.image('library/forty')
  const [layer] = layers
  const lie = await world.internet.add({ repository: 'evil/image', tag: 'latest', layers: [10] })
  const { source: _, ...descriptor } = config
  const source = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: lie.manifest.mediaType,
      config: descriptor,
      layers: [{ mediaType: layerType, digest: layer!.digest, size: 7 }],
    }),
  )
  const digest = sha256(source)
  images.repositories.get('evil/image')!.manifests.set(digest, { ...lie.manifest, digest, source, size: source.length })
  assert.is((await world.get(`/v2/evil/image/manifests/${digest}`)).status, 200)
  assert.is((await world.get('/v2/library/forty/manifests/latest')).status, 200)
  const { status, body } = await world.get(`/v2/library/forty/blobs/${layer!.digest}`)
  assert.is(status, 200)
  assert.ok(body.equals(bytesOf(layer!)))
})

test('redirects that go round in circles end, and the next source is asked', async () => {
  await using world = await World.open()
  const { gcr, log } = world.internet
  gcr.intercept = ({ path }) => ({ kind: 'status', status: 307, headers: { location: path } })
  const { status } = await world.get('/v2/library/forty/manifests/latest')
  assert.is(status, 200)
  assert.ok(log.requests({ server: 'gcr' }).length <= 20)
})

for (const location of [
  'http://10.0.0.1/blob',
  'http://127.0.0.2/blob',
  'https://127.0.0.2/blob',
  'https://[::1]/blob',
  'https://[::ffff:127.0.0.2]/blob',
  'https://169.254.169.254/latest/meta-data',
  'https://localhost/blob',
  'http://registry.example/blob',
  'https://user:password@registry.example/blob',
  'https://2130706434/blob',
  'file:///etc/passwd',
  'gopher://127.0.0.1/',
  'http://',
  '',
])
  test(`a redirect to "${location}" is refused`, async () => {
    const { world: opened, layer, path } = await openWorld(1000)
    await using world = opened
    const { gcr } = world.internet
    gcr.intercept = entry => (bringsBlob(entry) ? { kind: 'status', status: 307, headers: { location } } : undefined)
    const { status, body } = await world.get(path)
    assert.is(status, 200)
    assert.ok(body.equals(bytesOf(layer)))
  })

test('a redirect to a server of this machine that the settings do not name reaches nobody', async () => {
  const { world: opened, path } = await openWorld(1000)
  await using world = opened
  await using victim = await ScriptedServer.open((_request, response) => void response.end('secret'))
  const { gcr, hub } = world.internet
  for (const host of ['localhost', '127.0.0.2', '[::1]'])
    for (const scheme of ['http', 'https']) {
      gcr.intercept = hub.intercept = ({ path, server }) =>
        server !== 'token' && path.includes('/blobs/')
          ? { kind: 'status', status: 302, headers: { location: `${scheme}://${host}:${victim.port}/x` } }
          : undefined
      assert.is((await world.get(path)).status, 404)
    }
  assert.is(victim.requests.length, 0)
})

test('a realm on a foreign host is not asked, and never given credentials', async () => {
  await using thief = await ScriptedServer.open((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"token":"x"}')
  })
  await using world = await World.open()
  const { hub, log } = world.internet
  const password = join(world.folder, 'password')
  await writeFile(password, 'secret\n')
  await world.restart({ 'upstreams-docker-io-username': 'alice', 'upstreams-docker-io-password-file': password })
  for (const realm of [
    `http://localhost:${thief.port}/token`,
    `https://localhost:${thief.port}/token`,
    `http://127.0.0.2:${thief.port}/token`,
    `http://127.0.0.1@localhost:${thief.port}/token`,
    'https://auth.docker.io.evil.example/token',
  ]) {
    const challenge = `Bearer realm="${realm}",service="registry.docker.io"`
    hub.intercept = ({ server }) =>
      server === 'hub' ? { kind: 'status', status: 401, headers: { 'www-authenticate': challenge } } : undefined
    const { status } = await world.get('/v2/library/zstd/manifests/latest')
    assert.is(status, 404, realm)
  }
  assert.is(thief.requests.length, 0)
  hub.intercept = undefined
  assert.is((await world.get('/v2/library/zstd/manifests/latest')).status, 200)
  assert.ok(log.requests({ server: 'token', user: 'alice' }).length > 0)
})

test('with credentials a private repository is served, and they go to the hub and its token service alone', async () => {
  await using world = await World.open()
  const { images, log } = world.internet
  const password = join(world.folder, 'password')
  await writeFile(password, 'secret\n')
  await world.restart({ 'upstreams-docker-io-username': 'alice', 'upstreams-docker-io-password-file': password })
  const { layers } = images.image('team/private')
  assert.is((await world.get('/v2/team/private/manifests/latest')).status, 200)
  for (const layer of layers)
    assert.ok((await world.get(`/v2/team/private/blobs/${layer.digest}`)).body.equals(bytesOf(layer)))
  const basic = `Basic ${Buffer.from('alice:secret').toString('base64')}`
  for (const { server, headers } of log.entries) {
    if (server === 'gcr' || server === 'cdn') assert.is(headers.authorization, undefined)
    if (server === 'hub') assert.not.match(headers.authorization ?? '', basic)
  }
  assert.ok(log.requests({ server: 'cdn', status: 200 }).length > 0)
})

test('a token is never sent along a redirect', async () => {
  await using world = await World.open()
  const { images, log } = world.internet
  const { layers } = images.image('library/zstd')
  for (const { digest } of layers) assert.is((await world.get(`/v2/library/zstd/blobs/${digest}`)).status, 200)
  const toCdn = log.requests({ server: 'cdn' })
  assert.is(toCdn.length, layers.length)
  for (const { headers, status } of toCdn) {
    assert.is(headers.authorization, undefined)
    assert.is(status, 200)
  }
})

test('a mirror that answers in a coding that nobody asked for is passed over', async () => {
  const { world: opened, mirror: server } = await openWithMirror((request, response) => {
    if (!request.url?.includes('/blobs/')) return response.writeHead(404).end()
    const headers = { 'content-type': layerType, 'content-encoding': 'gzip' }
    return response.writeHead(200, headers).end(gzipSync(Buffer.alloc(1000)))
  })
  await using world = opened
  await using mirror = server
  const [layer] = world.internet.images.image('library/forty').layers
  const { body } = await world.get(`/v2/library/forty/blobs/${layer!.digest}`)
  assert.ok(body.equals(bytesOf(layer!)))
  for (const { headers } of mirror.requests) assert.is(headers['accept-encoding'], 'identity')
})

test('a mirror that lies about the size of a blob, and cuts it, keeps nobody from the hub', async () => {
  const size = MiB
  const { world: opened, mirror: liar } = await openWithMirror((request, response) => {
    if (!request.url?.includes('/blobs/')) return void response.writeHead(404).end()
    response.writeHead(200, { 'content-length': size + 1000 })
    response.write(Buffer.alloc(100_000), () => response.destroy())
  })
  await using _mirror = liar
  await using world = opened
  // No manifest of it is known here, so nobody but the mirror and the hub tells its size.
  const { layers } = await world.internet.add({ repository: 'library/size', tag: 'latest', layers: [size] })
  const path = `/v2/library/size/blobs/${layers[0]!.digest}`
  const first = await world.get(path).catch(() => undefined)
  assert.ok(first === undefined || first.body.equals(bytesOf(layers[0]!)))
  await settled(world)
  const { status, body } = await world.get(path)
  assert.is(status, 200)
  assert.ok(body.equals(bytesOf(layers[0]!)))
})

test('who comes after wrong bytes were thrown away is told the truth of what is left', async () => {
  const { world: opened, layer, path } = await openWorld(64 * KiB)
  await using world = opened
  const { gcr, hub } = world.internet
  gcr.intercept = entry => (bringsBlob(entry) ? { kind: 'corrupt', at: 10 } : undefined)
  hub.intercept = entry => (entry.path.includes(layer.digest) ? { kind: 'status', status: 404 } : undefined)
  const download = await Download.open(world.mirror + path)
  assert.is(await download.end(), 'broken')
  await settled(world)
  assert.is((await world.get(path)).status, 404)
})

test('a listing is served as what it is, whatever an upstream calls it', async () => {
  await using world = await World.open()
  await using evil = await ScriptedServer.open((_request, response) => {
    response.setHeader('link', '<//evil.example/v2/library/x/tags/list?last=b>; rel="next"')
    response.setHeader('content-type', 'text/html')
    response.end('{"name":"library/x","tags":["<script>"]}')
  })
  await world.restart({ 'upstreams-docker-io-endpoints': evil.url })
  const { headers } = await world.get('/v2/library/x/tags/list')
  assert.is(headers['content-type'], 'application/json')
  assert.is(headers['x-content-type-options'], 'nosniff')
  assert.is(headers['link'], '</v2/library/x/tags/list?last=b>; rel="next"')
})

test.run()
