import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { descriptorLimit } from '../../packages/shoal/src/descriptors.ts'
import { makeCertificate } from '../../scripts/internet/certificate.ts'
import { bytesOf } from '../../scripts/internet/content.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import type { Layer } from '../../scripts/internet/layer.ts'
import { type RunningProcess, ShoalProcess, shoalBin, until } from '../shoal-process.ts'
import { World } from '../world.ts'

const KiB = 1024
const MiB = 1024 * KiB
const repository = 'library/load'

/** The daemon's memory at its highest, with 300 clients and with as many as it takes, and what it has open for each. */
const mostMemory = { hundreds: 400 * MiB, full: 640 * MiB }
const mostDescriptors = (clients: number) => 4 * clients + 64

type Pulled = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly sha256: string }

type Health = { readonly status: string; readonly last_stall: { seconds: number; ago_s: number } | null }

/** A daemon in a process of its own, an image that the stand-ins have, and none of its layers pulled yet. */
async function openShoal(sizes: readonly number[], program = shoalBin) {
  await using opened = new AsyncDisposableStack()
  const internet = opened.use(await Internet.open())
  const { layers, digest } = await internet.add({ repository, tag: 'latest', layers: [...sizes] })
  internet.gcr.repositories.add(repository)
  const shoal = opened.use(await ShoalProcess.prepare({ internet }))
  await shoal.start(program)
  const manifest = `/v2/${repository}/manifests/${digest}`
  await shoal.get(manifest)
  const kept = opened.move()
  return { internet, shoal, layers, manifest, [Symbol.asyncDispose]: () => kept.disposeAsync() }
}

const pathOf = ({ digest }: Layer) => `/v2/${repository}/blobs/${digest}`

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** Resolves once the head of the answer has come. The body waits. */
function begin(url: string, headers: Record<string, string> = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { headers, agent: false }, resolve)
    outgoing.on('error', reject)
    outgoing.end()
  })
}

async function temporaryFolder() {
  const path = await mkdtemp(join(tmpdir(), 'shoal-load-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

/** Hashes a body as it comes, and keeps nothing of it. */
async function hashed(response: IncomingMessage): Promise<Pulled> {
  const hash = createHash('sha256')
  for await (const piece of response) hash.update(piece)
  return { status: response.statusCode ?? 0, headers: response.headers, sha256: hash.digest('hex') }
}

const pull = async (url: string, headers?: Record<string, string>) => hashed(await begin(url, headers))

/** In bytes. */
async function highestMemory({ pid }: RunningProcess): Promise<number> {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * KiB
}

async function descriptors({ pid }: RunningProcess): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length
}

/** Watches how many descriptors a process has, until it is disposed of. */
function watchDescriptors(process: RunningProcess) {
  let most = 0
  const timer = setInterval(async () => (most = Math.max(most, await descriptors(process).catch(() => 0))), 50)
  return { most: () => most, [Symbol.dispose]: () => clearInterval(timer) }
}

async function metric({ admin }: ShoalProcess, name: string): Promise<number> {
  const metrics = await text(await begin(`${admin}/metrics`))
  return Number(new RegExp(`^${name}(?:{.*})? (\\S+)$`, 'm').exec(metrics)?.[1] ?? Number.NaN)
}

const inProgress = (shoal: ShoalProcess, count: number) =>
  until(
    async () => ((await metric(shoal, 'shoal_requests_in_progress')) === count ? true : undefined),
    () => `there are never ${count} requests in progress`,
  )

test('three hundred clients at once all get what they asked for, in bounded memory', async () => {
  const distinct = 90
  const sizes = [8 * MiB, 2 * MiB, ...Array.from({ length: distinct }, () => 256 * KiB)]
  await using opened = await openShoal(sizes)
  const { internet, shoal, layers, manifest } = opened
  const [shared, warm, ...others] = layers as [Layer, Layer, ...Layer[]]
  await pull(shoal.mirror + pathOf(warm))
  const manifestHash = (await pull(shoal.mirror + manifest)).sha256
  const before = await descriptors(shoal.process)
  using watch = watchDescriptors(shoal.process)
  const [from, to] = [MiB, 1.5 * MiB]
  const range = { range: `bytes=${from}-${to - 1}` }
  const wholly = (layer: Layer, count: number) =>
    Array.from({ length: count }, () => ({ path: pathOf(layer), headers: {}, sha256: sha256(bytesOf(layer)) }))
  const partly = (layer: Layer) => {
    return { path: pathOf(layer), headers: range, sha256: sha256(bytesOf(layer).subarray(from, to)) }
  }
  const wanted = [
    ...wholly(shared, 60),
    ...others.flatMap(layer => wholly(layer, 1)),
    ...wholly(warm, 60),
    ...Array.from({ length: 60 }, () => ({ path: manifest, headers: {}, sha256: manifestHash })),
    ...Array.from({ length: 15 }, () => [partly(shared), partly(warm)]).flat(),
  ]
  assert.is(wanted.length, 300)
  // Until all have been answered nobody reads: the stand-ins are in this process, too, and have little time to answer.
  const begun = await Promise.all(wanted.map(({ path, headers }) => begin(shoal.mirror + path, headers)))
  const pulled = await Promise.all(begun.map(hashed))
  for (const [index, { status, sha256 }] of pulled.entries()) {
    assert.is(status, wanted[index]!.headers === range ? 206 : 200)
    assert.is(sha256, wanted[index]!.sha256)
  }
  await inProgress(shoal, 0)
  const memory = await highestMemory(shoal.process)
  console.log(`measured: ${Math.round(memory / MiB)} MiB and ${watch.most()} descriptors with 300 clients`)
  assert.ok(memory < mostMemory.hundreds, `${memory} bytes of memory`)
  assert.ok(watch.most() < mostDescriptors(300), `${watch.most()} descriptors`)
  // Ends the connections to upstream that are kept for the next requests.
  await internet.close()
  await until(
    async () => ((await descriptors(shoal.process)) <= before ? true : undefined),
    () => 'descriptors are left open',
  )
})

test('clients that stop reading, or read slowly, hold nobody back', async () => {
  await using opened = await openShoal([24 * MiB])
  const { shoal, layers } = opened
  const [layer] = layers as [Layer]
  const url = shoal.mirror + pathOf(layer)
  const expected = sha256(bytesOf(layer))
  const slow = await Promise.all(Array.from({ length: 50 }, () => begin(url)))
  for (const [index, response] of slow.entries()) {
    response.on('error', () => {})
    if (index % 2 === 0) continue
    // Pieces of at most 64 KiB, one a second.
    response.on('data', () => {
      response.pause()
      setTimeout(() => response.resume(), 1000).unref()
    })
  }
  const fast = async () => {
    for (const { status, sha256 } of await Promise.all(Array.from({ length: 10 }, () => pull(url)))) {
      assert.is(status, 200)
      assert.is(sha256, expected)
    }
  }
  await fast()
  await fast()
  assert.is(await metric(shoal, 'shoal_requests_in_progress'), slow.length)
  assert.ok((await highestMemory(shoal.process)) < mostMemory.hundreds)
  for (const response of slow) response.destroy()
  await inProgress(shoal, 0)
})

/** Has so many requests held open by a blob that arrives slowly, and looks at what becomes of those beyond. */
async function overfill(limit: number, program?: string): Promise<void> {
  await using opened = await openShoal([MiB], program)
  const { internet, shoal, layers, manifest } = opened
  const [layer] = layers as [Layer]
  internet.gcr.intercept = ({ path }) =>
    path.includes('/blobs/') ? { kind: 'slow', bytesPerSecond: 160 * KiB } : undefined
  const held = Promise.all(Array.from({ length: limit }, () => pull(shoal.mirror + pathOf(layer))))
  // A test that fails before they end breaks them off.
  held.catch(() => {})
  await inProgress(shoal, limit)
  const beyond = await Promise.all(
    [pathOf(layer), manifest, '/v2/'].flatMap(path => Array.from({ length: 15 }, () => begin(shoal.mirror + path))),
  )
  for (const refused of beyond) {
    assert.is(refused.statusCode, 503)
    assert.is(refused.headers['retry-after'], '5')
    assert.is(JSON.parse(await text(refused)).errors[0].code, 'UNAVAILABLE')
  }
  assert.is(await metric(shoal, 'shoal_requests_in_progress'), limit)
  for (const { status, sha256: got } of await held) {
    assert.is(status, 200)
    assert.is(got, sha256(bytesOf(layer)))
  }
  await inProgress(shoal, 0)
  assert.is((await pull(`${shoal.mirror}/v2/`)).status, 200)
  const said = shoal.process.output.stderr.split('\n').filter(line => line.includes('requests are refused'))
  assert.is(said.length, 1)
  const memory = await highestMemory(shoal.process)
  console.log(`measured: ${Math.round(memory / MiB)} MiB with ${limit} requests in progress`)
  assert.ok(memory < mostMemory.full, `${memory} bytes of memory`)
}

const enough = 64 + 4 * 1024
if (descriptorLimit() < enough) console.log(`skipped: "ulimit -Hn" gives fewer than ${enough} descriptors`)
const testWithDescriptors = descriptorLimit() < enough ? test.skip : test

testWithDescriptors('beyond 1024 requests in progress, more are answered 503 at once', () => overfill(1024))

test('with few descriptors, the limit is lower', async () => {
  await using folder = await temporaryFolder()
  const program = join(folder.path, 'shoal')
  await writeFile(program, `#!/bin/sh\nulimit -n ${64 + 4 * 50}\nexec "${shoalBin}" "$@"\n`, { mode: 0o755 })
  await overfill(50, program)
})

/** Sends `first`, then a letter now and then. @throws if the connection still stands after twice the time there is */
async function drip(mirror: string, what: string, first: string): Promise<void> {
  const socket = connect(Number(new URL(mirror).port), '127.0.0.1')
  socket.on('error', () => {})
  socket.resume()
  if (first !== '') socket.write(first)
  const letters = setInterval(() => first !== '' && socket.write('x'), 500)
  try {
    const late = sleep(25_000, 'late' as const, { ref: false })
    assert.is.not(await Promise.race([once(socket, 'close'), late]), 'late', `${what} is waited for`)
  } finally {
    clearInterval(letters)
    socket.destroy()
  }
}

test('who does not send a whole request in time is cut off', async () => {
  await using folder = await temporaryFolder()
  await makeCertificate(folder.path)
  const files = ['server.pem', 'server.key'].map(name => join(folder.path, name)) as [string, string]
  await using plain = await World.open()
  await using tls = await World.open({ settings: { 'mirror-tls-cert': files[0], 'mirror-tls-key': files[1] } })
  const head = 'GET /v2/ HTTP/1.1\r\nHost: localhost\r\n'
  await Promise.all([
    drip(plain.mirror, 'the first byte', ''),
    drip(plain.mirror, 'the end of a head', head),
    drip(plain.mirror, 'the end of a body', `${head}Content-Length: 1000000\r\n\r\n`),
    drip(tls.mirror, 'the TLS handshake', ''),
  ])
})

test('a daemon that hangs is told from one that is not there, and is well again when it goes on', async () => {
  await using opened = await openShoal([KiB])
  const { shoal } = opened
  const health = async () => {
    const response = await fetch(`${shoal.admin}/healthz`, { signal: AbortSignal.timeout(2000) })
    return { code: response.status, body: (await response.json()) as Health }
  }
  assert.equal(await health(), { code: 200, body: { status: 'ok', last_stall: null } })
  shoal.process.kill('SIGSTOP')
  const silent = await health().catch((error: Error) => error.name)
  const [status, doctor] = await Promise.all([shoal.run(['status']), shoal.run(['doctor'])])
  shoal.process.kill('SIGCONT')
  assert.is(silent, 'TimeoutError')
  const { pid } = shoal.process
  const hangs = new RegExp(`the daemon at ${shoal.admin} \\(pid ${pid}\\) accepts connections, .*: it hangs`)
  assert.is(status.status, 1)
  assert.match(status.stderr, hangs)
  assert.match(status.stderr, `kill -KILL ${pid}`)
  assert.is(status.stderr.trim().split('\n').length, 1)
  assert.is(doctor.status, 1)
  assert.match(doctor.stdout, hangs)
  const stall = await until(
    async () => (await health()).body.last_stall ?? undefined,
    () => 'the stall is not noticed',
  )
  assert.ok(stall.seconds >= 2)
  assert.is((await health()).code, 200)
  assert.match(shoal.process.output.stderr, 'the daemon stood still')
  assert.ok((await metric(shoal, 'shoal_event_loop_stalls_total')) >= 1)
  assert.is((await shoal.run(['status'])).status, 0)
})

test.run()
