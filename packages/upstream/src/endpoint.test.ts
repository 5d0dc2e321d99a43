import { randomBytes } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { parseRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { acceptManifests, mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import { SourceError, type SourceErrorCode, type Want } from '@shoal/store/source'
import { CollectingWriter, sourceConformance } from '@shoal/store/source.conformance'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ScriptedServer } from '../../../test/scripted-server.ts'
import { until } from '../../../test/shoal-process.ts'
import { AddressPolicy } from './address-policy.ts'
import { Endpoint } from './endpoint.ts'
import type { Credentials } from './token.ts'
import { Transport } from './transport.ts'

const never = new AbortController().signal
const name = parseName('docker.io', 'library/busybox')
const blob = randomBytes(300_000)
const want: Want = { name, digest: digestOf(blob), kind: 'blob', size: blob.length }
const manifest = Buffer.from('{"schemaVersion":2}')
const wantManifest: Want = { name, digest: digestOf(manifest), kind: 'manifest' }

/** An endpoint, and the server behind it. */
class World implements AsyncDisposable {
  time = 1_000_000
  readonly server: ScriptedServer
  readonly endpoint: Endpoint
  readonly told: string[] = []
  readonly #transport: Transport

  private constructor(server: ScriptedServer, credentials: Credentials | undefined) {
    this.server = server
    const url = new URL(server.url)
    const policy = new AddressPolicy([url, new URL('http://localhost')])
    this.#transport = new Transport({
      policy,
      ca: undefined,
      connectTimeout: 1000,
      answerTimeout: 2000,
      bodyTimeout: 1000,
      connections: 8,
      env: {},
    })
    this.endpoint = new Endpoint({
      url,
      transport: this.#transport,
      policy,
      credentials,
      last: true,
      userAgent: 'shoal/test',
      onRequest: ({ method, code }) => this.told.push(`${method} ${code}`),
      now: () => this.time,
      random: () => 0,
    })
  }

  static async open(answer: RequestListener, credentials?: Credentials): Promise<World> {
    return new World(await ScriptedServer.open(answer), credentials)
  }

  /** What it was asked: `GET /path`. */
  get asked(): string[] {
    return this.server.requests.map(({ method, url }) => `${method} ${url}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport.close()
    await this.server[Symbol.asyncDispose]()
  }
}

async function fails(promise: Promise<unknown>, code: SourceErrorCode): Promise<SourceError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  assert.instance(error, SourceError, `it should have failed with ${code}`)
  assert.is((error as SourceError).code, code, (error as SourceError).message)
  return error as SourceError
}

/** Answers as a registry that has one blob. */
function serve(content: Buffer, request: IncomingMessage, response: ServerResponse): void {
  const range = parseRange(request.headers.range, content.length)
  if (range === undefined || range === 'unsatisfiable') {
    response.writeHead(200, { 'content-length': content.length })
    response.end(request.method === 'GET' ? content : undefined)
    return
  }
  response.writeHead(206, {
    'content-length': range.end - range.start,
    'content-range': `bytes ${range.start}-${range.end - 1}/${content.length}`,
  })
  response.end(content.subarray(range.start, range.end))
}

const conformance = suite('upstream endpoint as a source')
sourceConformance(conformance, async blobs => {
  let broken = false
  const world = await World.open((request, response) => {
    const found = blobs.find(blob => request.url?.endsWith(digestOf(blob)))
    if (broken) response.writeHead(500).end()
    else if (found) serve(found, request, response)
    else response.writeHead(404).end()
  })
  return {
    source: world.endpoint,
    breakDown: () => {
      broken = true
    },
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  }
})
conformance.run()

// The same of a server that knows no Range.
const rangeless = suite('upstream endpoint without Range as a source')
sourceConformance(rangeless, async blobs => {
  let broken = false
  const world = await World.open((request, response) => {
    const found = blobs.find(blob => request.url?.endsWith(digestOf(blob)))
    if (broken) response.writeHead(403).end()
    else if (found) response.end(request.method === 'GET' ? found : undefined)
    else response.writeHead(404).end()
    if (request.method === 'HEAD') return
  })
  return {
    source: world.endpoint,
    breakDown: () => {
      broken = true
    },
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  }
})
rangeless.run()

const test = suite('endpoint')

test('statuses mean what they mean', async () => {
  let status = 0
  await using world = await World.open((_request, response) => void response.writeHead(status).end())
  for (const [answer, code] of [
    [401, 'denied'],
    [403, 'denied'],
    [429, 'limited'],
    [500, 'failing'],
    [400, 'broken'],
    [204, 'broken'],
    [416, 'broken'],
    [304, 'broken'],
  ] as const) {
    status = answer
    await fails(world.endpoint.find(want, never), code)
  }
  status = 404
  assert.is(await world.endpoint.find(want, never), null)
  assert.is(await world.endpoint.head(name, 'latest', never), null)
  assert.is(await world.endpoint.sizeOf(name, want.digest, never), null)
  assert.is(await world.endpoint.listing(name, 'tags/list', never), null)
})

test('a manifest is asked for with all types and unencoded, and offered whole, also from a later byte', async () => {
  await using world = await World.open((request, response) => {
    response.setHeader('content-type', `${mediaTypes.ociManifest}; charset=utf-8`)
    serve(manifest, request, response)
  })
  const offer = await world.endpoint.find({ ...wantManifest, at: 5 }, never)
  assert.is(offer?.mediaType, mediaTypes.ociManifest)
  assert.is(offer?.size, manifest.length)
  const range = { start: 5, end: manifest.length }
  const writer = new CollectingWriter(range)
  await offer?.fetch(range, writer, never)
  assert.is(writer.bytes.toString(), manifest.subarray(5).toString())
  const [request] = world.server.requests
  assert.is(request?.headers.accept, acceptManifests)
  assert.is(request?.headers['accept-encoding'], 'identity')
  assert.is(request?.headers['user-agent'], 'shoal/test')
})

test('a manifest of no manifest type, or too large, is broken', async () => {
  let type = 'text/html'
  await using world = await World.open((_request, response) => {
    response.setHeader('content-type', type)
    response.end(Buffer.alloc(5 * 1024 * 1024))
  })
  await fails(world.endpoint.find(wantManifest, never), 'broken')
  type = mediaTypes.ociManifest
  await fails(world.endpoint.find(wantManifest, never), 'broken')
})

test('a HEAD tells what a tag is; one that tells too little or nonsense is broken', async () => {
  let headers: Record<string, string> = {}
  await using world = await World.open((_request, response) => void response.writeHead(200, headers).end())
  const good = {
    'content-type': mediaTypes.ociIndex,
    'docker-content-digest': want.digest,
    'content-length': '1000',
  }
  headers = good
  assert.equal(await world.endpoint.head(name, 'latest', never), {
    descriptor: { mediaType: mediaTypes.ociIndex, digest: want.digest, size: 1000 },
    visibility: 'public',
  })
  const { 'docker-content-digest': _d, ...noDigest } = good
  const { 'content-type': _t, ...noType } = good
  for (const bad of [
    noDigest,
    noType,
    { ...good, 'docker-content-digest': 'sha256:abc' },
    { ...good, 'content-length': '99999999' },
    { ...good, 'content-type': 'text/html' },
  ]) {
    headers = bad
    await fails(world.endpoint.head(name, 'latest', never), 'broken')
  }
  headers = noDigest
  assert.is((await world.endpoint.head(name, want.digest, never))?.descriptor.digest, want.digest)
  headers = good
  await fails(world.endpoint.head(name, digestOf(Buffer.from('other')), never), 'broken')
})

test('500, 502, 503 and 504 are asked once more', async () => {
  for (const status of [500, 502, 503, 504]) {
    let first = true
    await using world = await World.open((request, response) => {
      if (first) response.writeHead(status).end()
      else serve(blob, request, response)
      first = false
    })
    const offer = await world.endpoint.find(want, never)
    assert.ok(offer)
    offer?.close()
    assert.is(world.server.requests.length, 2)
  }
})

test('a kept connection that the server closes meanwhile costs nothing', async () => {
  let served = 0
  await using world = await World.open((request, response) => {
    if (++served === 2) request.socket.destroy()
    else serve(blob, request, response)
  })
  assert.is(await world.endpoint.sizeOf(name, want.digest, never), blob.length)
  assert.is(await world.endpoint.sizeOf(name, want.digest, never), blob.length)
  assert.is(world.endpoint.state.errors, 0)
})

test('after three failures it is passed over for a while, then tried once', async () => {
  let status = 501
  await using world = await World.open((_request, response) => void response.writeHead(status).end())
  for (let i = 0; i < 3; i++) await fails(world.endpoint.find(want, never), 'failing')
  await fails(world.endpoint.find(want, never), 'skipped')
  assert.is(world.server.requests.length, 3)
  assert.is(world.endpoint.state.state, 'open')
  world.time += 3000
  status = 404
  assert.is(await world.endpoint.find(want, never), null)
  assert.is(world.endpoint.state.state, 'closed')
})

test('an abort is no failure of the endpoint', async () => {
  const asked: (() => void)[] = []
  await using world = await World.open(() => asked.shift()?.())
  for (let i = 0; i < 4; i++) {
    const abort = new AbortController()
    const arrived = new Promise<void>(resolve => asked.push(resolve))
    const finding = world.endpoint.find(want, abort.signal)
    await arrived
    abort.abort(new SourceError('revoked', 'enough'))
    await fails(finding, 'revoked')
  }
  assert.is(world.endpoint.state.errors, 0)
  assert.is(world.endpoint.state.state, 'closed')
})

test('a 429 stops GETs of manifests until Retry-After, and nothing else', async () => {
  await using world = await World.open((request, response) => {
    response.setHeader('content-type', mediaTypes.ociManifest)
    if (request.url?.includes('/blobs/')) serve(blob, request, response)
    else response.writeHead(429, { 'retry-after': '20' }).end()
  })
  await fails(world.endpoint.find(wantManifest, never), 'limited')
  assert.is(world.endpoint.state.state, 'limited')
  const error = await fails(world.endpoint.find(wantManifest, never), 'limited')
  assert.match(error.message, '20 s')
  assert.is(world.server.requests.length, 1)
  const offer = await world.endpoint.find(want, never)
  assert.ok(offer)
  offer?.close()
  world.time += 20_000
  await fails(world.endpoint.find(wantManifest, never), 'limited')
  assert.is(world.server.requests.length, 3)
})

test('the rate limit that it tells is kept', async () => {
  await using world = await World.open((_request, response) => {
    response.writeHead(404, { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '7;w=21600' }).end()
  })
  await world.endpoint.find(wantManifest, never)
  assert.is(world.endpoint.state.rateLimit?.remaining, 7)
})

/** A registry that has one manifest, in two repositories, and counts GETs of the one in `library/busybox`. */
function counting(quota: { remaining: number }): RequestListener {
  return ({ method, url = '' }, response) => {
    const counts = url.includes('/library/busybox/')
    if (counts && method === 'GET' && quota.remaining === 0) return void response.writeHead(429).end()
    if (counts && method === 'GET') quota.remaining--
    response.writeHead(200, {
      'content-type': mediaTypes.ociManifest,
      'content-length': manifest.length,
      'docker-content-digest': wantManifest.digest,
      ...(counts && { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': `${quota.remaining};w=21600` }),
    })
    response.end(method === 'HEAD' ? undefined : manifest)
  }
}

/** What a peer has just heard from the registry. */
function heard(remaining: number, at: number) {
  return { limit: 100, remaining, window: 21_600, source: undefined, at }
}

const got = `GET /v2/library/busybox/manifests/${wantManifest.digest}`
const checked = `HEAD /v2/library/busybox/manifests/${wantManifest.digest}`

async function lookedAt(world: World, count: number): Promise<void> {
  await until(
    () => (world.told.length === count ? true : undefined),
    () => `it was asked ${world.told.length} times, not ${count}`,
  )
}

test('when nothing is left, it is asked by HEAD, and by GET only once there is something again', async () => {
  const quota = { remaining: 1 }
  await using world = await World.open(counting(quota))
  const { endpoint } = world
  assert.ok(await endpoint.find(wantManifest, never))
  assert.equal([endpoint.allowance, endpoint.state.state], ['spent', 'limited'])
  const error = await fails(endpoint.find(wantManifest, never), 'limited')
  assert.match(error.message, 'limits the rate')
  await fails(endpoint.find(wantManifest, never), 'limited')
  assert.equal(world.asked, [got, checked, checked])
  quota.remaining = 50
  assert.ok(await endpoint.find(wantManifest, never))
  assert.equal([endpoint.allowance, endpoint.state.state], ['ample', 'closed'])
  assert.equal(world.asked.slice(3), [checked, got])
  assert.is(endpoint.state.errors, 0)
})

test('when nothing is left, what does not count is got', async () => {
  await using world = await World.open(counting({ remaining: 0 }))
  const { endpoint } = world
  await endpoint.head(name, wantManifest.digest, never)
  assert.is(endpoint.allowance, 'spent')
  const free = { ...wantManifest, name: parseName('docker.io', 'library/free') }
  assert.ok(await endpoint.find(free, never))
  assert.is(endpoint.allowance, 'spent')
})

test('when nothing is left, that is forgotten at the end of the window', async () => {
  await using world = await World.open(counting({ remaining: 1 }))
  await world.endpoint.find(wantManifest, never)
  world.time += 21_600_000
  assert.equal([world.endpoint.allowance, world.endpoint.state.state], ['ample', 'closed'])
})

test('a peer that has heard of the end has it asked by HEAD, and no GET is refused', async () => {
  const quota = { remaining: 100 }
  await using world = await World.open(counting(quota))
  const { endpoint } = world
  await endpoint.head(name, wantManifest.digest, never)
  quota.remaining = 60
  world.time += 1000
  endpoint.hear(heard(60, world.time))
  assert.is(endpoint.state.heard?.remaining, 60)
  quota.remaining = 0
  world.time += 1000
  endpoint.hear(heard(0, world.time))
  await fails(endpoint.find(wantManifest, never), 'limited')
  await lookedAt(world, 3)
  assert.equal(world.asked, [checked, checked, checked])
  assert.equal([endpoint.allowance, endpoint.state.rateLimit?.remaining], ['spent', 0])
  assert.is(endpoint.state.heard, undefined)
  // And that it is over.
  quota.remaining = 100
  world.time += 1000
  endpoint.hear(heard(100, world.time))
  await lookedAt(world, 4)
  await until(
    () => (endpoint.allowance === 'ample' ? true : undefined),
    () => 'it is not over',
  )
})

test('a peer that lies about the limit stops nothing, and costs a few HEADs', async () => {
  await using world = await World.open(counting({ remaining: 100 }))
  const { endpoint } = world
  await endpoint.head(name, 'latest', never)
  for (let times = 0; times < 20; times++) {
    world.time += 1000
    endpoint.hear(heard(0, world.time))
  }
  assert.equal([endpoint.allowance, endpoint.state.state], ['ample', 'closed'])
  assert.ok(await endpoint.find(wantManifest, never))
  await lookedAt(world, 1 + 4 + 2)
  assert.equal(world.asked.filter(asked => asked === 'HEAD /v2/library/busybox/manifests/latest').length, 5)
  // What the registry has said since then counts.
  endpoint.hear(heard(0, world.time - 1))
  assert.is(endpoint.state.heard, undefined)
})

test('of a limit that this machine knows nothing of, nothing is asked', async () => {
  await using world = await World.open(counting({ remaining: 100 }))
  world.endpoint.hear(heard(5, world.time))
  assert.equal(world.asked, [])
})

/** A registry that wants a token, has its token service on the same host, and its content on another. */
function guarded(content: Buffer, cdn: ScriptedServer, login?: Credentials): RequestListener {
  const basic = login && `Basic ${Buffer.from(`${login.username}:${login.password}`).toString('base64')}`
  return (request, response) => {
    if (request.url?.startsWith('/token')) {
      if (request.headers.authorization !== basic) response.writeHead(401).end()
      else response.end('{"token":"let-me-in"}')
    } else if (request.headers.authorization !== 'Bearer let-me-in')
      response
        .writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="s"` })
        .end()
    else response.writeHead(307, { location: `http://localhost:${cdn.port}/data/${content.length}` }).end()
  }
}

test('a redirect gets neither the token nor the credentials, and keeps the Range', async () => {
  for (const login of [undefined, { username: 'me', password: 'secret' }]) {
    await using cdn = await ScriptedServer.open((request, response) => serve(blob, request, response))
    await using world = await World.open(guarded(blob, cdn, login), login)
    const offer = await world.endpoint.find({ ...want, at: 1000 }, never)
    assert.is(offer?.origin.visibility, login ? 'private' : 'public')
    const range = { start: 1000, end: blob.length }
    const writer = new CollectingWriter(range)
    await offer?.fetch(range, writer, never)
    assert.ok(writer.bytes.equals(blob.subarray(1000)))
    assert.equal(
      world.asked.map(line => line.split('?')[0]?.split('/v2')[0]),
      ['GET ', 'GET /token', 'GET '],
    )
    assert.is(cdn.requests.length, 1)
    assert.is(cdn.requests[0]?.headers.authorization, undefined)
    assert.is(cdn.requests[0]?.headers.range, 'bytes=1000-')
  }
})

test('a 401 of where a redirect leads is no challenge of the endpoint', async () => {
  await using cdn = await ScriptedServer.open((_request, response) => {
    response.writeHead(401, {
      'www-authenticate': 'Basic realm="give"',
      'ratelimit-limit': '1',
      'ratelimit-remaining': '0',
    })
    response.end()
  })
  const login = { username: 'me', password: 'secret' }
  await using world = await World.open((request, response) => {
    response.writeHead(307, { location: `http://localhost:${cdn.port}${request.url}` }).end()
  }, login)
  await fails(world.endpoint.find(want, never), 'denied')
  await fails(world.endpoint.find(want, never), 'denied')
  for (const { headers } of [...world.server.requests, ...cdn.requests]) assert.is(headers.authorization, undefined)
  assert.is(world.endpoint.state.rateLimit, undefined)
})

test('redirects that lead round and round, to nowhere or to forbidden places are broken', async () => {
  let location: string | undefined
  await using world = await World.open((_request, response) => {
    response.writeHead(307, location === undefined ? {} : { location }).end()
  })
  for (const to of ['/again', undefined, 'http://', 'http://192.168.0.1/', 'https://10.0.0.1/', 'file:///etc/passwd']) {
    location = to
    await fails(world.endpoint.find(want, never), 'broken')
  }
  location = '/again'
  const before = world.server.requests.length
  await fails(world.endpoint.find(want, never), 'broken')
  assert.is(world.server.requests.length - before, 6)
})

test('content in a coding that was not asked for is refused', async () => {
  await using world = await World.open((_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end('x')
  })
  await fails(world.endpoint.find(want, never), 'broken')
})

test('a length that is not the one of the manifest is refused', async () => {
  await using world = await World.open((request, response) => serve(blob, request, response))
  await fails(world.endpoint.find({ ...want, size: blob.length + 1 }, never), 'broken')
})

test('a broken body is resumed at its byte by the next fetch', async () => {
  let first = true
  await using world = await World.open((request, response) => {
    if (!first) return serve(blob, request, response)
    first = false
    response.writeHead(200, { 'content-length': blob.length })
    response.write(blob.subarray(0, 100_000), () => setImmediate(() => response.destroy()))
  })
  const offer = await world.endpoint.find(want, never)
  const range = { start: 0, end: blob.length }
  const writer = new CollectingWriter(range)
  assert.ok(offer)
  await fails(offer!.fetch(range, writer, never), 'broken')
  const rest = { start: writer.bytes.length, end: blob.length }
  const second = new CollectingWriter(rest)
  await offer!.fetch(rest, second, never)
  assert.ok(Buffer.concat([writer.bytes, second.bytes]).equals(blob))
  assert.is(world.server.requests[1]?.headers.range, `bytes=${rest.start}-`)
})

test('a closed range is asked for as one', async () => {
  await using world = await World.open((request, response) => serve(blob, request, response))
  const offer = await world.endpoint.find(want, never)
  const range = { start: 5, end: 10 }
  const writer = new CollectingWriter(range)
  await offer?.fetch(range, writer, never)
  assert.ok(writer.bytes.equals(blob.subarray(5, 10)))
  assert.is(world.server.requests.at(-1)?.headers.range, 'bytes=5-9')
})

test('a 206 with a later range, another size, no Content-Range or an endless one is broken', async () => {
  let range = ''
  await using world = await World.open((request, response) => {
    if (!request.headers.range) return serve(blob, request, response)
    response.writeHead(206, { ...(range && { 'content-range': range }) }).end(blob.subarray(0, 10))
  })
  for (const answer of [
    'bytes 11-20/300000',
    'bytes 10-19/300001',
    '',
    'bytes 10-19/9',
    'bytes 10-1e3/*',
    'bytes */5',
  ]) {
    range = answer
    const offer = await world.endpoint.find(want, never)
    assert.ok(offer)
    const wanted = { start: 10, end: 20 }
    const writer = new CollectingWriter(wanted)
    await fails(offer!.fetch(wanted, writer, never), 'broken')
    assert.is(writer.bytes.length, 0, answer)
  }
})

test('a 206 that begins earlier is skipped to where it is wanted', async () => {
  await using world = await World.open((request, response) => {
    if (!request.headers.range) return serve(blob, request, response)
    response.writeHead(206, { 'content-range': `bytes 4-99/${blob.length}` }).end(blob.subarray(4, 100))
  })
  const offer = await world.endpoint.find(want, never)
  const range = { start: 10, end: 20 }
  const writer = new CollectingWriter(range)
  await offer?.fetch(range, writer, never)
  assert.ok(writer.bytes.equals(blob.subarray(10, 20)))
})

test('a body that is longer than it should be is cut off, and one that is shorter is broken', async () => {
  const { size: _, ...unsized } = want
  await using world = await World.open((request, response) => {
    if (request.method === 'HEAD') response.writeHead(200, { 'content-length': 1000 }).end()
    else if (request.url?.endsWith(want.digest)) response.write(blob)
    else response.write(blob.subarray(0, 10), () => response.end())
  })
  const offer = await world.endpoint.find(unsized, never)
  assert.is(offer?.size, 1000)
  const range = { start: 0, end: 1000 }
  const writer = new CollectingWriter(range)
  await offer?.fetch(range, writer, never)
  assert.ok(writer.bytes.equals(blob.subarray(0, 1000)))
  const short = await world.endpoint.find({ ...unsized, digest: wantManifest.digest, size: 1000 }, never)
  assert.ok(short)
  await fails(short!.fetch(range, new CollectingWriter(range), never), 'broken')
})

test('each answer is told of', async () => {
  await using world = await World.open((request, response) => serve(blob, request, response))
  await world.endpoint.sizeOf(name, want.digest, never)
  ;(await world.endpoint.find(want, never))?.close()
  assert.equal(world.told, ['HEAD 200', 'GET 200'])
  assert.is(world.endpoint.state.requests, 2)
})

test('a listing is passed on as it is, if it is JSON', async () => {
  let body = '{"tags":["1"]}'
  await using world = await World.open((_request, response) => {
    response.setHeader('link', '</v2/x>; rel="next"')
    response.end(body)
  })
  const answer = await world.endpoint.listing(name, 'tags/list?n=1', never)
  assert.is(answer?.body, body)
  assert.is(answer?.link, '</v2/x>; rel="next"')
  assert.equal(world.asked, ['GET /v2/library/busybox/tags/list?n=1'])
  body = '<html>'
  await fails(world.endpoint.listing(name, 'tags/list', never), 'broken')
})

test('a registry answers its ping with 200 or 401', async () => {
  let status = 200
  await using world = await World.open((_request, response) => void response.writeHead(status).end())
  await world.endpoint.ping(never)
  status = 401
  await world.endpoint.ping(never)
  status = 404
  await fails(world.endpoint.ping(never), 'broken')
})

/** A registry that has one manifest, gives tokens to everybody, and takes those of users for what is private. */
function guardedIf(isPrivate: () => boolean): RequestListener {
  return (request, response) => {
    const user = request.headers.authorization?.startsWith('Basic ') ? 'user' : 'nobody'
    if (request.url?.startsWith('/token')) return void response.end(JSON.stringify({ token: `token-of-${user}` }))
    const { authorization = '' } = request.headers
    if (authorization === '' || (isPrivate() && authorization !== 'Bearer token-of-user'))
      return void response
        .writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="s"` })
        .end()
    const remaining = authorization.endsWith('user') ? 199 : 42
    response.writeHead(200, {
      'content-type': mediaTypes.ociManifest,
      'content-length': manifest.length,
      'docker-content-digest': wantManifest.digest,
      'ratelimit-limit': `${remaining + 1};w=21600`,
      'ratelimit-remaining': `${remaining};w=21600`,
    })
    response.end(request.method === 'HEAD' ? undefined : manifest)
  }
}

const credentials = { username: 'alice', password: 'secret' }

test('whether everybody may have a manifest is asked without credentials, and by HEAD', async () => {
  let isPrivate = false
  await using world = await World.open(
    guardedIf(() => isPrivate),
    credentials,
  )
  const { endpoint, server } = world
  assert.ok(endpoint.credentialed)
  assert.is((await endpoint.head(name, 'latest', never))?.visibility, 'private')
  const before = server.requests.length
  assert.ok(await endpoint.isPublic(name, wantManifest.digest, never))
  isPrivate = true
  assert.not(await endpoint.isPublic(name, wantManifest.digest, never))
  for (const { url, method, headers } of server.requests.slice(before)) {
    assert.not([`Basic ${btoa('alice:secret')}`, 'Bearer token-of-user'].includes(headers.authorization ?? ''))
    assert.not(url?.includes('alice'))
    if (!url?.startsWith('/token')) assert.is(method, 'HEAD')
  }
  // The limit of the nameless is another one than that of who has credentials.
  assert.is(endpoint.state.rateLimit?.remaining, 199)
  assert.is((await endpoint.head(name, 'latest', never))?.descriptor.digest, wantManifest.digest)
})

test('an endpoint without credentials gives to everybody what it gives', async () => {
  await using world = await World.open(guardedIf(() => false))
  assert.not(world.endpoint.credentialed)
  assert.is((await world.endpoint.head(name, 'latest', never))?.visibility, 'public')
})

test('whether something is public is no, or not known; either way that tells nothing of the endpoint', async () => {
  let answer: { status: number; headers: Record<string, string> } = { status: 404, headers: {} }
  await using world = await World.open((request, response) => {
    if (request.headers.authorization) serve(blob, request, response)
    else response.writeHead(answer.status, answer.headers).end()
  }, credentials)
  const { endpoint } = world
  for (const status of [401, 403, 404]) {
    answer = { status, headers: {} }
    assert.not(await endpoint.isPublic(name, wantManifest.digest, never), String(status))
  }
  const other = digestOf(Buffer.from('other'))
  const page = { 'content-type': 'text/html', 'content-length': '20' }
  const another = { 'content-type': mediaTypes.ociManifest, 'content-length': '20', 'docker-content-digest': other }
  for (const [status, headers, code] of [
    [429, { 'retry-after': '600' }, 'limited'],
    [500, {}, 'failing'],
    [503, {}, 'failing'],
    [418, {}, 'broken'],
    [200, page, 'broken'],
    [200, another, 'broken'],
  ] as const)
    for (let times = 0; times < 4; times++) {
      answer = { status, headers }
      await fails(endpoint.isPublic(name, wantManifest.digest, never), code)
    }
  await world.server[Symbol.asyncDispose]()
  for (let times = 0; times < 4; times++)
    await fails(endpoint.isPublic(name, wantManifest.digest, never), 'unreachable')
  assert.equal([endpoint.state.state, endpoint.silent, endpoint.state.errors], ['closed', false, 0])
})

test('an endpoint that is given a rest is not asked whether something is public', async () => {
  await using world = await World.open((_request, response) => void response.writeHead(500).end(), credentials)
  for (let times = 0; times < 3; times++) await fails(world.endpoint.head(name, 'latest', never), 'failing')
  const before = world.asked.length
  await fails(world.endpoint.isPublic(name, wantManifest.digest, never), 'skipped')
  // Nor does it take the turn of the one that may try.
  world.time += 600_000
  await fails(world.endpoint.isPublic(name, wantManifest.digest, never), 'skipped')
  assert.is(world.asked.length, before)
  await fails(world.endpoint.head(name, 'latest', never), 'failing')
})

test.run()
