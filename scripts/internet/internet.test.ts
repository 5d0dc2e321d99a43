import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Fault } from './fault.ts'
import { Internet } from './internet.ts'
import type { ServerName } from './log.ts'
import { Switchboard } from './switchboard.ts'

type Answer = { status: number; headers: IncomingHttpHeaders; body: Buffer; complete: boolean }

/** Asks once, on a connection of its own, and takes what comes, cut short or not. Follows no redirect. */
async function ask(
  url: string,
  {
    headers = {},
    method = 'GET',
    body,
    ca,
  }: { headers?: Record<string, string>; method?: string; body?: string; ca?: string } = {},
): Promise<Answer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const options = { method, headers, agent: false, ...(ca === undefined ? {} : { ca }) }
    const request = url.startsWith('https:') ? httpsRequest(url, options) : httpRequest(url, options)
    request.on('response', resolve).on('error', reject).end(body)
  })
  const parts: Buffer[] = []
  try {
    for await (const part of response) parts.push(part)
  } catch {}
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: Buffer.concat(parts),
    complete: response.complete,
  }
}

async function login(net: Internet, repository: string, basic?: string): Promise<Record<string, string>> {
  const headers: Record<string, string> = basic
    ? { authorization: `Basic ${Buffer.from(basic).toString('base64')}` }
    : {}
  const url = `${net.hub.tokenUrl}/token?service=registry.docker.io&scope=repository:${repository}:pull`
  const { body } = await ask(url, { headers })
  return { authorization: `Bearer ${JSON.parse(body.toString()).token}` }
}

async function blobUrl(net: Internet, repository: string, digest: string): Promise<string> {
  const { headers } = await ask(`${net.hub.url}/v2/${repository}/blobs/${digest}`, {
    headers: await login(net, repository),
  })
  return headers.location!
}

function errorCode({ body }: Answer): string {
  return JSON.parse(body.toString()).errors[0].code
}

const sha256 = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const busybox = 'library/busybox'

test('Docker Hub asks for a token, and says where to get it', async () => {
  await using net = await Internet.open()
  const ping = await ask(`${net.hub.url}/v2/`)
  assert.is(ping.status, 401)
  assert.is(ping.headers['docker-distribution-api-version'], 'registry/2.0')
  assert.is(ping.headers['www-authenticate'], `Bearer realm="${net.hub.tokenUrl}/token",service="registry.docker.io"`)

  const url = `${net.hub.url}/v2/${busybox}/manifests/latest`
  const refused = await ask(url)
  assert.is(refused.status, 401)
  assert.is(errorCode(refused), 'UNAUTHORIZED')
  assert.match(refused.headers['www-authenticate']!, /,scope="repository:library\/busybox:pull"$/)
  const bad = await ask(url, { headers: { authorization: 'Bearer nonsense' } })
  assert.match(bad.headers['www-authenticate']!, /,error="invalid_token"$/)

  const { status, headers, body } = await ask(url, { headers: await login(net, busybox) })
  assert.is(status, 200)
  assert.is(headers['content-type'], 'application/vnd.oci.image.index.v1+json')
  assert.is(headers['docker-content-digest'], sha256(body))
  assert.is(net.log.requests({ server: 'hub', status: 401 }).length, 3)
})

test('a token expires', async () => {
  await using net = await Internet.open()
  const headers = await login(net, busybox)
  net.hub.expireTokens()
  const url = `${net.hub.url}/v2/${busybox}/manifests/latest`
  assert.match((await ask(url, { headers })).headers['www-authenticate']!, /invalid_token/)
  net.hub.tokenTtl = 0
  assert.is((await ask(url, { headers: await login(net, busybox) })).status, 401)
})

test('a private repository is for those who log in, and looks like one that does not exist', async () => {
  await using net = await Internet.open()
  const url = (name: string) => `${net.hub.url}/v2/${name}/manifests/latest`
  for (const name of ['team/private', 'team/nothing']) {
    const { status, headers } = await ask(url(name), { headers: await login(net, name) })
    assert.is(status, 401)
    assert.match(headers['www-authenticate']!, /insufficient_scope/)
  }
  assert.is((await ask(url('team/private'), { headers: await login(net, 'team/private', 'alice:secret') })).status, 200)
  assert.is(net.log.requests({ server: 'token', user: 'alice' }).length, 1)

  const form = 'grant_type=password&username=alice&password=secret&scope=repository:team/private:pull'
  const { body } = await ask(`${net.hub.tokenUrl}/token`, { method: 'POST', body: form })
  const headers = { authorization: `Bearer ${JSON.parse(body.toString()).access_token}` }
  assert.is((await ask(url('team/private'), { headers })).status, 200)

  const wrong = { authorization: `Basic ${Buffer.from('alice:wrong').toString('base64')}` }
  assert.is((await ask(`${net.hub.tokenUrl}/token`, { headers: wrong })).status, 401)
})

test('a blob redirects to the CDN, which wants the signature and no token', async () => {
  await using net = await Internet.open()
  const [layer] = net.images.image(busybox).layers
  const headers = await login(net, busybox)
  const redirect = await ask(`${net.hub.url}/v2/${busybox}/blobs/${layer!.digest}`, { headers })
  assert.is(redirect.status, 307)
  const location = redirect.headers.location!
  assert.ok(location.startsWith(`${net.hub.cdnUrl}/`))
  assert.is((await ask(location, { headers })).status, 400)
  assert.is((await ask(location.replace(/\?.*/, ''))).status, 403)
  assert.is(sha256((await ask(location)).body), layer!.digest)
  net.hub.expireUrls()
  assert.is((await ask(location)).status, 403)
})

test('the CDN and the mirror serve ranges', async () => {
  await using net = await Internet.open()
  const image = await net.add({ repository: 'team/ranges', tag: 'latest', layers: [10_000] })
  net.gcr.repositories.add('team/ranges')
  const { digest, source } = image.layers[0]!
  const bytes = source as Buffer
  for (const url of [await blobUrl(net, 'team/ranges', digest), `${net.gcr.url}/v2/team/ranges/blobs/${digest}`]) {
    const range = (range: string, method = 'GET') => ask(url, { method, headers: { range } })
    const part = await range('bytes=100-199')
    assert.is(part.status, 206)
    assert.is(part.headers['content-range'], 'bytes 100-199/10000')
    assert.equal(part.body, bytes.subarray(100, 200))
    assert.equal((await range('bytes=9990-')).body, bytes.subarray(9990))
    assert.equal((await range('bytes=-10')).body, bytes.subarray(9990))
    assert.equal((await range('bytes=0-')).status, 206)
    assert.is((await range('bytes=9-5')).status, 200)
    const outside = await range('bytes=10000-')
    assert.is(outside.status, 416)
    assert.is(outside.headers['content-range'], 'bytes */10000')
    const head = await range('bytes=0-9', 'HEAD')
    assert.is(head.status, 200)
    assert.is(head.headers['content-length'], '10000')
  }
})

test('Docker Hub counts the GET of a manifest and no HEAD, and refuses when none is left', async () => {
  await using net = await Internet.open()
  const headers = await login(net, busybox)
  const url = `${net.hub.url}/v2/${busybox}/manifests/latest`
  net.hub.rateLimit = { limit: 100, remaining: 1, retryAfter: 7 }
  assert.is((await ask(url, { headers, method: 'HEAD' })).headers['ratelimit-remaining'], '1;w=21600')
  const last = await ask(url, { headers })
  assert.is(last.headers['ratelimit-limit'], '100;w=21600')
  assert.is(last.headers['ratelimit-remaining'], '0;w=21600')
  assert.is(last.headers['docker-ratelimit-source'], '127.0.0.1')
  const refused = await ask(url, { headers })
  assert.is(refused.status, 429)
  assert.is(refused.headers['retry-after'], '7')
  assert.is(errorCode(refused), 'TOOMANYREQUESTS')
  assert.is((await ask(url, { headers, method: 'HEAD' })).status, 200)
  assert.is((await ask(url, { headers: await login(net, busybox, 'alice:secret') })).status, 200)
})

test('Docker Hub says what it does not know', async () => {
  await using net = await Internet.open()
  const headers = await login(net, busybox)
  const nothing = sha256(Buffer.from('nothing'))
  const tag = await ask(`${net.hub.url}/v2/${busybox}/manifests/none`, { headers })
  assert.equal([tag.status, errorCode(tag)], [404, 'MANIFEST_UNKNOWN'])
  const blob = await ask(`${net.hub.url}/v2/${busybox}/blobs/${nothing}`, { headers })
  assert.equal([blob.status, errorCode(blob)], [404, 'BLOB_UNKNOWN'])
})

test('tags come in pages', async () => {
  await using net = await Internet.open()
  const headers = await login(net, busybox)
  const first = await ask(`${net.hub.url}/v2/${busybox}/tags/list?n=2`, { headers })
  assert.equal(JSON.parse(first.body.toString()), { name: busybox, tags: ['1', '1.35'] })
  assert.is(first.headers.link, `</v2/${busybox}/tags/list?n=2&last=1.35>; rel="next"`)
  const second = await ask(`${net.hub.url}/v2/${busybox}/tags/list?n=2&last=1.35`, { headers })
  assert.equal(JSON.parse(second.body.toString()).tags, ['latest'])
  assert.is(second.headers.link, undefined)
})

test('referrers are listed, and filtered by type', async () => {
  await using net = await Internet.open()
  const headers = await login(net, 'library/artifact')
  const { digest } = net.images.image('library/artifact')
  const list = async (query: string) => {
    const answer = await ask(`${net.hub.url}/v2/library/artifact/referrers/${digest}${query}`, { headers })
    return { filtered: answer.headers['oci-filters-applied'], index: JSON.parse(answer.body.toString()) }
  }
  const all = await list('')
  assert.is(all.filtered, undefined)
  assert.is(all.index.manifests[0].artifactType, 'application/vnd.example.sbom')
  const none = await list('?artifactType=other')
  assert.is(none.filtered, 'artifactType')
  assert.equal(none.index.manifests, [])
})

test('the mirror lacks a repository, a manifest and a layer, and its tag lags', async () => {
  await using net = await Internet.open()
  const get = (path: string) => ask(`${net.gcr.url}/v2/${path}`)
  assert.is((await get('')).status, 200)
  assert.is(errorCode(await get('library/zstd/manifests/latest')), 'NAME_UNKNOWN')
  const index = await get(`${busybox}/manifests/latest`)
  assert.is(index.status, 200)
  const image = net.images.image(busybox)
  assert.is(errorCode(await get(`${busybox}/manifests/${image.digest}`)), 'MANIFEST_UNKNOWN')
  const held = await get(`${busybox}/blobs/${image.layers[0]!.digest}`)
  assert.is(sha256(held.body), image.layers[0]!.digest)
  assert.is((await get(`library/forty/blobs/${net.images.image('library/forty').layers[20]!.digest}`)).status, 404)

  const lagging = (await get(`${busybox}/manifests/1`)).headers['docker-content-digest']
  assert.is(lagging, net.images.image(busybox, '1.35').digest)
  net.gcr.lacks.clear()
  net.gcr.tags.clear()
  assert.is((await get(`${busybox}/manifests/${image.digest}`)).status, 200)
  assert.equal((await get(`${busybox}/manifests/1`)).body, index.body)
})

test('a tag moves', async () => {
  await using net = await Internet.open()
  const url = `${net.hub.url}/v2/team/app/manifests/latest`
  const old = await net.add({ repository: 'team/app', tag: 'latest', layers: [2000, 1, 0] })
  const headers = await login(net, 'team/app')
  const tagged = async () => (await ask(url, { headers, method: 'HEAD' })).headers['docker-content-digest']
  assert.equal(
    old.layers.map(layer => layer.size),
    [2000, 1, 0],
  )
  assert.is(await tagged(), old.digest)
  const next = await net.add({ repository: 'team/app', layers: [2000, old.layers[0]!] })
  assert.is(await tagged(), old.digest)
  net.move('team/app', 'latest', next)
  assert.is(await tagged(), next.digest)
  net.move('team/app', 'latest', old.digest)
  assert.is(await tagged(), old.digest)
  assert.throws(() => net.move('team/app', 'latest', sha256(Buffer.from('nothing'))), /has no manifest/)
})

test('images are the same in each run', async () => {
  await using one = await Internet.open()
  await using two = await Internet.open()
  const digests = (net: Internet) => [...net.images.repositories].map(([name, { tags }]) => [name, ...tags.values()])
  assert.equal(digests(one), digests(two))
})

test('the log counts the bytes of bodies', async () => {
  await using net = await Internet.open()
  const { layers } = net.images.image(busybox)
  const url = await blobUrl(net, busybox, layers[0]!.digest)
  net.log.clear()
  await ask(url, { headers: { 'user-agent': 'test', range: 'bytes=0-999' } })
  await ask(url)
  await ask(url, { method: 'HEAD' })
  await net.log.idle()
  assert.is(net.log.bytes('cdn'), 1000 + layers[0]!.size)
  assert.is(net.log.bytes(), net.log.bytes('cdn'))
  const [first] = net.log.requests({ server: 'cdn', status: 206, path: /^\/registry-v2\// })
  assert.equal([first?.range, first?.userAgent, first?.finished], ['bytes=0-999', 'test', true])
})

test('a body is cut, corrupt, slow, late or refused', async () => {
  await using net = await Internet.open()
  const image = await net.add({ repository: 'library/forty', tag: 'faults', layers: [1_000_000] })
  const { digest, source } = image.layers[0]!
  const bytes = source as Buffer
  const suffer = async (fault: Fault, headers = {}) => {
    net.gcr.intercept = ({ method, path }) => (method === 'GET' && path.includes('/blobs/') ? fault : undefined)
    return ask(`${net.gcr.url}/v2/library/forty/blobs/${digest}`, { headers })
  }
  for (const at of [0, 600_000]) {
    net.log.clear()
    const cut = await suffer({ kind: 'cut', at })
    assert.equal([cut.status, cut.complete, cut.body.length], [200, false, at])
    await net.log.idle()
    assert.equal(
      net.log.requests().map(({ bytes, finished }) => [bytes, finished]),
      [[at, false]],
    )
  }

  const corrupt = await suffer({ kind: 'corrupt', at: 600_000 }, { range: 'bytes=599999-600001' })
  const [before, wrong, after] = bytes.subarray(599_999, 600_002)
  assert.equal([...corrupt.body], [before, wrong! ^ 0xff, after])
  assert.is(sha256(bytes), digest, 'the content itself stays as it is')

  const order: string[] = []
  const begun = new Promise(resolve => net.log.once('request', resolve))
  const slow = suffer({ kind: 'slow', bytesPerSecond: 2_000_000 }).finally(() => order.push('slow'))
  await begun
  net.gcr.intercept = undefined
  await ask(`${net.gcr.url}/v2/library/forty/blobs/${digest}`).finally(() => order.push('not slow'))
  assert.is(sha256((await slow).body), digest)
  assert.equal(order, ['not slow', 'slow'])
  assert.is(sha256((await suffer({ kind: 'delay', ms: 10 })).body), digest)

  const refused = await suffer({ kind: 'status', status: 503, headers: { 'retry-after': '1' } })
  assert.equal([refused.status, refused.headers['retry-after']], [503, '1'])
})

test('a server goes wrong in the ways of captive portals, and of those who redirect and challenge', async () => {
  await using net = await Internet.open()
  const url = `${net.gcr.url}/v2/library/forty/manifests/latest`
  const suffer = (fault: Fault, method = 'GET') => {
    net.gcr.intercept = () => fault
    return ask(url, { method })
  }
  const page = await suffer({ kind: 'portal' })
  assert.equal([page.status, page.complete], [200, true])
  assert.match(page.headers['content-type'] ?? '', /^text\/html/)
  assert.is(page.headers['content-length'], undefined)
  assert.match(page.body.toString(), /<p>/)
  assert.equal((await suffer({ kind: 'portal' }, 'HEAD')).body.length, 0)
  const login = await suffer({ kind: 'portal', login: 'http://portal.example/' })
  assert.equal([login.status, login.headers.location], [302, 'http://portal.example/'])
  const circle = await suffer({ kind: 'redirect' })
  assert.equal([circle.status, circle.headers.location], [307, new URL(url).pathname])
  assert.is((await suffer({ kind: 'redirect', to: 'https://10.0.0.1/' })).headers.location, 'https://10.0.0.1/')
  const challenged = await suffer({ kind: 'challenge', realm: 'https://a.example/token' })
  assert.is(challenged.status, 401)
  assert.match(
    challenged.headers['www-authenticate']!,
    /^Bearer realm="https:\/\/a.example\/token",.*error="invalid_token"$/,
  )
  assert.is(await suffer({ kind: 'reset' }).catch(({ code }) => code), 'ECONNRESET')
})

test('a body goes wrong in its length, or has no end', async () => {
  await using net = await Internet.open()
  const [layer] = (await net.add({ repository: 'library/forty', tag: 'faults', layers: [200_000] })).layers
  const url = `${net.gcr.url}/v2/library/forty/blobs/${layer!.digest}`
  const begin = (fault: Fault, enough: number) => {
    net.gcr.intercept = () => fault
    return new Promise<{ headers: IncomingHttpHeaders; body: Buffer }>((resolve, reject) => {
      const request = httpRequest(url, { agent: false }, response => {
        const parts: Buffer[] = []
        const look = (part?: Buffer) => {
          if (part) parts.push(part)
          const body = Buffer.concat(parts)
          if (body.length < enough && !response.complete) return
          resolve({ headers: response.headers, body })
          response.destroy()
        }
        response.on('data', look)
        response.on('end', look)
        response.on('error', () => {})
        look()
      })
      request.on('error', reject).end()
    })
  }
  const whole = layer!.source as Buffer
  const long = await begin({ kind: 'length', by: 10 }, 200_000)
  assert.equal([long.headers['content-length'], long.body.equals(whole)], ['200010', true])
  const short = await begin({ kind: 'length', by: -10 }, 199_990)
  assert.equal([short.headers['content-length'], short.body.length], ['199990', 199_990])
  const endless = await begin({ kind: 'endless' }, 1_000_000)
  assert.is(endless.headers['transfer-encoding'], 'chunked')
  assert.ok(endless.body.subarray(0, 200_000).equals(whole))
  for (const at of [0, 100_000]) {
    const stalled = await begin({ kind: 'stall', at }, at)
    assert.ok(stalled.body.equals(whole.subarray(0, at)))
  }
  await net.log.idle()
  const [last] = net.log.entries.slice(-1)
  assert.equal([last!.bytes, last!.finished], [100_000, false])
})

test('faults are switched on by request, for the requests that they are meant for', async () => {
  await using net = await Internet.open()
  await using faults = await Switchboard.open(net)
  const put = (rules: unknown) => ask(faults.url, { method: 'PUT', body: JSON.stringify(rules) })
  const ping = async (url: string) => (await ask(`${url}/v2/`)).status
  assert.is((await put([{ server: 'gcr', times: 1, fault: { kind: 'status', status: 503 } }])).status, 200)
  assert.equal([await ping(net.hub.url), await ping(net.gcr.url), await ping(net.gcr.url)], [401, 503, 200])
  await put([
    { path: '/manifests/', fault: { kind: 'status', status: 500 } },
    { fault: { kind: 'status', status: 418 } },
  ])
  assert.is((await ask(`${net.gcr.url}/v2/library/forty/manifests/latest`)).status, 500)
  assert.is(await ping(net.hub.url), 418)
  assert.is((await ask(faults.url, { method: 'DELETE' })).body.toString(), '[]\n')
  assert.is(await ping(net.gcr.url), 200)
  for (const wrong of [
    {},
    [{}],
    [{ fault: { kind: 'no such' } }],
    [{ fault: { kind: 'cut' } }],
    [{ fault: { kind: 'cut', at: '1' } }],
    [{ sever: 'gcr', fault: { kind: 'hang' } }],
    [null],
  ])
    assert.is((await put(wrong)).status, 400, JSON.stringify(wrong))
  assert.is(await ping(net.gcr.url), 200)
  assert.is((await ask(faults.url.replace('faults', ''))).status, 404)
})

test('the intercept of Docker Hub hears of its three servers', async () => {
  await using net = await Internet.open()
  const servers: ServerName[] = []
  net.hub.intercept = ({ server }) => {
    servers.push(server)
    return undefined
  }
  const { layers } = net.images.image(busybox)
  await ask(await blobUrl(net, busybox, layers[0]!.digest))
  assert.equal(servers, ['token', 'hub', 'cdn'])
})

test('a server goes down, with those that hang, and comes up on its port', async () => {
  await using net = await Internet.open()
  const url = `${net.gcr.url}/v2/`
  net.gcr.intercept = () => ({ kind: 'hang' })
  const hanging = ask(url).then(
    () => 'answered',
    () => 'gone',
  )
  if (net.log.entries.length === 0) await new Promise(resolve => net.log.once('request', resolve))
  await net.gcr.down()
  assert.is(await hanging, 'gone')
  const refused = await ask(url).catch(({ code }) => code)
  assert.is(refused, 'ECONNREFUSED')
  net.gcr.intercept = undefined
  await net.gcr.up()
  assert.is((await ask(url)).status, 200)

  await net.hub.down('token')
  assert.is(await ask(`${net.hub.tokenUrl}/token`).catch(({ code }) => code), 'ECONNREFUSED')
  assert.is((await ask(`${net.hub.url}/v2/`)).status, 401)
  await net.hub.down()
  for (const url of [net.hub.url, net.hub.tokenUrl, net.hub.cdnUrl]) {
    assert.is(await ask(url).catch(({ code }) => code), 'ECONNREFUSED')
  }
  await net.hub.up()
  assert.is((await ask(`${net.hub.url}/v2/`)).status, 401)
})

test('with tls every server has a certificate of the CA', async () => {
  await using net = await Internet.open({ tls: true })
  const ca = await readFile(net.ca!, 'utf8')
  assert.is((await ask(`${net.gcr.url}/v2/`, { ca })).status, 200)
  const localhost = net.hub.url.replace('127.0.0.1', 'localhost')
  const { headers } = await ask(`${localhost}/v2/`, { ca })
  assert.ok(headers['www-authenticate']?.startsWith(`Bearer realm="https://127.0.0.1:`))
})

test('a big layer comes from its file', async () => {
  const size = 65 * 1024 * 1024
  await using net = await Internet.open({ big: size })
  const { layers } = net.images.image('library/big')
  assert.type(layers[0]!.source, 'string')
  const { body } = await ask(`${net.gcr.url}/v2/library/big/blobs/${layers[0]!.digest}`)
  assert.equal([body.length, sha256(body)], [size, layers[0]!.digest])
})

test.run()
