import { type ChildProcess, execFile, fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, readFile, stat } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { Agent, createServer, get } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import type { Layer } from './upstream.ts'

/**
 * The yardstick for what comes from a peer: a server and a client of bare node:https, each a process of its own, with
 * mutual TLS 1.3 as between peers, written as one would without a thought of speed. The server reads a file, the client
 * hashes what it gets and writes it to another.
 */
export type BarePair = AsyncDisposable & {
  /** Fetches the file once: seconds, and CPU seconds of each side. */
  fetch(): Promise<{ seconds: number; server: number; client: number }>
  /** Requests it so many times, one after another over one connection, and throws it away. @returns what each took, in ms */
  roundTrips(count: number): Promise<number[]>
}

type Certificate = { readonly cert: string; readonly key: string }

/** What one side is told. */
type Task =
  | { readonly serve: string; readonly certificate: Certificate }
  | { readonly fetch: string; readonly certificate: Certificate; readonly into: string }
  | { readonly ask: string; readonly certificate: Certificate; readonly times: number }
  | { readonly cpu: true }

const tls = { minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' } as const

/** Starts a pair for one file; what it needs lies in `folder`. */
export async function startBarePair(folder: string, { path, digest, size }: Layer): Promise<BarePair> {
  const own = join(folder, 'bare-pair')
  await mkdir(own, { recursive: true })
  const [cert, key] = [join(own, 'cert.pem'), join(own, 'key.pem')]
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
  ])
  const certificate = { cert: await readFile(cert, 'utf8'), key: await readFile(key, 'utf8') }
  const [server, client] = [fork(import.meta.filename), fork(import.meta.filename)]
  const port = await told(server, { serve: path, certificate })
  const cpuOf = async (side: ChildProcess) => Number(await told(side, { cpu: true }))
  return {
    async fetch() {
      const [serverBefore, clientBefore] = [await cpuOf(server), await cpuOf(client)]
      const begin = performance.now()
      const received = await told(client, { fetch: `https://127.0.0.1:${port}/`, certificate, into: join(own, 'copy') })
      const seconds = (performance.now() - begin) / 1000
      if (received !== digest || (await stat(join(own, 'copy'))).size !== size)
        throw new Error('the pair got other bytes')
      return { seconds, server: (await cpuOf(server)) - serverBefore, client: (await cpuOf(client)) - clientBefore }
    },
    async roundTrips(times) {
      return JSON.parse(await told(client, { ask: `https://127.0.0.1:${port}/`, certificate, times })) as number[]
    },
    async [Symbol.asyncDispose]() {
      for (const side of [server, client]) {
        const exited = once(side, 'exit')
        side.kill()
        await exited
      }
    },
  }
}

/** Has a side do something. @returns what came of it; @throws if it ends instead */
function told(side: ChildProcess, task: Task): Promise<string> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null) => reject(new Error(`a side of the pair ends with ${code}`))
    side.once('exit', onExit)
    side.once('message', result => {
      side.off('exit', onExit)
      resolve(String(result))
    })
    side.send(task)
  })
}

async function does(task: Task): Promise<string> {
  if ('serve' in task) return serve(task.serve, task.certificate)
  if ('fetch' in task) return fetchInto(task.into, task.fetch, task.certificate)
  if ('ask' in task) return JSON.stringify(await ask(task.ask, task.certificate, task.times))
  const { user, system } = process.cpuUsage()
  return String((user + system) / 1e6)
}

/** @returns the port */
async function serve(path: string, certificate: Certificate): Promise<string> {
  const { size } = await stat(path)
  const server = createServer(
    { ...tls, ...certificate, ca: certificate.cert, requestCert: true },
    (_request, response) => {
      response.writeHead(200, { 'content-length': size })
      // A client that has all of it may be gone before this is known here.
      pipeline(createReadStream(path), response).catch(() => {})
    },
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return String((server.address() as AddressInfo).port)
}

/** @returns the digest of what was received */
async function fetchInto(path: string, url: string, certificate: Certificate): Promise<string> {
  const request = get(url, { ...tls, ...certificate, ca: certificate.cert })
  const [response]: IncomingMessage[] = await once(request, 'response')
  if (!response) throw new Error('no answer')
  const hash = createHash('sha256')
  response.on('data', piece => hash.update(piece))
  await pipeline(response, createWriteStream(path))
  return `sha256:${hash.digest('hex')}`
}

async function ask(url: string, certificate: Certificate, times: number): Promise<number[]> {
  const agent = new Agent({ ...tls, ...certificate, ca: certificate.cert, keepAlive: true, maxSockets: 1 })
  const took: number[] = []
  while (took.length < times) {
    const begin = performance.now()
    const [response]: IncomingMessage[] = await once(get(url, { agent }), 'response')
    response?.resume()
    if (response) await once(response, 'end')
    took.push(performance.now() - begin)
  }
  agent.destroy()
  return took
}

if (import.meta.main)
  process.on('message', (task: Task) => {
    void does(task).then(result => process.send?.(result))
  })
