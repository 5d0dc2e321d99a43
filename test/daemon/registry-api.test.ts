import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf } from '../../scripts/internet/content.ts'
import { type Answer, fetchWhole, World } from '../world.ts'

function codeOf({ headers, body }: Answer): string {
  assert.is(headers['content-type'], 'application/json')
  const { errors } = JSON.parse(body.toString())
  assert.type(errors[0].message, 'string')
  return errors[0].code
}

async function openForty() {
  const world = await World.open()
  const { digest, layers, config, manifest } = world.internet.images.image('library/forty')
  const [layer] = layers
  if (!layer) throw new Error('no layer')
  return { world, digest, layers, layer, config, manifest }
}

/** Sends bytes as they are, and resolves to all that comes back until the server closes. */
async function sendRaw(world: World, bytes: string): Promise<string> {
  const socket = connect(world.daemon.mirror.port, '127.0.0.1')
  let text = ''
  socket.on('data', data => (text += data))
  socket.on('error', () => {})
  socket.write(bytes, 'latin1')
  await new Promise(resolve => socket.once('close', resolve))
  return text
}

test('a ping says that this is a registry', async () => {
  await using world = await World.open()
  for (const path of ['/v2/', '/v2']) {
    const { status, headers, body } = await world.get(path)
    assert.is(status, 200)
    assert.is(headers['docker-distribution-api-version'], 'registry/2.0')
    assert.equal(JSON.parse(body.toString()), {})
    const empty = await world.head(path)
    assert.is(empty.status, 200)
    assert.is(empty.body.length, 0)
  }
  assert.is(world.internet.log.entries.length, 0)
})

test('manifests are there by tag and by digest, for GET and HEAD alike', async () => {
  const { world: opened, digest, manifest } = await openForty()
  await using world = opened
  for (const reference of ['latest', digest, digest.replace(':', '%3A')])
    for (const ask of ['head', 'get'] as const) {
      const { status, headers, body } = await world[ask](`/v2/library/forty/manifests/${reference}`)
      assert.is(status, 200)
      assert.is(headers['content-type'], manifest.mediaType)
      assert.is(headers['content-length'], String(manifest.size))
      assert.is(headers['docker-content-digest'], digest)
      assert.is(headers['docker-distribution-api-version'], 'registry/2.0')
      assert.is(headers['etag'], `"${digest}"`)
      assert.equal(body, ask === 'get' ? bytesOf(manifest) : Buffer.alloc(0))
    }
})

test('an index, and the manifest of a platform that only the hub has, come through', async () => {
  await using world = await World.open()
  const { images, gcr, hub } = world.internet
  const image = images.image('library/busybox')
  const index = await world.get('/v2/library/busybox/manifests/latest')
  assert.is(index.headers['content-type'], 'application/vnd.oci.image.index.v1+json')
  assert.is(index.headers['cache-status'], `shoal; fwd=miss; detail="${new URL(gcr.url).host}"`)
  const platform = await world.get(`/v2/library/busybox/manifests/${image.digest}`)
  assert.equal(platform.body, bytesOf(image.manifest))
  assert.is(platform.headers['cache-status'], `shoal; fwd=miss; detail="${new URL(hub.url).host}"`)
})

test('a one-part name means library/', async () => {
  const { world: opened, digest, layer } = await openForty()
  await using world = opened
  const manifest = await world.get('/v2/forty/manifests/latest')
  assert.is(manifest.headers['docker-content-digest'], digest)
  const blob = await world.get(`/v2/forty/blobs/${layer.digest}`)
  assert.equal(blob.body, bytesOf(layer))
  const tags = await world.get('/v2/forty/tags/list')
  assert.equal(JSON.parse(tags.body.toString()).tags, ['latest'])
  const referrers = await world.get(`/v2/forty/referrers/${digest}`)
  assert.is(referrers.status, 200)
})

test('a HEAD of a blob has its length, type and digest, and never pulls it in', async () => {
  const { world: opened, layers } = await openForty()
  await using world = opened
  const { log } = world.internet
  // The first is at mirror.gcr.io, the second only at Docker Hub.
  for (const layer of [layers[0]!, layers[20]!]) {
    const { status, headers, body } = await world.head(`/v2/library/forty/blobs/${layer.digest}`)
    assert.is(status, 200)
    assert.is(headers['content-length'], String(layer.size))
    assert.is(headers['content-type'], 'application/octet-stream')
    assert.is(headers['docker-content-digest'], layer.digest)
    assert.is(headers['accept-ranges'], 'bytes')
    assert.is(body.length, 0)
  }
  await log.idle()
  assert.is(log.requests({ method: 'GET', path: '/blobs/' }).length, 0)
  assert.is(log.bytes('cdn'), 0)
  await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)
  const held = await world.head(`/v2/library/forty/blobs/${layers[0]!.digest}`)
  assert.is(held.headers['cache-status'], 'shoal; hit; detail=local')
  assert.is(held.headers['content-length'], String(layers[0]!.size))
})

test('a HEAD of a manifest by digest does not fetch it', async () => {
  const { world: opened, digest } = await openForty()
  await using world = opened
  await world.head(`/v2/library/forty/manifests/${digest}`)
  await world.head('/v2/library/forty/manifests/latest')
  assert.is(world.internet.log.requests({ method: 'GET', path: '/manifests/' }).length, 0)
})

for (const state of ['cold', 'held'] as const)
  test(`a range of a blob that is ${state} is answered with just those bytes`, async () => {
    await using world = await World.open()
    const { layers } = await world.internet.add({ repository: 'library/ranges', tag: 'latest', layers: [300_000] })
    const [layer] = layers
    const bytes = bytesOf(layer!)
    const { size } = layer!
    const path = `/v2/library/ranges/blobs/${layer!.digest}`
    if (state === 'held') await world.get(path)
    const cases: [string, number, number][] = [
      ['bytes=0-', 0, size],
      ['bytes=0-0', 0, 1],
      ['bytes=10-19', 10, 20],
      ['bytes=299000-', 299_000, size],
      ['bytes=299000-999999999', 299_000, size],
      ['bytes=-7', size - 7, size],
      ['bytes=-999999999', 0, size],
    ]
    for (const [range, start, end] of cases) {
      const { status, headers, body } = await world.get(path, { range })
      assert.is(status, 206, range)
      assert.is(headers['content-range'], `bytes ${start}-${end - 1}/${size}`)
      assert.is(headers['content-length'], String(end - start))
      assert.is(headers['docker-content-digest'], layer!.digest)
      assert.ok(body.equals(bytes.subarray(start, end)), range)
    }
    for (const range of [`bytes=${size}-`, 'bytes=-0', 'bytes=99999999999999999999999-']) {
      const { status, headers } = await world.get(path, { range })
      assert.is(status, 416, range)
      assert.is(headers['content-range'], `bytes */${size}`)
    }
    // What is not one well-formed range is as if it was not there (RFC 9110, 14.2).
    for (const range of ['bytes=0-1,5-6', 'bytes=9-3', 'bytes=-', 'bytes=a-b', 'lines=0-5', 'bytes 0-5']) {
      const { status, headers, body } = await world.get(path, { range })
      assert.is(status, 200, range)
      assert.is(headers['content-range'], undefined)
      assert.ok(body.equals(bytes), range)
    }
    const head = await world.head(path, { range: 'bytes=0-9' })
    assert.is(head.status, 200)
    assert.is(head.headers['content-length'], String(size))
  })

test('a manifest has ranges too', async () => {
  const { world: opened, digest, manifest } = await openForty()
  await using world = opened
  const { status, body } = await world.get(`/v2/library/forty/manifests/${digest}`, { range: 'bytes=5-14' })
  assert.is(status, 206)
  assert.equal(body, bytesOf(manifest).subarray(5, 15))
})

test('a client that has the content already is told so', async () => {
  const { world: opened, digest, layer } = await openForty()
  await using world = opened
  for (const [path, etag] of [
    ['/v2/library/forty/manifests/latest', digest],
    [`/v2/library/forty/manifests/${digest}`, digest],
    [`/v2/library/forty/blobs/${layer.digest}`, layer.digest],
  ] as const)
    for (const header of [`"${etag}"`, `W/"${etag}"`, `"other", "${etag}"`, '*'])
      for (const ask of ['get', 'head'] as const) {
        const { status, headers, body } = await world[ask](path, { 'if-none-match': header })
        assert.is(status, 304)
        assert.is(headers['etag'], `"${etag}"`)
        assert.is(body.length, 0)
      }
  const other = await world.get(`/v2/library/forty/blobs/${layer.digest}`, { 'if-none-match': `"${digest}"` })
  assert.is(other.status, 200)
  assert.equal(other.body, bytesOf(layer))
})

test('a range with If-Range is given only of the same content', async () => {
  const { world: opened, digest, layer } = await openForty()
  await using world = opened
  const path = `/v2/library/forty/blobs/${layer.digest}`
  const same = await world.get(path, { range: 'bytes=1-2', 'if-range': `"${layer.digest}"` })
  assert.is(same.status, 206)
  assert.is(same.body.length, 2)
  for (const validator of [`"${digest}"`, `W/"${layer.digest}"`, 'Mon, 01 Jan 2024 00:00:00 GMT']) {
    const other = await world.get(path, { range: 'bytes=1-2', 'if-range': validator })
    assert.is(other.status, 200)
    assert.equal(other.body, bytesOf(layer))
  }
})

test('an empty blob is answered as such', async () => {
  await using world = await World.open()
  const { repositories } = world.internet.images
  const bytes = Buffer.alloc(0)
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  repositories.get('library/forty')!.blobs.set(digest, { digest, mediaType: 'text/plain', size: 0, source: bytes })
  for (let round = 0; round < 2; round++) {
    const { status, headers, body } = await world.get(`/v2/library/forty/blobs/${digest}`)
    assert.is(status, 200)
    assert.is(headers['content-length'], '0')
    assert.is(body.length, 0)
  }
})

test('sha512 digests are content like any other', async () => {
  await using world = await World.open()
  const { images } = world.internet
  const sha512 = (bytes: Buffer) => `sha512:${createHash('sha512').update(bytes).digest('hex')}`
  const bytes = Buffer.from('x'.repeat(200_000))
  const layer = { digest: sha512(bytes), mediaType: 'application/vnd.oci.image.layer.v1.tar', size: bytes.length }
  const repository = images.repositories.get('library/forty')!
  repository.blobs.set(layer.digest, { ...layer, source: bytes })
  const { config } = images.image('library/forty')
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const { source: _, ...descriptor } = config
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config: descriptor, layers: [layer] }))
  const digest = sha512(manifest)
  repository.manifests.set(digest, { digest, mediaType, size: manifest.length, source: manifest })
  for (const detail of [/^shoal; fwd=miss/, /^shoal; hit; detail=local$/]) {
    const found = await world.get(`/v2/library/forty/manifests/${digest}`)
    assert.is(found.status, 200)
    assert.equal(found.body, manifest)
    assert.is(found.headers['docker-content-digest'], digest)
    const blob = await world.get(`/v2/library/forty/blobs/${layer.digest}`)
    assert.is(blob.status, 200)
    assert.ok(blob.body.equals(bytes))
    assert.match(blob.headers['cache-status'] as string, detail)
  }
})

test('tags come in pages, with a link to the next that leads to this mirror', async () => {
  await using world = await World.open()
  const { images } = world.internet
  const { digest } = images.image('library/forty')
  for (const tag of ['a', 'b', 'c']) images.move('library/forty', tag, digest)
  const seen: string[] = []
  for (let path: string | undefined = '/v2/library/forty/tags/list?n=2'; path; ) {
    const { status, headers, body }: Answer = await world.get(path)
    assert.is(status, 200)
    const { name, tags } = JSON.parse(body.toString())
    assert.is(name, 'library/forty')
    seen.push(...tags)
    const [, next] = /^<(\/v2\/[^>]+)>; rel="next"$/.exec((headers['link'] as string | undefined) ?? '') ?? []
    path = next
  }
  assert.equal(seen, ['a', 'b', 'c', 'latest'])
  const after = await world.get('/v2/library/forty/tags/list?last=b')
  assert.equal(JSON.parse(after.body.toString()).tags, ['c', 'latest'])
  const none = await world.get('/v2/library/forty/tags/list?n=0')
  assert.is(none.status, 200)
  const most = await world.get('/v2/library/forty/tags/list?n=10000')
  assert.is(most.status, 200)
})

test('a number of tags that is none is refused', async () => {
  await using world = await World.open()
  for (const n of ['-1', '1.5', 'ten', '', '10001', '1e3', '99999999999999999999', '%00', ' 5', '0x10']) {
    const answer = await world.get(`/v2/library/forty/tags/list?n=${encodeURIComponent(n)}`)
    assert.is(answer.status, 400, `n=${n}`)
    codeOf(answer)
  }
  assert.is(world.internet.log.entries.length, 0)
})

test('lists of tags and referrers are kept for when the internet is gone', async () => {
  await using world = await World.open()
  const { images, hub, gcr } = world.internet
  const { digest } = images.image('library/artifact')
  const paths = [
    '/v2/library/forty/tags/list',
    `/v2/library/artifact/referrers/${digest}`,
    `/v2/library/artifact/referrers/${digest}?artifactType=application%2Fvnd.example.sbom`,
  ]
  const before = await Promise.all(paths.map(path => world.get(path)))
  for (const { status, headers } of before) {
    assert.is(status, 200)
    assert.match(headers['cache-status'] as string, /^shoal; fwd=miss; detail="127/)
  }
  await hub.down()
  await gcr.down()
  await world.restart()
  for (const [index, path] of paths.entries()) {
    const { status, headers, body } = await world.get(path)
    assert.is(status, 200)
    assert.is(headers['cache-status'], 'shoal; hit; detail=stale')
    assert.equal(body, before[index]!.body)
    assert.is(headers['content-type'], before[index]!.headers['content-type'])
    assert.is(headers['oci-filters-applied'], before[index]!.headers['oci-filters-applied'])
  }
  const unknown = await world.get('/v2/library/busybox/tags/list')
  assert.is(unknown.status, 404)
  assert.is(codeOf(unknown), 'NAME_UNKNOWN')
})

test('referrers can be had by their type', async () => {
  await using world = await World.open()
  const { digest } = world.internet.images.image('library/artifact')
  const path = `/v2/library/artifact/referrers/${digest}`
  const all = await world.get(path)
  assert.is(all.headers['content-type'], 'application/vnd.oci.image.index.v1+json')
  assert.is(all.headers['oci-filters-applied'], undefined)
  const [sbom] = JSON.parse(all.body.toString()).manifests
  assert.is(sbom.artifactType, 'application/vnd.example.sbom')
  const some = await world.get(`${path}?artifactType=${encodeURIComponent(sbom.artifactType)}`)
  assert.is(some.headers['oci-filters-applied'], 'artifactType')
  assert.is(JSON.parse(some.body.toString()).manifests.length, 1)
  const none = await world.get(`${path}?artifactType=application%2Fnone`)
  assert.equal(JSON.parse(none.body.toString()).manifests, [])
  const artifact = await world.get(`/v2/library/artifact/manifests/${sbom.digest}`)
  assert.is(artifact.status, 200)
  assert.is(artifact.body.length, sbom.size)
})

test('what nobody has is a 404 that says why, with the code of its kind', async () => {
  await using world = await World.open()
  const nowhere = `sha256:${'0'.repeat(64)}`
  for (const [path, code] of [
    ['/v2/library/nothing/manifests/latest', 'MANIFEST_UNKNOWN'],
    ['/v2/library/forty/manifests/nothing', 'MANIFEST_UNKNOWN'],
    [`/v2/library/forty/manifests/${nowhere}`, 'MANIFEST_UNKNOWN'],
    [`/v2/library/forty/blobs/${nowhere}`, 'BLOB_UNKNOWN'],
    ['/v2/library/nothing/tags/list', 'NAME_UNKNOWN'],
  ] as const) {
    const answer = await world.get(path)
    assert.is(answer.status, 404, path)
    assert.is(codeOf(answer), code)
    assert.match(answer.body.toString(), '127.0.0.1')
    const head = await world.head(path)
    assert.is(head.status, 404)
    assert.is(head.body.length, 0)
  }
})

test('a path that is no endpoint of the specification is a 404', async () => {
  await using world = await World.open()
  for (const path of [
    '/',
    '/v1/',
    '/v2x/',
    '/v2/_catalog',
    '/v2/library/forty',
    '/v2/library/forty/manifests',
    '/v2/library/forty/manifests/',
    '/v2/library/forty/tags/other',
    '/v2/manifests/latest',
    '/favicon.ico',
  ]) {
    const answer = await world.get(path)
    assert.is(answer.status, 404, path)
    codeOf(answer)
  }
})

test('who pushes or deletes is told that this is a mirror', async () => {
  const { world: opened, digest } = await openForty()
  await using world = opened
  for (const [method, path] of [
    ['POST', '/v2/library/forty/blobs/uploads/'],
    ['PUT', '/v2/library/forty/manifests/latest'],
    ['PATCH', '/v2/library/forty/blobs/uploads/1'],
    ['DELETE', `/v2/library/forty/manifests/${digest}`],
    ['POST', '/v2/'],
  ] as const) {
    const answer = await fetchWhole(method, world.mirror + path)
    assert.is(answer.status, 405)
    assert.is(codeOf(answer), 'UNSUPPORTED')
    assert.match(answer.body.toString(), /mirror/)
    assert.is(answer.headers['allow'], 'GET, HEAD')
  }
})

test('a push with a large body is refused without harm', async () => {
  await using world = await World.open()
  const outgoing = request(`${world.mirror}/v2/library/forty/blobs/uploads/`, { method: 'POST', agent: false })
  outgoing.on('error', () => {})
  const answered = once(outgoing, 'response')
  outgoing.end(Buffer.alloc(4 * 1024 * 1024))
  const [response] = await answered
  assert.is(response.statusCode, 405)
  outgoing.destroy()
  assert.is((await world.get('/v2/')).status, 200)
})

test('a registry that is not mirrored is a 404, and Docker Hub goes by all its names', async () => {
  await using world = await World.open()
  for (const ns of ['docker.io', 'index.docker.io', 'registry-1.docker.io', 'DOCKER.IO', '']) {
    const { status } = await world.get(`/v2/library/forty/manifests/latest?ns=${ns}`)
    assert.is(status, 200, ns)
  }
  for (const ns of ['quay.io', '127.0.0.1:5000', 'docker.io.evil.example', 'a b', '../..', 'x'.repeat(3000), '%00']) {
    const answer = await world.get(`/v2/library/forty/manifests/latest?ns=${encodeURIComponent(ns)}`)
    assert.is(answer.status, 404, ns)
    assert.is(codeOf(answer), 'NAME_UNKNOWN')
  }
})

test("the client's own credentials change nothing, and go nowhere", async () => {
  const { world: opened, layers } = await openForty()
  await using world = opened
  const { log } = world.internet
  for (const authorization of ['Basic YWxpY2U6c2VjcmV0', 'Bearer nonsense', 'Basic', 'x']) {
    const manifest = await world.get('/v2/library/forty/manifests/latest', { authorization })
    assert.is(manifest.status, 200)
    const blob = await world.get(`/v2/library/forty/blobs/${layers[20]!.digest}`, { authorization })
    assert.is(blob.status, 200)
    const hidden = await world.get('/v2/team/private/manifests/latest', { authorization })
    assert.is(hidden.status, 404)
  }
  assert.equal(new Set(log.entries.map(({ user }) => user)), new Set(['anonymous']))
  for (const { headers } of log.entries) assert.not.match(headers.authorization ?? '', /YWxpY2U6c2VjcmV0|nonsense/)
})

test('a private repository is a 404, never a 401', async () => {
  await using world = await World.open()
  const image = world.internet.images.image('team/private')
  for (const path of [
    '/v2/team/private/manifests/latest',
    `/v2/team/private/manifests/${image.digest}`,
    `/v2/team/private/blobs/${image.config.digest}`,
    '/v2/team/private/tags/list',
    `/v2/team/private/referrers/${image.digest}`,
  ])
    for (const ask of ['get', 'head'] as const) {
      const answer = await world[ask](path)
      assert.is(answer.status, 404, path)
      assert.is(answer.headers['www-authenticate'], undefined)
      if (ask === 'get') assert.match(answer.body.toString(), /denies access/)
    }
})

test('names and digests that cannot be are a 400', async () => {
  await using world = await World.open()
  const digest = `sha256:${'a'.repeat(64)}`
  for (const [path, code] of [
    ['/v2/Library/Forty/manifests/latest', 'NAME_INVALID'],
    ['/v2/library/-forty/manifests/latest', 'NAME_INVALID'],
    ['/v2/library/for%2fty/manifests/latest', 'NAME_INVALID'],
    ['/v2/library/f..o/blobs/x', 'NAME_INVALID'],
    [`/v2/${'a/'.repeat(200)}b/blobs/${digest}`, 'NAME_INVALID'],
    ['/v2/library/forty/manifests/%E0%A4%A', 'NAME_INVALID'],
    ['/v2/library/forty/blobs/%E0%A4%A', 'NAME_INVALID'],
    ['/v2/library/forty/blobs/latest', 'DIGEST_INVALID'],
    [`/v2/library/forty/blobs/${digest.toUpperCase()}`, 'DIGEST_INVALID'],
    [`/v2/library/forty/blobs/${digest}0`, 'DIGEST_INVALID'],
    ['/v2/library/forty/blobs/md5:d41d8cd98f00b204e9800998ecf8427e', 'DIGEST_INVALID'],
    ['/v2/library/forty/manifests/sha256:12', 'DIGEST_INVALID'],
    ['/v2/library/forty/referrers/latest', 'DIGEST_INVALID'],
    ['/v2/library/forty/blobs/__proto__:00', 'DIGEST_INVALID'],
  ] as const) {
    const answer = await world.get(path)
    assert.is(answer.status, 400, path)
    assert.is(codeOf(answer), code, path)
  }
  assert.is(world.internet.log.entries.length, 0)
})

test('a request that a page of another site has made is refused', async () => {
  await using world = await World.open()
  const { port } = world.daemon.mirror
  const refused: Record<string, string>[] = [
    { host: 'evil.example' },
    { host: `evil.example:${port}` },
    { host: `127.0.0.1.evil.example:${port}` },
    { host: `localhost.evil.example` },
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: world.mirror },
    { 'sec-fetch-site': 'cross-site' },
  ]
  for (const headers of refused) {
    const answer = await world.get('/v2/library/forty/manifests/latest', headers)
    assert.is(answer.status, 421, JSON.stringify(headers))
    codeOf(answer)
  }
  assert.is(world.internet.log.entries.length, 0)
  for (const host of [`localhost:${port}`, `127.0.0.1:${port}`, `[::1]:${port}`, 'LOCALHOST', 'host.docker.internal'])
    assert.is((await world.get('/v2/', { host })).status, 200, host)
})

test('hostile paths lead nowhere, and the mirror lives on', async () => {
  await using world = await World.open()
  const { internet } = world
  for (const path of [
    '/v2/%2e%2e/%2e%2e/etc/passwd',
    '/v2/library/%2e%2e/%2e%2e/manifests/latest',
    '/v2/library/forty/blobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    '/v2/library/forty/blobs/sha256:..%2f..%2foci-layout',
    '/v2/library/forty/manifests/%00',
    '/v2/library/forty%00/manifests/latest',
    '/v2/library/forty/manifests/%0d%0aset-cookie:x',
    '/v2/library/forty/manifests/latest%3Fx',
    '//v2/library/forty/manifests/latest',
    '/v2//library//forty//manifests//latest',
    '/v2/////',
    '/v2/\\..\\..\\x/manifests/latest',
    '/v2/library/forty/manifests/.',
    '/v2/library/forty/manifests/..',
    `/v2/${'a'.repeat(12_000)}/manifests/latest`,
    `/v2/${'a/'.repeat(6000)}manifests/latest`,
    `/v2/library/forty/manifests/${'a'.repeat(129)}`,
    '/v2/constructor/manifests/__proto__x:',
    '/v2/?ns=%FF%FE',
    '/v2/library/forty/tags/list?last=%00%ff',
  ]) {
    const [head] = (await sendRaw(world, `GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`)).split(
      '\r\n\r\n',
    )
    assert.match(head ?? '', /^HTTP\/1\.1 (400|404|200) /, path.slice(0, 80))
    assert.not.match(head ?? '', /set-cookie/i)
  }
  for (const { path } of internet.log.entries) assert.match(path, /^\/(v2\/library\/forty\/|token\?)/)
  assert.is((await world.get('/v2/')).status, 200)
})

test('bytes that are no request are refused, and the mirror lives on', async () => {
  await using world = await World.open()
  for (const bytes of [
    'GET /v2/\0 HTTP/1.1\r\nhost: localhost\r\n\r\n',
    'GET http://169.254.169.254/v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n',
    'OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n',
    'CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n',
    'GET /v2/ HTTP/1.0\r\n\r\n',
    'GET /v2/ HTTP/1.1\r\nconnection: close\r\n\r\n',
    'GET /v2/ HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n',
    `GET /v2/${'a'.repeat(100_000)} HTTP/1.1\r\nhost: localhost\r\n\r\n`,
    `GET /v2/ HTTP/1.1\r\nhost: localhost\r\nx: ${'a'.repeat(100_000)}\r\n\r\n`,
    'GET /v2/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  ])
    if (!bytes.startsWith('\x16')) assert.not.match(await sendRaw(world, bytes), /^HTTP\/1\.1 2/)
    else assert.match(await sendRaw(world, `${bytes}\r\n\r\n`), /^HTTP\/1\.1 400/)
  assert.is((await world.get('/v2/')).status, 200)
})

test('an answer to an If-None-Match of a blob that is not held leaves no transfer behind', async () => {
  const { world: opened, layer } = await openForty()
  await using world = opened
  await world.get(`/v2/library/forty/blobs/${layer.digest}`, { 'if-none-match': `"${layer.digest}"` })
  const { body } = await world.get(`/v2/library/forty/blobs/${layer.digest}`)
  assert.equal(body, bytesOf(layer))
})

test('many requests on one connection are answered in their order', async () => {
  const { world: opened, layers } = await openForty()
  await using world = opened
  const ask = (digest: string, last = false) =>
    `GET /v2/library/forty/blobs/${digest} HTTP/1.1\r\nhost: localhost\r\n${last ? 'connection: close\r\n' : ''}\r\n`
  const some = layers.slice(0, 5)
  const text = await sendRaw(world, some.map(({ digest }, index) => ask(digest, index === some.length - 1)).join(''))
  const found = [...text.matchAll(/docker-content-digest: (\S+)/gi)].map(([, digest]) => digest)
  assert.equal(
    found,
    some.map(({ digest }) => digest),
  )
})

test('what a digest names may be kept for ever by caches in between, what a tag names may not', async () => {
  await using world = await World.open()
  const { digest } = world.internet.images.image('library/busybox', '1.35')
  for (const [reference, expected] of [
    ['1.35', 'no-cache'],
    [digest, 'max-age=31536000, immutable'],
  ]) {
    const path = `/v2/library/busybox/manifests/${reference}`
    assert.is((await world.get(path)).headers['cache-control'], expected)
    assert.is((await world.head(path)).headers['cache-control'], expected)
  }
})

test('pages of other sites, and of other ports of this machine, get nothing from the admin side', async () => {
  await using world = await World.open()
  const status = `${world.admin}/api/v1/status`
  for (const origin of ['http://8.8.8.8', world.mirror, 'null', 'http://evil.example'])
    assert.is((await fetchWhole('GET', status, { origin })).status, 421, origin)
  assert.is((await fetchWhole('GET', status, { origin: world.admin })).status, 200)
})

test.run()
