import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import { request } from 'node:https'
import { connect as connectTcp, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import type { Digest } from '@shoal/oci/digest'
import type { HeldBlob } from '@shoal/store/store'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { heldBlob, makePeer, oddCertificate } from '../../../test/transfer-peer.ts'
import { type Certificate, peerAt } from './certificate.ts'
import { Pace } from './pace.ts'
import { PeerServer, type PeerServerOptions, peerServerLimits, type Upload } from './peer-server.ts'

const bytes = randomBytes(3_000_000)
const blob = heldBlob(bytes)
const path = `/v1/blobs/${blob.digest}`
const contentType = 'application/octet-stream'
const [server, member, stranger] = [await makePeer(), await makePeer(), await makePeer()]

/** A server that holds the blob, and has one member. */
async function world(options: Partial<PeerServerOptions> = {}, held: HeldBlob = blob, host = '127.0.0.1') {
  const served: Upload[] = []
  const peers = new PeerServer({
    certificate: server.certificate,
    admitsAddress: () => true,
    admits: peer => peer === member.peerId,
    open: async (digest: Digest) => (digest === held.digest ? { blob: held, contentType } : undefined),
    maxUploads: 4,
    resting: () => undefined,
    onServed: upload => served.push(upload),
    now: () => performance.now(),
    ...options,
  })
  const { port } = await peers.listen(host, 0)
  const sockets: Socket[] = []
  const kept = <T extends Socket>(socket: T) => {
    sockets.push(socket)
    socket.on('error', () => {})
    return socket
  }
  return {
    peers,
    port,
    served,
    ask: (given: Asked = {}) => ask(port, given),
    tcp: () => kept(connectTcp({ host: '127.0.0.1', port })),
    tls: (given: ConnectionOptions = member.certificate) =>
      kept(connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...given })),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await peers.close(0)
    },
  }
}

type Asked = {
  host?: string
  path?: string
  method?: string
  headers?: Record<string, string>
  certificate?: Certificate
}
type Answer = { status: number; headers: IncomingHttpHeaders; body: Buffer }

async function ask(port: number, { certificate = member.certificate, ...asked }: Asked): Promise<Answer> {
  const { cert, key } = certificate
  const tls = { cert, key, rejectUnauthorized: false, agent: false as const }
  const sent = request({ host: '127.0.0.1', port, path, ...tls, ...asked })
  sent.end()
  return new Promise((resolve, reject) => {
    sent.on('error', reject)
    sent.on('response', response => {
      const pieces: Buffer[] = []
      response.on('data', piece => pieces.push(piece))
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces) }),
      )
    })
  })
}

/** What a socket gets until it is closed. */
async function untilClosed(socket: Socket): Promise<Buffer> {
  const pieces: Buffer[] = []
  socket.on('data', piece => pieces.push(piece))
  if (!socket.closed) await new Promise(resolve => socket.once('close', resolve))
  return Buffer.concat(pieces)
}

const get = `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`
const getAndClose = get.replace('host', 'connection: close\r\nhost')

test('a member gets a blob, and any range of it', async () => {
  await using it = await world()
  const whole = await it.ask()
  assert.is(whole.status, 200)
  assert.is(whole.headers['content-type'], contentType)
  assert.ok(whole.body.equals(bytes))
  const part = await it.ask({ headers: { range: 'bytes=1000-1999999' } })
  assert.is(part.status, 206)
  assert.is(part.headers['content-range'], `bytes 1000-1999999/${bytes.length}`)
  assert.ok(part.body.equals(bytes.subarray(1000, 2_000_000)))
  const head = await it.ask({ method: 'HEAD' })
  assert.is(head.headers['content-length'], String(bytes.length))
  const beyond = await it.ask({ headers: { range: `bytes=${bytes.length}-` } })
  assert.is(beyond.status, 416)
  assert.is((await it.ask({ headers: { 'if-none-match': `"${blob.digest}"` } })).status, 304)
  assert.equal(
    it.served.map(({ peer, digest, status, bytes }) => ({ peer, digest, status, bytes })),
    [
      [200, bytes.length],
      [206, 1_999_000],
      [200, 0],
      [416, 0],
      [304, 0],
    ].map(([status, bytes]) => ({ peer: member.peerId, digest: blob.digest, status, bytes })),
  )
})

/** Not every machine has IPv6. */
const loopbacks = ['127.0.0.1', '::1'].filter(host =>
  Object.values(networkInterfaces()).some(addresses => addresses?.some(({ address }) => address === host)),
)

for (const host of ['0.0.0.0', '::'])
  test(`at ${host} members get it over IPv4 and IPv6`, async () => {
    const seen: string[] = []
    const admitsAddress = (ip: string) => seen.push(ip) > 0
    await using it = await world({ admitsAddress }, blob, host)
    for (const host of loopbacks) assert.ok((await it.ask({ host })).body.equals(bytes))
    assert.equal(seen, loopbacks)
  })

test('there is nothing but blobs that are held and may be had', async () => {
  await using it = await world()
  const other = `sha256:${'0'.repeat(64)}`
  for (const path of [
    '/',
    '/v2/',
    `/v1/blobs/${other}`,
    '/v1/blobs/',
    '/v1/blobs/../../etc/passwd',
    `/v1/blobs/${blob.digest}?x`,
  ])
    assert.is((await it.ask({ path })).status, 404, path)
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) assert.is((await it.ask({ method })).status, 405, method)
})

test('a disk that fails is told of as such, before the head and after it', async () => {
  await using early = await world({ open: () => Promise.reject(new Error('the disk is gone')) })
  assert.is((await early.ask()).status, 500)
  assert.match(String(early.served[0]?.error), /the disk is gone/)
  let reads = 0
  const rotten = heldBlob(bytes, () => (++reads > 2 ? Promise.reject(new Error('it is rotten')) : undefined))
  await using late = await world({}, rotten)
  await late.ask().then(
    () => assert.unreachable(),
    () => {},
  )
  assert.match(String(late.served[0]?.error), /it is rotten/)
})

test('when all slots are taken, and while the machine rests, it says so; what brings no bytes is answered', async () => {
  const gate = Promise.withResolvers<void>()
  const slow = heldBlob(bytes, () => gate.promise)
  let resting: string | undefined
  const seen: string[] = []
  const rests = (address: string) => {
    seen.push(address)
    return resting
  }
  await using it = await world({ maxUploads: 2, resting: rests }, slow)
  const uploads = [it.ask(), it.ask()]
  while (seen.length < 2) await new Promise(resolve => setImmediate(resolve))
  const busy = await it.ask()
  assert.is(busy.status, 503)
  assert.is(busy.headers['shoal-refusal'], 'busy')
  assert.is(busy.headers['retry-after'], '1')
  assert.is((await it.ask({ method: 'HEAD' })).status, 200)
  assert.is((await it.ask({ headers: { range: `bytes=${bytes.length}-` } })).status, 416)
  resting = 'on battery'
  assert.is((await it.ask()).headers['shoal-refusal'], 'resting')
  assert.equal(new Set(seen), new Set(['127.0.0.1']))
  gate.resolve()
  for (const { body } of await Promise.all(uploads)) assert.ok(body.equals(bytes))
  resting = undefined
  assert.is((await it.ask()).status, 200)
})

/** Has the second megabyte given as chunk 1 of a blob that is not whole, and is 3,000,000 bytes long. */
function spreading(answers: Partial<Record<string, 'lacks' | 'busy'>> = {}) {
  const asked: [string, Digest, number, Uint8Array | undefined][] = []
  const seen = { asked, open: 0 }
  const openChunk = async (peer: string, digest: Digest, chunk: number, theirs?: Uint8Array) => {
    asked.push([peer, digest, chunk, theirs])
    const answer = answers[chunk]
    const has = Uint8Array.of(0b110)
    if (answer) return answer === 'busy' ? ({ busy: true, has } as const) : answer
    seen.open++
    const range = { start: chunk * 1_000_000, end: (chunk + 1) * 1_000_000 }
    return { size: bytes.length, range, read: () => blob.read(range), close: () => void seen.open--, has }
  }
  return { seen, options: { open: async () => undefined, openChunk } satisfies Partial<PeerServerOptions> }
}

/** How a chunk is asked for: its number, and the bytes that it is. */
const askFor = (chunk: number | string, range: string | undefined = 'bytes=1000000-1999999') => ({
  headers: { 'shoal-chunk': String(chunk), ...(range && { range }) },
})

test('a chunk is given of what is not whole yet, and its slot is free again afterwards', async () => {
  const { seen, options } = spreading()
  await using it = await world(options)
  const part = await it.ask(askFor(1))
  assert.is(part.status, 206)
  assert.is(part.headers['content-range'], `bytes 1000000-1999999/${bytes.length}`)
  assert.ok(part.body.equals(bytes.subarray(1_000_000, 2_000_000)))
  assert.equal(seen, { asked: [[member.peerId, blob.digest, 1, undefined]], open: 0 })
  assert.is(part.headers['shoal-has'], 'Bg')
  await it.ask({ headers: { ...askFor(1).headers, 'shoal-has': 'AQE' } })
  assert.equal(seen.asked.pop()?.[3], Buffer.of(1, 1))
  assert.equal(
    it.served.map(({ status, bytes }) => [status, bytes]),
    [
      [206, 1_000_000],
      [206, 1_000_000],
    ],
  )
  // Without the number it is a request for what is held, and nothing is.
  assert.is((await it.ask({ headers: { range: 'bytes=1000000-1999999' } })).status, 404)
  assert.is(seen.asked.length, 1)
})

test('a blob that is one chunk is given without a range', async () => {
  const openChunk = async () => ({
    size: bytes.length,
    range: { start: 0, end: bytes.length },
    read: () => blob.read({ start: 0, end: bytes.length }),
    close: () => {},
    has: Uint8Array.of(1),
  })
  await using it = await world({ open: async () => undefined, openChunk })
  const whole = await it.ask(askFor(0, ''))
  assert.is(whole.status, 200)
  assert.ok(whole.body.equals(bytes))
})

test('a chunk that is not there, or not to be had now, is refused as such', async () => {
  const { seen, options } = spreading({ 0: 'lacks', 2: 'busy' })
  let resting: string | undefined
  await using it = await world({ ...options, resting: () => resting })
  assert.is((await it.ask(askFor(0, 'bytes=0-999999'))).status, 404)
  const busy = await it.ask(askFor(2, 'bytes=2000000-2999999'))
  assert.is(busy.status, 503)
  assert.is(busy.headers['shoal-refusal'], 'busy')
  assert.is(busy.headers['shoal-has'], 'Bg')
  resting = 'on battery'
  const rests = await it.ask(askFor(1))
  assert.is(rests.status, 503)
  assert.is(rests.headers['shoal-refusal'], 'resting')
  assert.is(seen.asked.length, 2)
})

test('a chunk is all of the bytes that were asked for, or nothing is given', async () => {
  const { seen, options } = spreading()
  await using it = await world(options)
  for (const range of ['bytes=0-999999', 'bytes=1000000-1999998', 'bytes=1000000-', 'bytes=3000000-', ''])
    assert.ok((await it.ask(askFor(1, range))).status >= 400, range)
  for (const number of ['-1', '1.5', 'x', '', '12345678901']) assert.is((await it.ask(askFor(number))).status, 404)
  assert.is((await it.ask({ method: 'HEAD', ...askFor(1) })).status, 404)
  assert.equal(new Set(seen.asked.map(([, , chunk]) => chunk)), new Set([1]))
  assert.is(seen.open, 0)
})

test('where no downloads are shared, there are no chunks', async () => {
  await using it = await world()
  assert.is((await it.ask(askFor(1))).status, 404)
})

test('uploads share a pace', async () => {
  let now = 0
  const turns: number[] = []
  const after = (ms: number, then: () => void) => {
    turns.push(ms)
    now += ms
    setImmediate(then)
  }
  await using it = await world({ pace: new Pace({ rate: 1_000_000, now: () => now, after }) })
  const [one, other] = await Promise.all([it.ask(), it.ask()])
  assert.ok(one.body.equals(bytes) && other.body.equals(bytes))
  assert.ok(turns.length > 20)
})

test('a stranger gets no byte of an answer', async () => {
  await using it = await world()
  const { cert, key } = stranger.certificate
  const now = Date.now()
  const odd = {
    'of nobody': {},
    'of another peer': { cert, key },
    expired: await oddCertificate(member, { from: now - 2000_000, until: now - 1000_000 }),
    'with a forged extension': await oddCertificate(stranger, { claims: member }),
    'of no peer at all': await oddCertificate(member, { without: true }),
    torn: await oddCertificate(member, { torn: true }),
    'and one more': { cert: `${member.certificate.cert}\n${cert}`, key: member.certificate.key },
    'for TLS 1.2': { ...member.certificate, maxVersion: 'TLSv1.2' as const },
  }
  for (const [what, tls] of Object.entries(odd)) {
    const socket = it.tls(tls)
    socket.write(getAndClose)
    assert.is((await untilClosed(socket)).length, 0, what)
  }
  assert.is(it.served.length, 0)
  const known = it.tls()
  known.write(getAndClose)
  assert.ok((await untilClosed(known)).length > bytes.length)
})

test('a session is never resumed', async () => {
  await using it = await world()
  const first = it.tls()
  const [session]: Buffer[] = await once(first, 'session')
  assert.ok(session)
  // What is written while Node tells of the session does not leave.
  await new Promise(resolve => setImmediate(resolve))
  first.write(getAndClose)
  await untilClosed(first)
  const again = it.tls({ ...member.certificate, session })
  await once(again, 'secureConnect')
  assert.not(again.isSessionReused())
  const without = it.tls({ session })
  without.write(getAndClose)
  assert.is((await untilClosed(without)).length, 0)
})

test('an address that is not admitted, and connections beyond the bounds, end before TLS', async () => {
  await using closed = await world({ admitsAddress: ip => ip !== '127.0.0.1' })
  assert.is((await untilClosed(closed.tcp())).length, 0)
  const limits = { ...peerServerLimits, connections: 8, perAddress: 5, perPeer: 2 }
  await using it = await world({ limits })
  const flood = Array.from({ length: 40 }, () => it.tcp())
  const ended = flood.map(socket => untilClosed(socket))
  await Promise.race([Promise.all(ended.slice(5)), Promise.any(ended.slice(0, 5))])
  assert.is(flood.filter(socket => !socket.closed).length, 5)
  for (const socket of flood) socket.destroy()
  await Promise.all(ended)
  const lines = Array.from({ length: 4 }, () => it.tls())
  await Promise.any(lines.slice(0, 4).map(line => untilClosed(line)))
  for (const line of lines) line.destroy()
})

test('one peer has so many connections', async () => {
  await using it = await world({ limits: { ...peerServerLimits, perPeer: 2 } })
  const lines: TLSSocket[] = []
  for (let count = 0; count < 2; count++) {
    const line = it.tls()
    line.write(`HEAD ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
    await once(line, 'data')
    lines.push(line)
  }
  const third = it.tls()
  third.write(get)
  assert.is((await untilClosed(third)).length, 0)
  assert.not(lines.some(({ closed }) => closed))
})

test('who is slow with the handshake, with a request, or with the next one is let go', async () => {
  await using it = await world({ limits: { ...peerServerLimits, arrival: 100, idle: 100 } })
  const silent = it.tcp()
  assert.is((await untilClosed(silent)).length, 0)
  const idle = it.tls()
  assert.is((await untilClosed(idle)).length, 0)
  const dripping = it.tls()
  dripping.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n`)
  const drip = setInterval(() => dripping.write('x-y: z\r\n'), 5)
  const got = await untilClosed(dripping)
  clearInterval(drip)
  assert.is(got.length, 0)
  const one = it.tls()
  one.write(`HEAD ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
  assert.match((await untilClosed(one)).toString(), /^HTTP\/1.1 200/)
})

test('garbage ends a connection, and harms nothing else', async () => {
  await using it = await world()
  const plain = it.tcp()
  plain.write(get)
  await untilClosed(plain)
  const noise = it.tcp()
  noise.write(randomBytes(20_000))
  await untilClosed(noise)
  for (const text of [randomBytes(5000), `GET ${path} HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`]) {
    const line = it.tls()
    line.write(text)
    assert.match((await untilClosed(line)).toString(), /^(HTTP\/1.1 4\d\d |$)/)
  }
  const greedy = it.tls()
  greedy.write(get.repeat(50))
  const got = await untilClosed(greedy)
  assert.ok(got.length < 4 * bytes.length)
  assert.is((await it.ask()).status, 200)
})

test('a peer that is a member no longer is not answered', async () => {
  let admitted = true
  await using it = await world({ admits: () => admitted })
  const line = it.tls()
  line.write(`HEAD ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
  await once(line, 'data')
  admitted = false
  line.write(get)
  assert.is((await untilClosed(line)).length, 0)
})

test('a client that leaves frees its slot', async () => {
  await using it = await world({ maxUploads: 1 })
  const line = it.tls()
  line.write(get)
  await once(line, 'readable')
  line.destroy()
  while (it.served.length === 0) await new Promise(resolve => setImmediate(resolve))
  assert.ok(it.served[0]?.error)
  assert.is((await it.ask()).status, 200)
})

test('a renewed certificate is shown on new connections, and old ones go on', async () => {
  await using it = await world()
  const fingerprint = (line: TLSSocket) => line.getPeerCertificate().fingerprint256
  const head = `HEAD ${path} HTTP/1.1\r\nhost: x\r\n\r\n`
  const old = it.tls()
  old.write(head)
  await once(old, 'data')
  const renewed = await oddCertificate(server)
  it.peers.renew(renewed)
  old.write(head)
  await once(old, 'data')
  const fresh = it.tls()
  await once(fresh, 'secureConnect')
  assert.is.not(fingerprint(fresh), fingerprint(old))
  assert.is(await peerAt(fresh), server.peerId)
  assert.is(fresh.getProtocol(), 'TLSv1.3')
  assert.is(fresh.getCipher().name, 'TLS_AES_128_GCM_SHA256')
})

test('closing lets what is under way end, for a while', async () => {
  const gate = Promise.withResolvers<void>()
  const reached = Promise.withResolvers<void>()
  const slow = heldBlob(bytes, () => {
    reached.resolve()
    return gate.promise
  })
  await using it = await world({}, slow)
  const upload = it.ask()
  await reached.promise
  const idle = it.tls()
  await once(idle, 'secureConnect')
  const closing = it.peers.close(10_000)
  gate.resolve()
  assert.ok((await upload).body.equals(bytes))
  await closing
  await untilClosed(idle)
  const begun = Promise.withResolvers<void>()
  const never = heldBlob(bytes, () => {
    begun.resolve()
    return new Promise(resolve => setTimeout(resolve, 50))
  })
  await using other = await world({}, never)
  const broken = other.ask().then(
    () => 'whole',
    () => 'broken',
  )
  await begun.promise
  await other.peers.close(0)
  assert.is(await broken, 'broken')
})

test.run()
