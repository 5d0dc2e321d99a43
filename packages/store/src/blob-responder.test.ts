import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { digestOf } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { answer, BodySender } from './blob-responder.ts'
import type { Reader } from './reader.ts'

const blob = randomBytes(2_000_000)
const digest = digestOf(blob)
const etag = `"${digest}"`
const representation = { digest, size: blob.length, contentType: 'application/octet-stream' }

test('what each request is answered with', () => {
  const size = blob.length
  const whole = { start: 0, end: size }
  const table: [string, Record<string, string>, number, { start: number; end: number } | undefined][] = [
    ['GET', {}, 200, whole],
    ['HEAD', {}, 200, undefined],
    ['GET', { range: 'bytes=0-' }, 206, whole],
    ['GET', { range: 'bytes=5-9' }, 206, { start: 5, end: 10 }],
    ['GET', { range: 'bytes=-5' }, 206, { start: size - 5, end: size }],
    ['GET', { range: `bytes=${size - 1}-${size * 9}` }, 206, { start: size - 1, end: size }],
    ['GET', { range: `bytes=${size}-` }, 416, undefined],
    ['GET', { range: 'bytes=-0' }, 416, undefined],
    ['GET', { range: 'bytes=9-5' }, 200, whole],
    ['GET', { range: 'bytes=0-1,5-9' }, 200, whole],
    ['GET', { range: 'lines=0-1' }, 200, whole],
    ['HEAD', { range: 'bytes=5-9' }, 200, undefined],
    ['GET', { 'if-none-match': etag }, 304, undefined],
    ['HEAD', { 'if-none-match': etag }, 304, undefined],
    ['GET', { 'if-none-match': `W/${etag}` }, 304, undefined],
    ['GET', { 'if-none-match': `"other", ${etag}` }, 304, undefined],
    ['GET', { 'if-none-match': '*' }, 304, undefined],
    ['GET', { 'if-none-match': '"other"' }, 200, whole],
    ['GET', { 'if-none-match': digest }, 200, whole],
    ['GET', { 'if-none-match': etag, range: 'bytes=5-9' }, 304, undefined],
    ['GET', { 'if-range': etag, range: 'bytes=5-9' }, 206, { start: 5, end: 10 }],
    ['GET', { 'if-range': '"other"', range: 'bytes=5-9' }, 200, whole],
    ['GET', { 'if-range': `W/${etag}`, range: 'bytes=5-9' }, 200, whole],
    ['GET', { 'if-range': '"other"', range: `bytes=${size}-` }, 200, whole],
  ]
  for (const [method, headers, status, range] of table) {
    const plan = answer(method, headers, representation)
    const what = `${method} ${JSON.stringify(headers)}`
    assert.is(plan.status, status, what)
    assert.equal(plan.range, range, what)
    assert.is(plan.headers['etag'], etag, what)
    assert.is(plan.headers['docker-content-digest'], digest, what)
    if (status === 200) assert.is(plan.headers['content-length'], size, what)
    if (status === 206 && range) {
      assert.is(plan.headers['content-length'], range.end - range.start, what)
      assert.is(plan.headers['content-range'], `bytes ${range.start}-${range.end - 1}/${size}`, what)
    }
    if (status === 416) assert.is(plan.headers['content-range'], `bytes */${size}`, what)
  }
})

test('nothing has no range', () => {
  const empty = { ...representation, size: 0 }
  assert.equal(answer('GET', {}, empty).range, { start: 0, end: 0 })
  assert.is(answer('GET', { range: 'bytes=0-' }, empty).status, 416)
  assert.is(answer('GET', { range: 'bytes=-5' }, empty).status, 200)
})

/** Reads the blob, with what a test does before each piece. */
class BlobReader implements Reader {
  cancelled = false
  closed = 0
  #position = 0
  readonly #before: (position: number, reader: BlobReader) => Promise<void> | void
  #onCancel: (() => void) | undefined

  constructor(before: (position: number, reader: BlobReader) => Promise<void> | void = () => {}) {
    this.#before = before
  }

  async read(buffer: Uint8Array): Promise<number> {
    assert.is(this.closed, 0)
    await this.#before(this.#position, this)
    if (this.cancelled) throw new Error('cancelled')
    const piece = blob.subarray(this.#position, this.#position + buffer.length)
    buffer.set(piece)
    this.#position += piece.length
    return piece.length
  }

  /** Waits for bytes that never come. */
  starve(): Promise<void> {
    return new Promise(resolve => {
      if (this.cancelled) resolve()
      else this.#onCancel = resolve
    })
  }

  cancel(): void {
    this.cancelled = true
    this.#onCancel?.()
  }

  close(): void {
    this.closed++
  }
}

type Sent = { bytes: number; error?: unknown }

/** A server that sends the blob with readers of the test's making. */
class World implements AsyncDisposable {
  readonly readers: BlobReader[] = []
  readonly sent: Promise<Sent>[] = []
  readonly sockets = new Set<unknown>()
  before: (position: number, reader: BlobReader) => Promise<void> | void = () => {}
  onRequest: () => void = () => {}
  readonly #bodies = new BodySender()
  readonly #server: Server

  private constructor() {
    this.#server = createServer((request, response) => this.#serve(request, response))
  }

  static async open(): Promise<World> {
    const world = new World()
    world.#server.listen(0, '127.0.0.1')
    await once(world.#server, 'listening')
    return world
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    this.sockets.add(request.socket)
    const plan = answer(request.method ?? '', request.headers, representation)
    response.writeHead(plan.status, plan.headers)
    if (!plan.range) response.end()
    else {
      const reader = new BlobReader((position, reader) => this.before(position, reader))
      this.readers.push(reader)
      this.sent.push(this.#bodies.send(response, reader))
    }
    this.onRequest()
  }

  get(agent: Agent, method = 'GET'): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const outgoing = request({ port: this.port, host: '127.0.0.1', method, agent }, response => {
        const pieces: Buffer[] = []
        response.on('data', piece => pieces.push(piece))
        response.on('error', reject)
        response.on('end', () => resolve(Buffer.concat(pieces)))
      })
      outgoing.on('error', reject)
      outgoing.end()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await Promise.all(this.sent)
    for (const reader of this.readers) assert.is(reader.closed, 1, 'each reader is closed once')
  }
}

test('bodies come whole, one after another on one connection, HEADs between', async () => {
  await using world = await World.open()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  for (let i = 0; i < 3; i++) {
    assert.ok((await world.get(agent)).equals(blob))
    assert.is((await world.get(agent, 'HEAD')).length, 0)
  }
  assert.is(world.sockets.size, 1)
  assert.equal(await Promise.all(world.sent), Array(3).fill({ bytes: blob.length }))
  agent.destroy()
})

test('many at once each get their own bytes', async () => {
  await using world = await World.open()
  const agent = new Agent({ maxSockets: 40 })
  const bodies = await Promise.all(Array.from({ length: 40 }, () => world.get(agent)))
  for (const body of bodies) assert.ok(body.equals(blob))
  agent.destroy()
})

test('a reader that fails midway breaks the connection off', async () => {
  await using world = await World.open()
  world.before = position => {
    if (position > 0) throw new Error('wrong digest')
  }
  const agent = new Agent({ keepAlive: true })
  assert.instance(await world.get(agent).catch((error: unknown) => error), Error)
  const sent = await world.sent[0]
  assert.match(String(sent?.error), 'wrong digest')
  agent.destroy()
})

test('a reader that fails at once breaks the connection off', async () => {
  await using world = await World.open()
  world.before = () => {
    throw new Error('wrong digest')
  }
  assert.instance(await world.get(new Agent()).catch((error: unknown) => error), Error)
})

test('a client that leaves ends a read that waits', async () => {
  await using world = await World.open()
  world.before = (position, reader) => (position > 0 ? reader.starve() : undefined)
  const socket = connect(world.port, '127.0.0.1')
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  await once(socket, 'data')
  socket.destroy()
  const sent = await world.sent[0]
  assert.ok(sent?.error)
})

test('a client that leaves without taking the body ends the sending', async () => {
  await using world = await World.open()
  world.before = position => {
    if (position >= blob.length) return new Promise(resolve => setImmediate(resolve))
  }
  const socket = connect(world.port, '127.0.0.1')
  socket.on('error', () => {})
  const asked = new Promise<void>(resolve => {
    world.onRequest = resolve
  })
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  socket.pause()
  await asked
  socket.resetAndDestroy()
  await world.sent[0]
})

test('requests that come at once on one connection are answered in their order', async () => {
  await using world = await World.open()
  const socket = connect(world.port, '127.0.0.1')
  const pieces: Buffer[] = []
  socket.on('data', piece => pieces.push(piece))
  const one = 'GET / HTTP/1.1\r\nhost: x\r\nrange: bytes=0-1999999\r\n\r\n'
  socket.write(`${one}${one}${one.replace('host: x', 'host: x\r\nconnection: close')}`)
  await once(socket, 'close')
  let rest = Buffer.concat(pieces)
  for (let i = 0; i < 3; i++) {
    const head = rest.indexOf('\r\n\r\n') + 4
    assert.match(rest.subarray(0, head).toString(), /^HTTP\/1.1 206/)
    assert.ok(rest.subarray(head, head + blob.length).equals(blob), `answer ${i}`)
    rest = rest.subarray(head + blob.length)
  }
  assert.is(rest.length, 0)
})

test('a client that leaves with requests still in line ends them all', async () => {
  await using world = await World.open()
  world.before = (position, reader) => (world.readers[0] === reader && position > 0 ? reader.starve() : undefined)
  const socket = connect(world.port, '127.0.0.1')
  socket.on('error', () => {})
  const asked = new Promise<void>(resolve => {
    world.onRequest = () => world.readers.length === 3 && resolve()
  })
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(3))
  await asked
  socket.destroy()
  for (const sent of await Promise.all(world.sent)) assert.ok(sent.error)
})

test('a client that has left before the body begins gets none', async () => {
  const reader = new BlobReader((_position, reader) => reader.starve())
  const bodies = new BodySender()
  const sent = Promise.withResolvers<Sent>()
  const asked = Promise.withResolvers<void>()
  const server = createServer((request, response) => {
    asked.resolve()
    request.socket.once('close', () => {
      response.writeHead(200, { 'content-length': blob.length })
      bodies.send(response, reader).then(sent.resolve, sent.reject)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  await asked.promise
  socket.resetAndDestroy()
  assert.ok((await sent.promise).error)
  assert.is(reader.closed, 1)
  server.close()
})

test.run()
