import { randomBytes } from 'node:crypto'
import { type AddressInfo, createServer } from 'node:net'
import { createServer as createTlsServer, type TLSSocket, type TlsOptions } from 'node:tls'
import type { ByteRange } from '@shoal/oci/byte-range'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { SourceError, type SourceErrorCode } from '@shoal/store/source'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { heldBlob, makePeer, oddCertificate } from '../../../test/transfer-peer.ts'
import { type PeerAddress, type PeerAnswer, type PeerBody, PeerClient, PeerViolation } from './peer-client.ts'
import { PeerServer, type PeerServerOptions } from './peer-server.ts'

const bytes = randomBytes(3_000_000)
const blob = heldBlob(bytes)
const [server, member] = [await makePeer(), await makePeer()]
const never = new AbortController().signal

type Asked = { range?: ByteRange; signal?: AbortSignal; connect?: number; answer?: number; silence?: number }

function clientOf(peer: { certificate: typeof member.certificate } = member) {
  const client = new PeerClient(peer)
  return {
    client,
    ask: (
      to: PeerAddress,
      { range, signal = never, connect = 4000, answer = 4000, silence = 4000 }: Asked = {},
      digest: Digest = blob.digest,
    ) =>
      client.get(to, digest, {
        ...(range && { range }),
        connectTimeout: connect,
        answerTimeout: answer,
        silenceTimeout: silence,
        signal,
      }),
    [Symbol.dispose]: () => client.close(),
  }
}

/** A peer that holds the blob. */
async function honest(options: Partial<PeerServerOptions> = {}) {
  const peers = new PeerServer({
    certificate: server.certificate,
    admitsAddress: () => true,
    admits: () => true,
    open: async digest => (digest === blob.digest ? { blob, contentType: 'text/plain' } : undefined),
    maxUploads: 4,
    resting: () => undefined,
    onServed: () => {},
    now: () => performance.now(),
    ...options,
  })
  const { port } = await peers.listen('127.0.0.1', 0)
  return { at: { peerId: server.peerId, host: '127.0.0.1', port }, peers, [Symbol.asyncDispose]: () => peers.close(0) }
}

/** A peer that does with a connection, once something was asked on it, what a test wants. */
async function scripted(onAsked: (socket: TLSSocket, asked: string) => void, tls: TlsOptions = server.certificate) {
  const open = new Set<TLSSocket>()
  let connections = 0
  const peer = createTlsServer({ ...tls, requestCert: true, rejectUnauthorized: false, noDelay: true }, socket => {
    open.add(socket)
    connections++
    socket.on('error', () => {})
    socket.on('data', asked => onAsked(socket, asked.toString()))
  })
  peer.listen(0, '127.0.0.1')
  await new Promise(resolve => peer.once('listening', resolve))
  const { port } = peer.address() as AddressInfo
  return {
    at: { peerId: server.peerId, host: '127.0.0.1', port },
    get connections() {
      return connections
    },
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise(resolve => peer.close(resolve))
    },
  }
}

function bodyOf(answer: PeerAnswer): PeerBody {
  if (answer.status === 200 || answer.status === 206) return answer
  throw new Error(`it is answered with ${answer.status}`)
}

async function all(answer: PeerAnswer): Promise<Buffer> {
  const pieces: Buffer[] = []
  await bodyOf(answer).pipe(piece => {
    pieces.push(Buffer.from(piece))
    return undefined
  })
  return Buffer.concat(pieces)
}

async function fails(promise: Promise<unknown>, code: SourceErrorCode, violation = false): Promise<void> {
  try {
    await promise
  } catch (error) {
    assert.instance(error, SourceError)
    assert.is((error as SourceError).code, code, (error as SourceError).message)
    assert.is(error instanceof PeerViolation, violation, (error as SourceError).message)
    return
  }
  throw new Error(`it should have failed with ${code}`)
}

test('a blob, and a range of it', async () => {
  await using peer = await honest()
  using client = clientOf()
  const whole = bodyOf(await client.ask(peer.at))
  const { status, size, start, length, contentType } = whole
  assert.equal(
    { status, size, start, length, contentType },
    { status: 200, size: bytes.length, start: 0, length: bytes.length, contentType: 'text/plain' },
  )
  assert.ok((await all(whole)).equals(bytes))
  const part = bodyOf(await client.ask(peer.at, { range: { start: 5, end: 100_005 } }))
  assert.is(part.status, 206)
  assert.is(part.start, 5)
  assert.is(part.size, bytes.length)
  assert.ok((await all(part)).equals(bytes.subarray(5, 100_005)))
  const last = await client.ask(peer.at, { range: { start: 2_999_999, end: 9_000_000 } })
  assert.is((await all(last)).length, 1)
})

test('an empty blob', async () => {
  const empty = heldBlob(Buffer.alloc(0))
  await using peer = await honest({ open: async () => ({ blob: empty, contentType: 'text/plain' }) })
  using client = clientOf()
  for (let count = 0; count < 2; count++) {
    const body = bodyOf(await client.ask(peer.at))
    assert.is(body.size, 0)
    assert.is((await all(body)).length, 0)
  }
})

test('why a peer gives no bytes', async () => {
  let resting: string | undefined
  await using peer = await honest({ maxUploads: 0, resting: () => resting })
  using client = clientOf()
  assert.equal(await client.ask(peer.at, {}, digestOf(Buffer.from('other'))), { status: 404 })
  assert.equal(await client.ask(peer.at), { status: 503, refusal: 'busy' })
  resting = 'on battery'
  assert.equal(await client.ask(peer.at), { status: 503, refusal: 'resting' })
  const beyond = { start: bytes.length, end: bytes.length + 1 }
  assert.equal(await client.ask(peer.at, { range: beyond }), { status: 416, size: bytes.length })
})

test('one connection serves one request after another, and several serve several at once', async () => {
  const body = 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshoal'
  await using peer = await scripted(socket => socket.write(body))
  using client = clientOf()
  for (let count = 0; count < 5; count++) assert.is((await all(await client.ask(peer.at))).toString(), 'shoal')
  assert.is(peer.connections, 1)
  const three = await Promise.all([1, 2, 3].map(() => client.ask(peer.at)))
  for (const answer of three) assert.is((await all(answer)).toString(), 'shoal')
  assert.is(peer.connections, 3)
  const many = await Promise.all(Array.from({ length: 16 }, () => client.ask(peer.at)))
  await fails(client.ask(peer.at), 'limited')
  for (const answer of many) bodyOf(answer).abort()
})

test('a connection that the peer has closed meanwhile is replaced by another', async () => {
  const sockets: TLSSocket[] = []
  await using peer = await scripted(socket => {
    // The second request on a connection finds it closed.
    if (sockets.includes(socket)) return socket.destroy()
    sockets.push(socket)
    socket.write('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshoal')
  })
  using client = clientOf()
  for (let count = 0; count < 3; count++) assert.is((await all(await client.ask(peer.at))).toString(), 'shoal')
  assert.is(peer.connections, 3)
  await using restarted = await honest()
  assert.ok((await all(await client.ask(restarted.at))).equals(bytes))
  client.client.forget(server.peerId)
  assert.ok((await all(await client.ask(restarted.at))).equals(bytes))
})

test('a slow sink has the rest wait, and gets all of it in order', async () => {
  await using peer = await honest()
  using client = clientOf()
  const pieces: Buffer[] = []
  let busy = false
  const body = bodyOf(await client.ask(peer.at, { silence: 200 }))
  await new Promise(resolve => setTimeout(resolve, 250))
  let first = true
  await body.pipe(async piece => {
    assert.not(busy)
    busy = true
    pieces.push(Buffer.from(piece))
    // Time does not run while it waits.
    await new Promise(resolve => (first ? setTimeout(resolve, 250) : setImmediate(resolve)))
    first = false
    busy = false
  })
  assert.ok(Buffer.concat(pieces).equals(bytes))
})

test('a sink that fails, a signal, and an abort end it with their reason', async () => {
  await using peer = await honest()
  using client = clientOf()
  const reason = new Error('the disk is full')
  const ends = async (promise: Promise<unknown>) => assert.is(await promise.catch(error => error), reason)
  await ends(
    bodyOf(await client.ask(peer.at)).pipe(() => {
      throw reason
    }),
  )
  await ends(bodyOf(await client.ask(peer.at)).pipe(() => Promise.reject(reason)))
  const controller = new AbortController()
  const aborted = bodyOf(await client.ask(peer.at, { signal: controller.signal }))
  const piped = aborted.pipe(() => {
    controller.abort(reason)
    return undefined
  })
  await ends(piped)
  await ends(client.ask(peer.at, { signal: controller.signal }))
  await fails(
    (async () => {
      const body = bodyOf(await client.ask(peer.at))
      body.abort()
      await all(body)
    })(),
    'revoked',
  )
  await using silent = await scripted(() => {})
  const later = new AbortController()
  const waiting = client.ask(silent.at, { signal: later.signal })
  setImmediate(() => later.abort(reason))
  await ends(waiting)
})

test('nobody there, or one who does not answer the handshake, is unreachable', async () => {
  using client = clientOf()
  const silent = createServer(socket => void socket.on('error', () => {}).resume()).listen(0, '127.0.0.1')
  await new Promise(resolve => silent.once('listening', resolve))
  const { port } = silent.address() as AddressInfo
  const at = { peerId: server.peerId, host: '127.0.0.1', port }
  await fails(client.ask(at, { connect: 50 }), 'unreachable')
  await new Promise(resolve => silent.close(resolve))
  await fails(client.ask(at), 'unreachable')
})

test('a peer that is not the one that is meant, or cannot prove it, is not asked', async () => {
  using client = clientOf()
  const other = await makePeer()
  const asked: string[] = []
  for (const tls of [
    other.certificate,
    await oddCertificate(other, { claims: server }),
    await oddCertificate(server, { until: Date.now() - 1 }),
    await oddCertificate(server, { without: true }),
    { ...server.certificate, maxVersion: 'TLSv1.2' as const },
  ]) {
    await using peer = await scripted((_socket, text) => asked.push(text), tls)
    await fails(client.ask(peer.at), 'unreachable')
  }
  assert.equal(asked, [])
})

test('who is no member learns that the connection ends', async () => {
  await using peer = await honest({ admits: () => false })
  using client = clientOf()
  await fails(client.ask(peer.at), 'broken')
})

test('a peer that breaks off is broken, at the head and in the body', async () => {
  using client = clientOf()
  for (const text of [
    '',
    'HTTP/1.1 200 OK\r\ncont',
    'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshoal',
    'HTTP/1.1 404 X\r\ncontent-length: 10\r\n\r\n',
  ]) {
    await using peer = await scripted(socket => socket.end(text))
    await fails(client.ask(peer.at).then(all), 'broken')
  }
})

test('a peer that does not keep to the protocol is told apart', async () => {
  using client = clientOf()
  const head = 'HTTP/1.1 200 OK\r\n'
  for (const text of [
    'SSH-2.0-OpenSSH\r\n\r\n',
    `${head}\r\nshoal`,
    `${head}content-length: 5\r\n\r\nshoal and more`,
    `${head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshoal\r\n0\r\n\r\n`,
    `${head}x: ${'y'.repeat(20_000)}`,
    'HTTP/1.1 302 X\r\ncontent-length: 0\r\nlocation: /\r\n\r\n',
  ]) {
    await using peer = await scripted(socket => socket.write(text))
    await fails(client.ask(peer.at).then(all), 'broken', true)
  }
  await using whole = await scripted(socket => socket.write(`${head}content-length: 5\r\n\r\nshoal`))
  await fails(client.ask(whole.at, { range: { start: 1, end: 3 } }), 'broken', true)
})

test('an endless answer is cut where it should have ended', async () => {
  await using peer = await scripted(socket => {
    socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n')
    const more = () => {
      while (!socket.destroyed && socket.write(Buffer.alloc(65_536)));
    }
    socket.on('drain', more)
    more()
  })
  using client = clientOf()
  let received = 0
  const body = bodyOf(await client.ask(peer.at))
  const piped = body.pipe(piece => {
    received += piece.length
    return undefined
  })
  await fails(piped, 'broken', true)
  assert.ok(received <= 1_000_000)
})

test('a peer that says nothing, drips its head, or falls silent is late', async () => {
  using client = clientOf()
  await using silent = await scripted(() => {})
  await fails(client.ask(silent.at, { answer: 50 }), 'timeout')
  await using dripping = await scripted(socket => {
    const timer = setInterval(() => socket.write('H'), 1)
    socket.once('close', () => clearInterval(timer))
  })
  await fails(client.ask(dripping.at, { answer: 50 }), 'timeout')
  await using half = await scripted(socket => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshoal'))
  const body = await client.ask(half.at, { silence: 50 })
  await fails(all(body), 'timeout')
})

test('what comes unasked ends a connection', async () => {
  const answer = (text: string) => `HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}`
  let closed = Promise.withResolvers<void>()
  await using peer = await scripted(socket => {
    socket.write(answer('shoal'))
    socket.once('close', () => closed.resolve())
    setTimeout(() => socket.write(answer('wrong')), 5)
  })
  using client = clientOf()
  for (let count = 0; count < 3; count++) {
    closed = Promise.withResolvers()
    assert.is((await all(await client.ask(peer.at))).toString(), 'shoal')
    await closed.promise
  }
  assert.is(peer.connections, 3)
})

test('a closed client asks nobody, and what was under way ends', async () => {
  await using peer = await honest()
  using client = clientOf()
  const body = bodyOf(await client.ask(peer.at))
  client.client.close()
  await fails(all(body), 'revoked')
  await fails(client.ask(peer.at), 'revoked')
})

test('a renewed certificate is shown on new connections', async () => {
  const seen: (string | undefined)[] = []
  await using peer = await scripted(socket => {
    seen.push(socket.getPeerCertificate().fingerprint256)
    socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nshoal')
  })
  using client = clientOf()
  await all(await client.ask(peer.at))
  client.client.renew((await makePeer()).certificate)
  await all(await client.ask(peer.at))
  assert.is(new Set(seen).size, 2)
})

test('who asks for a chunk tells what is here, and hears what is there', async () => {
  const seen: (Uint8Array | undefined)[] = []
  const openChunk = async (_peer: string, _digest: Digest, chunk: number, has?: Uint8Array) => {
    seen.push(has)
    if (chunk === 0) return { busy: true, has: Buffer.of(2) } as const
    const range = { start: 0, end: bytes.length }
    return { size: bytes.length, range, read: () => blob.read(range), close: () => {}, has: Buffer.of(3, 1) }
  }
  await using peer = await honest({ openChunk })
  using it = clientOf()
  const times = { connectTimeout: 4000, answerTimeout: 4000, silenceTimeout: 4000, signal: never }
  const ask = (chunk: number, has: Uint8Array) => it.client.get(peer.at, blob.digest, { ...times, chunk, has })
  const busy = await ask(0, Buffer.of(1, 0))
  assert.equal(busy, { status: 503, refusal: 'busy', has: Buffer.of(2) })
  const given = await ask(1, new Uint8Array(5000))
  assert.ok(given.status === 200)
  assert.equal(given.has, Buffer.of(3, 1))
  given.abort()
  assert.equal(seen, [Buffer.of(1, 0), undefined], 'what does not fit is not told')
})

test.run()
