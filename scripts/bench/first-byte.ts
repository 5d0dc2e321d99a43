import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer, get } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { median, type Program } from './program.ts'
import { startProxy } from './rivals.ts'
import { startShoal } from './shoal.ts'

const blobs = 40
const size = 1024 * 1024
/** What upstream sends at once; the rest comes later. */
const first = 128 * 1024

/** How much later than upstream sends the first byte of a cold blob the client has it. */
export async function firstByte(folder: string, runs: number): Promise<void> {
  const bodies = new Map<string, Buffer>()
  const sent = new Map<string, number>()
  const upstream = createServer(async (request, response) => {
    const digest = request.url?.split('/').at(-1) ?? ''
    const body = bodies.get(digest)
    if (!body) return void response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    response.writeHead(200, { 'content-length': size, 'docker-content-digest': digest })
    if (request.method === 'HEAD') return void response.end()
    sent.set(digest, performance.now())
    response.write(body.subarray(0, first))
    await sleep(30)
    response.end(body.subarray(first))
  }).listen(0, '127.0.0.1')
  await once(upstream, 'listening')
  const address = upstream.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const url = `http://127.0.0.1:${address.port}`
  /** Times of one run, in ms. */
  const times = async (program: Program, mirror: string, data: string): Promise<number[]> => {
    await using _program = program
    const later: number[] = []
    for (let nth = 0; nth < blobs; nth++) {
      const body = randomBytes(size)
      const digest = `sha256:${createHash('sha256').update(body).digest('hex')}`
      bodies.set(digest, body)
      const [response] = await once(get(`${mirror}/v2/library/first/blobs/${digest}`), 'response')
      await once(response, 'data')
      later.push(performance.now() - sent.get(digest)!)
      response.resume()
      await once(response, 'end')
      bodies.delete(digest)
    }
    await program[Symbol.asyncDispose]()
    await rm(join(folder, data), { recursive: true })
    // The first one also opens the connections.
    return later.slice(1)
  }
  const measured = { shoal: [] as number[], 'docker-registry': [] as number[] }
  for (let run = 0; run < runs; run++) {
    const shoal = await startShoal(folder, { endpoints: [url] })
    measured.shoal.push(...(await times(shoal.program, shoal.mirror, 'shoal')))
    const proxy = await startProxy(folder, url, '')
    measured['docker-registry'].push(...(await times(proxy.program, proxy.mirror, 'proxy')))
  }
  upstream.close()
  upstream.closeAllConnections()
  console.log(`\nfirst byte of a cold blob, later than upstream's first byte, ${runs} × ${blobs - 1} blobs`)
  for (const [name, values] of Object.entries(measured)) {
    const p90 = values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.9)]!
    console.log(`  ${name.padEnd(16)} median ${median(values).toFixed(2)} ms   90 % within ${p90.toFixed(2)} ms`)
  }
}
