import { open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import type { Finding } from '@shoal/store/verification'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { VerificationLine, VerificationSummary } from '../../packages/shoal/src/admin/verification.ts'
import { verifyCommand } from '../../packages/shoal/src/commands/verify.ts'
import { loadSettings } from '../../packages/shoal/src/settings/load.ts'
import { bytesOf, type Content } from '../../scripts/internet/content.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { Download } from '../download.ts'
import { ShoalProcess, until } from '../shoal-process.ts'
import { type Answer, fetchWhole, World } from '../world.ts'

const MiB = 1024 * 1024
const local = 'shoal; hit; detail=local'

type Verified = { readonly findings: readonly Finding[]; readonly summary: VerificationSummary }

/** A world that has pulled library/forty: its manifest, its config and its layers. */
async function openPulled(): Promise<{ world: World; blobs: readonly Content[] }> {
  const world = await World.open()
  const { manifest, config, layers } = world.internet.images.image('library/forty')
  await world.get('/v2/library/forty/manifests/latest')
  for (const { digest } of [config, ...layers]) await world.get(`/v2/library/forty/blobs/${digest}`)
  return { world, blobs: [manifest, config, ...layers] }
}

const fileOf = (data: string, { digest }: Content) => join(data, 'blobs', ...digest.split(':'))
const quarantined = (data: string, { digest }: Content) => join(data, 'quarantine', digest.replace(':', '-'))

async function authorization(data: string): Promise<string> {
  return `Bearer ${(await readFile(join(data, 'admin.token'), 'utf8')).trim()}`
}

async function post(world: World): Promise<Answer> {
  return fetchWhole('POST', `${world.admin}/api/v1/verify`, { authorization: await authorization(world.data) })
}

async function verify(world: World): Promise<Verified> {
  const { status, body } = await post(world)
  assert.is(status, 200, body.toString())
  const lines = body.toString().trimEnd().split('\n')
  const parsed = lines.map((line): VerificationLine => JSON.parse(line))
  const last = parsed.at(-1)
  assert.ok(last && 'summary' in last, lines.at(-1))
  return { findings: parsed.flatMap(line => ('finding' in line ? [line.finding] : [])), summary: last.summary }
}

/** Inverts the byte in the middle of a file. */
async function flip(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const at = Math.floor((await file.stat()).size / 2)
    const byte = Buffer.alloc(1)
    await file.read(byte, 0, 1, at)
    await file.write(Buffer.from([255 - byte[0]!]), 0, 1, at)
  } finally {
    await file.close()
  }
}

const zero = async (path: string) => writeFile(path, Buffer.alloc((await stat(path)).size))
const shorten = (path: string) => truncate(path, 10)

/** Spoils a manifest, a config and layers, each in its way. */
async function spoilSome(data: string, blobs: readonly Content[]): Promise<{ blob: Content; problem: string }[]> {
  const ways = [
    [flip, 'bytes'],
    [shorten, 'length'],
    [flip, 'bytes'],
    [zero, 'bytes'],
    [shorten, 'length'],
    [(path: string) => rm(path), 'missing'],
  ] as const
  const spoilt: { blob: Content; problem: string }[] = []
  for (const [index, [spoil, problem]] of ways.entries()) {
    const blob = blobs[index]!
    await spoil(fileOf(data, blob))
    spoilt.push({ blob, problem })
  }
  return spoilt
}

/** What a client gets is right. */
async function assertServed(world: World, blobs: readonly Content[]): Promise<void> {
  const [manifest, ...rest] = blobs
  assert.ok((await world.get('/v2/library/forty/manifests/latest')).body.equals(bytesOf(manifest!)))
  for (const blob of rest) {
    const { status, body } = await world.get(`/v2/library/forty/blobs/${blob.digest}`)
    assert.is(status, 200)
    assert.ok(body.equals(bytesOf(blob)))
  }
}

const byDigest = (a: { digest: string }, b: { digest: string }) => (a.digest < b.digest ? -1 : 1)

test('what has rotten is put in quarantine and fetched again, and the rest is left alone', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  const spoilt = await spoilSome(world.data, blobs)
  const rotten = await Promise.all(spoilt.map(({ blob }) => readFile(fileOf(world.data, blob)).catch(() => undefined)))
  const { findings, summary } = await verify(world)
  const expected = spoilt.map(({ blob: { digest, size }, problem }) => {
    return { digest, size, problem, quarantined: problem !== 'missing', refetched: true }
  })
  assert.equal([...findings].sort(byDigest), expected.sort(byDigest))
  assert.equal([summary.checked, summary.findings, summary.refetched], [42, 6, 6])
  assert.is(
    summary.bytes,
    blobs.reduce((sum, { size }) => sum + size, 0),
  )
  for (const [index, { blob, problem }] of spoilt.entries())
    if (problem !== 'missing') assert.ok((await readFile(quarantined(world.data, blob))).equals(rotten[index]!))
  assert.is((await readdir(join(world.data, 'quarantine'))).length, 5)
  await Promise.all([world.internet.hub.down(), world.internet.gcr.down()])
  await assertServed(world, blobs)
  const again = await verify(world)
  assert.equal([again.findings, again.summary.checked], [[], 42])
  // What is in quarantine is not served, now or later.
  await world.restart()
  await assertServed(world, blobs)
})

test('with nobody to fetch from the reason is told, and a later pull brings it back', async () => {
  const { world: opened, blobs } = await openPulled()
  await using world = opened
  const { hub, gcr } = world.internet
  await Promise.all([hub.down(), gcr.down()])
  const spoilt = await spoilSome(world.data, blobs)
  const { findings, summary } = await verify(world)
  assert.equal([summary.findings, summary.refetched], [spoilt.length, 0])
  for (const { refetched, reason } of findings) {
    assert.not(refetched)
    assert.match(reason ?? '', 'it is not held here; ')
  }
  assert.equal((await verify(world)).findings, [])
  await Promise.all([hub.up(), gcr.up()])
  // Those that were down are passed over for a while.
  const { digest } = spoilt.at(-1)!.blob
  for (const path of ['manifests/latest', `blobs/${digest}`])
    await until(
      async () => ((await world.get(`/v2/library/forty/${path}`)).status === 200 ? true : undefined),
      () => `${path} is not served`,
    )
  await assertServed(world, blobs)
  assert.is((await verify(world)).summary.checked, blobs.length)
})

test('what was pulled by digest alone, without a tag, is fetched again', async () => {
  await using world = await World.open()
  const { manifest, layers } = world.internet.images.image('library/forty')
  await world.get(`/v2/library/forty/manifests/${manifest.digest}`)
  await world.get(`/v2/library/forty/blobs/${layers[0]!.digest}`)
  for (const blob of [manifest, layers[0]!]) await flip(fileOf(world.data, blob))
  const { summary } = await verify(world)
  assert.equal([summary.findings, summary.refetched], [2, 2])
})

test('a client that is being sent what has rotten is broken off', async () => {
  await using world = await World.open()
  const { layers } = await world.internet.add({ repository: 'library/rot', tag: 'latest', layers: [64 * MiB] })
  const layer = layers[0]!
  const path = `/v2/library/rot/blobs/${layer.digest}`
  await world.get('/v2/library/rot/manifests/latest')
  assert.is((await world.get(path)).status, 200)
  using download = await Download.open(world.mirror + path)
  await download.until(1)
  download.pause()
  await flip(fileOf(world.data, layer))
  assert.equal(
    (await verify(world)).findings.map(({ problem, refetched }) => [problem, refetched]),
    [['bytes', true]],
  )
  download.resume()
  assert.is(await download.end(), 'broken')
  const { headers, body } = await world.get(path)
  assert.is(headers['cache-status'], local)
  assert.ok(body.equals(bytesOf(layer)))
})

test('only who has the secret of the data folder may have it done', async () => {
  await using world = await World.open()
  assert.is((await stat(join(world.data, 'admin.token'))).mode & 0o777, 0o600)
  const url = `${world.admin}/api/v1/verify`
  for (const headers of [{}, { authorization: `Bearer ${'x'.repeat(43)}` }]) {
    const { status, body } = await fetchWhole('POST', url, headers)
    assert.is(status, 401)
    assert.match(body.toString(), 'admin.token')
  }
  const origin = { authorization: await authorization(world.data), origin: 'https://example.com' }
  assert.is((await fetchWhole('POST', url, origin)).status, 421)
  assert.is((await fetchWhole('GET', url)).status, 405)
  assert.equal((await verify(world)).summary.checked, 0)
})

test('there is one verification at a time; it ends with its client', async () => {
  await using world = await World.open()
  const { layers } = await world.internet.add({ repository: 'library/one', tag: 'latest', layers: [MiB] })
  const layer = layers[0]!
  await world.get('/v2/library/one/manifests/latest')
  await world.get(`/v2/library/one/blobs/${layer.digest}`)
  await flip(fileOf(world.data, layer))
  const { hub, gcr } = world.internet
  hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'hang' } : undefined)
  await gcr.down()
  const before = world.internet.log.requests({ server: 'cdn' }).length
  const client = request(`${world.admin}/api/v1/verify`, {
    method: 'POST',
    headers: { authorization: await authorization(world.data) },
  })
  client.on('error', () => {})
  client.end()
  await until(
    () => (world.internet.log.requests({ server: 'cdn' }).length > before ? true : undefined),
    () => 'nothing is fetched again',
  )
  const second = await post(world)
  assert.is(second.status, 409)
  assert.match(second.body.toString(), 'a verification is running already')
  client.destroy()
  hub.intercept = undefined
  await until(
    async () => ((await post(world)).status === 200 ? true : undefined),
    () => 'the first verification goes on without its client',
  )
})

test('a daemon that stops ends the verification first', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.start({ internet })
  const { layers } = await internet.add({ repository: 'library/one', tag: 'latest', layers: [MiB] })
  await shoal.get('/v2/library/one/manifests/latest')
  await shoal.get(`/v2/library/one/blobs/${layers[0]!.digest}`)
  await flip(fileOf(join(shoal.folder, 'data'), layers[0]!))
  internet.hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'hang' } : undefined)
  const before = internet.log.requests({ server: 'cdn' }).length
  const verifying = shoal.run(['verify'])
  await until(
    () => (internet.log.requests({ server: 'cdn' }).length > before ? true : undefined),
    () => 'nothing is fetched again',
  )
  assert.is(await shoal.stop(), 0)
  const { status, stdout, stderr } = await verifying
  assert.equal([status, stdout], [1, ''])
  assert.match(stderr, /^shoal: http:\/\/127\.0\.0\.1:\d+ has broken off: has the daemon been stopped\?\n$/)
})

test('the command says in lines or in JSON what was found, and its status whether all is sound now', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.start({ internet })
  const data = join(shoal.folder, 'data')
  const { manifest, config, layers } = internet.images.image('library/forty')
  const blobs = [manifest, config, ...layers]
  await shoal.get('/v2/library/forty/manifests/latest')
  for (const { digest } of blobs.slice(1)) await shoal.get(`/v2/library/forty/blobs/${digest}`)

  const sound = await shoal.run(['verify'])
  assert.equal([sound.status, sound.stderr], [0, ''])
  assert.match(sound.stdout, /^checked 42 blobs, \d[\d.]* kB in \d[\d.]* s: all sound\n$/)

  await flip(fileOf(data, layers[0]!))
  await rm(fileOf(data, layers[1]!))
  const mended = await shoal.run(['verify'])
  assert.equal([mended.status, mended.stderr], [0, ''])
  const lines = mended.stdout.trimEnd().split('\n')
  assert.is(lines.length, 3)
  const other = `${layers[0]!.digest} (${layers[0]!.size} B): has other bytes than when it was stored; in quarantine; fetched again`
  assert.ok(lines.includes(other), mended.stdout)
  assert.ok(lines.includes(`${layers[1]!.digest} (${layers[1]!.size} B): its file is gone; fetched again`))
  assert.match(lines[2] ?? '', /^checked 42 blobs, .* s: 1 rotten, 1 missing: 2 fetched again$/)

  await Promise.all([internet.hub.down(), internet.gcr.down()])
  for (const layer of layers.slice(2, 4)) await flip(fileOf(data, layer))
  const json = await shoal.run(['verify', '--json'])
  assert.equal([json.status, json.stderr], [1, ''])
  const { findings, seconds, ...summary }: VerificationSummary & Pick<Verified, 'findings'> = JSON.parse(json.stdout)
  assert.is(typeof seconds, 'number')
  const bytes = blobs.reduce((sum, { size }) => sum + size, 0)
  assert.equal(summary, { checked: 42, bytes, refetched: 0 })
  assert.equal(
    findings.map(({ digest, problem, refetched }) => [digest, problem, refetched]).sort(),
    layers
      .slice(2, 4)
      .map(({ digest }) => [digest, 'bytes', false])
      .sort(),
  )
  await flip(fileOf(data, layers[4]!))
  const failed = await shoal.run(['verify'])
  assert.equal([failed.status, failed.stderr], [1, ''])
  assert.match(
    failed.stdout,
    /; in quarantine; not fetched again: it is not held here; .*\nchecked 40 blobs, .*: 1 rotten: 1 could not be\n$/,
  )
})

test('the command fails in one line where it is used wrongly, there is no daemon, or it is not the one of the folder', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.start({ internet })
  const now = await shoal.run(['verify', 'now'])
  assert.equal([now.status, now.stdout], [2, ''])
  assert.match(now.stderr, /^shoal: .*too many arguments.*\n$/)
  const none = await shoal.run(['verify'], { SHOAL_ADMIN_LISTEN: '127.0.0.1:1' })
  assert.equal([none.status, none.stdout], [1, ''])
  assert.match(none.stderr, /^shoal: no shoal daemon answers at http:\/\/127\.0\.0\.1:1: start one .*\n$/)
  const elsewhere = await shoal.run(['verify'], { SHOAL_DATA_DIR: shoal.folder })
  assert.equal([elsewhere.status, elsewhere.stdout], [1, ''])
  assert.match(elsewhere.stderr, /^shoal: .*admin\.token cannot be read \(ENOENT\): run this as the user of the daemon/)
  await writeFile(join(shoal.folder, 'admin.token'), 'another\n')
  const other = await shoal.run(['verify'], { SHOAL_DATA_DIR: shoal.folder })
  assert.equal([other.status, other.stdout], [1, ''])
  assert.match(other.stderr, /^shoal: .* does not take the secret of .*admin\.token: is data_dir its own\?\n$/)
})

test('on a terminal the progress is one line, which is gone at the end', async () => {
  const { world: opened } = await openPulled()
  await using world = opened
  const { settings } = await loadSettings({
    argvFlags: { 'data-dir': world.data, 'admin-listen': world.admin.replace('http://', '') },
    env: {},
  })
  let shown = ''
  const lines: string[] = []
  const status = await verifyCommand({
    settings,
    out: line => lines.push(line),
    terminal: { write: text => (shown += text) },
  })
  assert.equal([status, lines.length], [0, 1])
  assert.match(shown, /\r\u001B\[K42 of 42 blobs, (\d[\d.]* kB) of \1\r\u001B\[K$/)
  assert.not.match(shown, '\n')
})

test.run()
