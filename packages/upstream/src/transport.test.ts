import { randomBytes } from 'node:crypto'
import { getEventListeners, once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, createServer as createSocketServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SourceError, type SourceErrorCode } from '@shoal/store/source'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makeCertificate } from '../../../scripts/internet/certificate.ts'
import { ScriptedServer } from '../../../test/scripted-server.ts'
import { AddressPolicy } from './address-policy.ts'
import { type Response, Transport, type TransportOptions } from './transport.ts'

const never = new AbortController().signal

function transportTo(urls: string | readonly string[], options: Partial<TransportOptions> = {}) {
  const transport = new Transport({
    policy: new AddressPolicy([urls].flat().map(url => new URL(url))),
    ca: undefined,
    connectTimeout: 2000,
    answerTimeout: 4000,
    bodyTimeout: 2000,
    connections: 4,
    env: {},
    ...options,
  })
  return {
    [Symbol.asyncDispose]: () => transport.close(),
    get: (url: string, signal = never, method: 'GET' | 'HEAD' = 'GET', bulk = false) =>
      transport.request({ method, url: new URL(url), headers: { 'x-test': '1' }, signal, bulk }),
  }
}

/** A server of bare sockets. */
async function sockets(onSocket: (socket: Socket) => void) {
  const open = new Set<Socket>()
  const server = createSocketServer(socket => {
    open.add(socket)
    socket.on('error', () => {})
    onSocket(socket)
  })
  const url = await listening(server)
  return {
    url,
    [Symbol.asyncDispose]: async () => {
      for (const socket of open) socket.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

async function listening(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function fails(promise: Promise<unknown>, code: SourceErrorCode): Promise<SourceError> {
  try {
    await promise
  } catch (error) {
    assert.instance(error, SourceError)
    assert.is((error as SourceError).code, code, (error as SourceError).message)
    return error as SourceError
  }
  throw new Error(`it should have failed with ${code}`)
}

const text = async (response: Response) => (await response.bytes(1024 * 1024)).toString()

test('an answer has its status, its headers and its body', async () => {
  await using server = await ScriptedServer.open((request, response) => {
    response.writeHead(203, { 'x-path': request.url, 'set-cookie': ['a', 'b'] })
    response.end('hello')
  })
  await using transport = transportTo(server.url)
  const response = await transport.get(`${server.url}/a/b?c=d`)
  assert.is(response.status, 203)
  assert.is(response.header('x-path'), '/a/b?c=d')
  assert.is(response.header('set-cookie'), 'a')
  assert.is(response.header('absent'), undefined)
  assert.is(await text(response), 'hello')
  assert.is(server.requests[0]?.headers['x-test'], '1')
})

test('the answer to a HEAD has a length and no body', async () => {
  await using server = await ScriptedServer.open((_request, response) => {
    response.writeHead(200, { 'content-length': 5000 })
    response.end()
  })
  await using transport = transportTo(server.url)
  const response = await transport.get(server.url, never, 'HEAD')
  assert.is(response.header('content-length'), '5000')
  assert.is(await text(response), '')
})

test('an early hint is not the answer', async () => {
  await using server = await ScriptedServer.open((_request, response) => {
    response.writeEarlyHints({ link: '</x>; rel=preload' }, () => response.end('hello'))
  })
  await using transport = transportTo(server.url)
  const response = await transport.get(server.url)
  assert.is(response.status, 200)
  assert.is(await text(response), 'hello')
})

test('a body that comes with the head waits until it is wanted', async () => {
  await using server = await sockets(socket =>
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello')),
  )
  await using transport = transportTo(server.url)
  const response = await transport.get(server.url)
  await new Promise(resolve => setTimeout(resolve, 20))
  assert.is(await text(response), 'hello')
})

test('the body waits for a sink that is slow, piece by piece', async () => {
  const body = Buffer.alloc(3_000_000, 'shoal')
  await using server = await ScriptedServer.open((_request, response) => void response.end(body))
  await using transport = transportTo(server.url)
  const response = await transport.get(server.url)
  const pieces: Buffer[] = []
  let busy = false
  await response.pipe(async bytes => {
    assert.not(busy)
    busy = true
    await new Promise(resolve => setImmediate(resolve))
    pieces.push(Buffer.from(bytes))
    busy = false
  })
  assert.ok(Buffer.concat(pieces).equals(body))
})

test('a sink that throws, or rejects, ends the connection', async () => {
  for (const sink of [
    () => {
      throw new SourceError('revoked', 'enough')
    },
    () => Promise.reject(new SourceError('revoked', 'enough')),
  ]) {
    const closed = Promise.withResolvers<void>()
    await using server = await ScriptedServer.open((_request, response) => {
      response.on('close', () => closed.resolve())
      response.write('hello')
    })
    await using transport = transportTo(server.url)
    const response = await transport.get(server.url)
    await fails(response.pipe(sink), 'revoked')
    await closed.promise
  }
})

test('more bytes than the limit are refused', async () => {
  await using server = await ScriptedServer.open((_request, response) => void response.end('x'.repeat(101)))
  await using transport = transportTo(server.url)
  await fails((await transport.get(server.url)).bytes(100), 'broken')
  assert.is((await (await transport.get(server.url)).bytes(101)).length, 101)
})

test('a large body that is wanted as a whole is what was sent', async () => {
  const body = randomBytes(3_000_000)
  await using server = await ScriptedServer.open((_request, response) => void response.end(body))
  await using transport = transportTo(server.url)
  const whole = await Promise.all([1, 2].map(async () => (await transport.get(server.url)).bytes(4_000_000)))
  for (const bytes of whole) assert.ok(bytes.equals(body))
})

test('nobody listens: unreachable', async () => {
  const server = await ScriptedServer.open(() => {})
  await server[Symbol.asyncDispose]()
  await using transport = transportTo(server.url)
  const error = await fails(transport.get('http://127.0.0.1:1/'), 'unreachable')
  assert.match(error.message, '127.0.0.1:1')
})

test('a name that does not exist: unreachable', async () => {
  await using transport = transportTo('http://no-such-host.invalid')
  await fails(transport.get('http://no-such-host.invalid/'), 'unreachable')
})

test('a server that says nothing: timeout, and the connection ends', async () => {
  const closed = Promise.withResolvers<void>()
  await using server = await sockets(socket => socket.resume().on('close', () => closed.resolve()))
  await using transport = transportTo(server.url, { connectTimeout: 30, answerTimeout: 60 })
  await fails(transport.get(server.url), 'timeout')
  await closed.promise
})

test('a server that falls silent in the body: timeout', async () => {
  await using server = await ScriptedServer.open((_request, response) => {
    response.writeHead(200, { 'content-length': 10 })
    response.write('hello')
  })
  await using transport = transportTo(server.url, { bodyTimeout: 50 })
  await fails((await transport.get(server.url)).bytes(100), 'timeout')
})

test('a sink that takes its time is no silence of the server', async () => {
  await using server = await ScriptedServer.open((_request, response) => {
    response.write('hello')
    setTimeout(() => response.end('world'), 5)
  })
  await using transport = transportTo(server.url, { bodyTimeout: 1000 })
  let received = ''
  await (await transport.get(server.url)).pipe(async bytes => {
    received += Buffer.from(bytes)
    await new Promise(resolve => setTimeout(resolve, 20))
  })
  assert.is(received, 'helloworld')
})

test('a body that ends early is broken', async () => {
  await using server = await sockets(socket =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello')),
  )
  await using transport = transportTo(server.url)
  await fails((await transport.get(server.url)).bytes(100), 'broken')
})

test('a connection that is reset is broken, before the head and in the body', async () => {
  for (const sent of ['', 'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello']) {
    await using server = await sockets(socket =>
      socket.once('data', () => socket.write(sent, () => setImmediate(() => socket.resetAndDestroy()))),
    )
    await using transport = transportTo(server.url)
    await fails(
      transport.get(server.url).then(response => response.bytes(100)),
      'broken',
    )
  }
})

test('what is not HTTP is broken', async () => {
  for (const answer of [
    'SSH-2.0-OpenSSH_9.2\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n',
    'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n',
    `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`,
  ]) {
    await using server = await sockets(socket => socket.once('data', () => socket.write(answer)))
    await using transport = transportTo(server.url)
    await fails(transport.get(server.url), 'broken')
  }
})

test('an abort before the request, before the head and in the body ends it with the reason', async () => {
  const reason = new SourceError('revoked', 'enough')
  const asked = Promise.withResolvers<void>()
  await using server = await ScriptedServer.open((request, response) => {
    if (request.url === '/silent') asked.resolve()
    else response.write('hello')
  })
  await using transport = transportTo(server.url)
  assert.is(await fails(transport.get(server.url, AbortSignal.abort(reason)), 'revoked'), reason)
  const first = new AbortController()
  const silent = transport.get(`${server.url}/silent`, first.signal)
  await asked.promise
  first.abort(reason)
  assert.is(await fails(silent, 'revoked'), reason)
  const second = new AbortController()
  const response = await transport.get(server.url, second.signal)
  const body = response.pipe(() => {
    second.abort(reason)
    return undefined
  })
  assert.is(await fails(body, 'revoked'), reason)
  await fails(response.bytes(10), 'revoked')
})

test('an abort while it is still connecting ends it at once', async () => {
  await using transport = transportTo('http://192.0.2.1', { env: {} })
  const abort = new AbortController()
  const request = transport.get('http://192.0.2.1/', abort.signal)
  abort.abort(new SourceError('revoked', 'enough'))
  await fails(request, 'revoked')
})

test('what was discarded leaves the connection for the next request if its rest is small, else closes it', async () => {
  const ports = new Set<number | undefined>()
  await using server = await ScriptedServer.open((request, response) => {
    ports.add(request.socket.remotePort)
    response.end(Buffer.alloc(request.url === '/large' ? 10_000_000 : 1000))
  })
  await using transport = transportTo(server.url, { connections: 1 })
  for (let i = 0; i < 3; i++) {
    const response = await transport.get(`${server.url}/small`, never, 'GET', true)
    response.discard()
  }
  assert.is(ports.size, 1)
  const large = await transport.get(`${server.url}/large`, never, 'GET', true)
  large.discard()
  await text(await transport.get(`${server.url}/small`, never, 'GET', true))
  assert.is(ports.size, 2)
})

test('of long answers only so many are under way at once, and to wait for a turn does not run out of time', async () => {
  const waiting: ServerResponse[] = []
  await using server = await ScriptedServer.open((_request, response) => {
    response.write('slow')
    waiting.push(response)
  })
  await using transport = transportTo(server.url, { connections: 2, connectTimeout: 20, answerTimeout: 40 })
  const bodies = Array.from({ length: 6 }, async () => text(await transport.get(server.url, never, 'GET', true)))
  for (let ended = 0; ended < 6; ended += 2) {
    await new Promise(resolve => setTimeout(resolve, 50))
    assert.is(server.requests.length, ended + 2)
    for (const response of waiting.splice(0)) response.end()
  }
  assert.equal(await Promise.all(bodies), Array(6).fill('slow'))
})

test('who waits for a turn can be aborted, and takes none; short answers need no turn', async () => {
  await using server = await ScriptedServer.open((_request, response) => void response.write('slow'))
  await using transport = transportTo(server.url, { connections: 1 })
  const first = await transport.get(server.url, never, 'GET', true)
  const abort = new AbortController()
  const second = transport.get(server.url, abort.signal, 'GET', true)
  const third = transport.get(server.url, never, 'GET', true)
  abort.abort(new SourceError('revoked', 'enough'))
  await fails(second, 'revoked')
  ;(await transport.get(server.url)).abort()
  first.abort()
  ;(await third).abort()
  assert.is(server.requests.length, 3)
})

test('a turn is given back by whatever ends a request', async () => {
  await using server = await sockets(socket => socket.once('data', () => socket.destroy()))
  await using transport = transportTo(server.url, { connections: 1 })
  for (let i = 0; i < 3; i++) await fails(transport.get(server.url, never, 'GET', true), 'broken')
  for (let i = 0; i < 3; i++) await fails(transport.get(server.url, never, 'HEAD', true), 'broken')
})

test('a host that is not named and whose address is not public is refused after DNS', async () => {
  await using server = await ScriptedServer.open((_request, response) => void response.end('secret'))
  await using transport = transportTo('https://registry.example')
  await fails(transport.get(`https://localhost:${server.port}/`), 'broken')
  await fails(transport.get(`https://127.0.0.1:${server.port}/`), 'broken')
  assert.is(server.requests.length, 0)
})

test('a CA of one’s own is trusted beside the others, and only where it is given', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-transport-'))
  const { ca, cert, key } = await makeCertificate(folder)
  const listener: RequestListener = (_request, response) => void response.end('hello')
  const server = createTlsServer({ cert, key }, listener)
  const url = (await listening(server)).replace('http', 'https')
  try {
    await using trusting = transportTo(url, { ca: (await readFile(ca)).toString() })
    assert.is(await text(await trusting.get(url)), 'hello')
    await using wary = transportTo(url)
    await fails(wary.get(url), 'broken')
  } finally {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true })
  }
})

/** A proxy: for plain http by absolute URL, for https by CONNECT. */
async function proxy(asked: string[], authorizations: (string | undefined)[] = []) {
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    authorizations.push(request.headers['proxy-authorization'])
    response.end('from the proxy')
  })
  server.on('connect', (request, socket) => {
    asked.push(`CONNECT ${request.url}`)
    authorizations.push(request.headers['proxy-authorization'])
    const [host = '', port = ''] = (request.url ?? '').split(':')
    const onward = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      onward.pipe(socket).pipe(onward)
    })
    for (const end of [socket, onward])
      end.on('error', () => {}).on('close', () => [socket, onward].map(s => s.destroy()))
  })
  const url = await listening(server)
  return {
    url,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

test('a proxy of the environment is used for http, save for NO_PROXY', async () => {
  await using server = await ScriptedServer.open((_request, response) => void response.end('direct'))
  const asked: string[] = []
  await using through = await proxy(asked)
  await using proxied = transportTo(server.url, { env: { HTTP_PROXY: through.url } })
  assert.is(await text(await proxied.get(`${server.url}/x`)), 'from the proxy')
  assert.equal(asked, [`GET ${server.url}/x`])
  await using direct = transportTo(server.url, { env: { http_proxy: through.url, no_proxy: '127.0.0.1' } })
  assert.is(await text(await direct.get(`${server.url}/x`)), 'direct')
  await using lower = transportTo(server.url, { env: { HTTP_PROXY: through.url, http_proxy: '' } })
  assert.is(await text(await lower.get(`${server.url}/x`)), 'direct')
})

test('https goes through a proxy by CONNECT, with the proxy’s credentials, also to public hosts', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-transport-'))
  const { ca, cert, key } = await makeCertificate(folder)
  const server = createTlsServer({ cert, key }, (_request, response) => void response.end('hello'))
  const url = (await listening(server)).replace('http', 'https')
  const asked: string[] = []
  const authorizations: (string | undefined)[] = []
  try {
    await using through = await proxy(asked, authorizations)
    const env = { HTTPS_PROXY: through.url.replace('//', '//me:secret@') }
    await using transport = transportTo(url, { ca: (await readFile(ca)).toString(), env })
    assert.is(await text(await transport.get(url)), 'hello')
    assert.equal(asked, [`CONNECT ${new URL(url).host}`])
    assert.equal(authorizations, [`Basic ${Buffer.from('me:secret').toString('base64')}`])
  } finally {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true })
  }
})

test('a proxy that is down is unreachable, and the error does not tell its password', async () => {
  for (const variable of ['HTTP_PROXY', 'HTTPS_PROXY']) {
    const url = variable === 'HTTP_PROXY' ? 'http://registry.example' : 'https://registry.example'
    await using transport = transportTo(url, { env: { [variable]: 'http://me:secret@127.0.0.1:1' } })
    const error = await fails(transport.get(url), 'unreachable')
    assert.not.match(`${error.message} ${error.stack} ${error.cause}`, 'secret')
  }
})

test('closing ends what is under way', async () => {
  await using server = await ScriptedServer.open((_request, response) => void response.write('hello'))
  const transport = transportTo(server.url)
  const response = await transport.get(server.url)
  const body = response.pipe(() => undefined)
  await Promise.all([fails(body, 'broken'), transport[Symbol.asyncDispose]()])
})

test('an error of the sink comes back as it is', async () => {
  await using server = await ScriptedServer.open((_request, response) => void response.end('hello'))
  await using transport = transportTo(server.url)
  const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
  for (const sink of [
    () => {
      throw full
    },
    () => Promise.reject(full),
  ]) {
    const response = await transport.get(server.url)
    const thrown = await response.pipe(sink).catch((error: unknown) => error)
    assert.is(thrown, full)
  }
})

test('nothing is left listening on a signal once the answer is over', async () => {
  await using server = await ScriptedServer.open((_request, response) => void response.end('hello'))
  await using transport = transportTo(server.url)
  const abort = new AbortController()
  await text(await transport.get(server.url, abort.signal))
  await text(await transport.get(server.url, abort.signal, 'HEAD'))
  await fails(transport.get('http://127.0.0.1:1/', abort.signal), 'unreachable')
  assert.is(getEventListeners(abort.signal, 'abort').length, 0)
})

test.run()
