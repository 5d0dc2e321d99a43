import { strict as nodeAssert } from 'node:assert'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { Agent, type Dispatcher } from 'undici'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makeCertificate } from '../../../scripts/internet/certificate.ts'
import { reusingConnector } from './connector.ts'

const body = randomBytes(1_000_000)
const digest = createHash('sha256').update(body).digest('hex')

type Framing = 'length' | 'chunked' | 'close'

const heads: Record<Framing, string> = {
  length: `content-length: ${body.length}`,
  chunked: 'transfer-encoding: chunked',
  close: 'connection: close',
}

/** Answers each request on its connection with the body, cut into pieces at random. */
async function answering(server: Server, event: 'connection' | 'secureConnection', framing: Framing): Promise<number> {
  server.on(event, (socket: Socket) => {
    ignoreErrors(socket)
    socket.on('data', () => {
      // The head in two pieces: what undici keeps of the first must outlive the second.
      const head = `HTTP/1.1 200 OK\r\nx-pieces: one-and-two\r\n${heads[framing]}\r\n\r\n`
      socket.write(head.slice(0, 30))
      setTimeout(() => {
        socket.write(head.slice(30))
        for (let at = 0; at < body.length; ) {
          const piece = body.subarray(at, at + 1 + Math.floor(Math.random() * 200_000))
          at += piece.length
          if (framing === 'chunked') socket.write(`${piece.length.toString(16)}\r\n`)
          socket.write(piece)
          if (framing === 'chunked') socket.write('\r\n')
        }
        if (framing === 'chunked') socket.write('0\r\n\r\n')
        if (framing === 'close') socket.end()
      }, 5)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  nodeAssert(address !== null && typeof address === 'object')
  return address.port
}

function ignoreErrors(socket: Socket): void {
  socket.on('error', () => {})
}

type Got = { status: number; headers: Record<string, unknown>; digest: string }

/** Gets `/`, pausing after each piece with the given probability. */
function get(agent: Agent, origin: string, pausing: number): Promise<Got> {
  const { promise, resolve, reject } = Promise.withResolvers<Got>()
  const hash = createHash('sha256')
  let status = 0
  let headers: Record<string, unknown> = {}
  const handler: Dispatcher.DispatchHandler = {
    onRequestStart() {},
    onResponseStart(_controller, code, fields) {
      status = code
      headers = fields
    },
    onResponseData(controller, bytes) {
      hash.update(bytes)
      if (Math.random() >= pausing) return
      controller.pause()
      setTimeout(() => controller.resume(), Math.random() * 3)
    },
    onResponseEnd() {
      resolve({ status, headers, digest: hash.digest('hex') })
    },
    onResponseError(_controller, error) {
      reject(error)
    },
  }
  agent.dispatch({ method: 'GET', origin, path: '/' }, handler)
  return promise
}

const folder = await mkdtemp(join(tmpdir(), 'shoal-test-'))
const { ca, cert, key } = await makeCertificate(folder)
const trusted = await readFile(ca)
test.after(() => rm(folder, { recursive: true }))

for (const scheme of ['http', 'https'] as const)
  for (const framing of ['length', 'chunked', 'close'] as const)
    test(`bodies arrive as they were sent: ${scheme}, ${framing}`, async () => {
      const server = scheme === 'http' ? createServer() : createTlsServer({ cert, key })
      const port = await answering(server, scheme === 'http' ? 'connection' : 'secureConnection', framing)
      const agent = new Agent({ allowH2: false, connect: reusingConnector({ ca: trusted }) })
      try {
        // Several at once, which share the buffer, and one after another on one connection.
        const one = async (pausing: number) => {
          for (let count = 0; count < 3; count++) {
            const got = await get(agent, `${scheme}://127.0.0.1:${port}`, pausing)
            assert.is(got.status, 200)
            assert.is(got.headers['x-pieces'], 'one-and-two')
            assert.is(got.digest, digest)
          }
        }
        await Promise.all([one(0), one(0.3), one(1)])
      } finally {
        await agent.destroy()
        server.close()
      }
    })

test.run()
