import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf } from '../../scripts/internet/content.ts'
import type { Fault } from '../../scripts/internet/fault.ts'
import type { Layer } from '../../scripts/internet/layer.ts'
import type { Entry } from '../../scripts/internet/log.ts'
import { Download } from '../download.ts'
import { until } from '../shoal-process.ts'
import { World } from '../world.ts'

const KiB = 1024
const MiB = 1024 * KiB

/** An image with layers of these sizes that both Docker Hub and mirror.gcr.io have. */
async function openWorld(sizes: readonly number[]): Promise<{ world: World; layers: Layer[] }> {
  const world = await World.open()
  const { layers } = await world.internet.add({ repository: 'library/cut', tag: 'latest', layers: [...sizes] })
  world.internet.gcr.repositories.add('library/cut')
  await world.get('/v2/library/cut/manifests/latest')
  return { world, layers }
}

const pathOf = ({ digest }: Layer) => `/v2/library/cut/blobs/${digest}`

/** Cuts off the first answers with blobs, at these bytes, and lets the later ones be. */
function cutFirst(world: World, cuts: readonly number[]): void {
  const left = [...cuts]
  const { hub, gcr } = world.internet
  hub.intercept = gcr.intercept = ({ server, method, path }: Entry): Fault | undefined => {
    const bringsBlob = server === 'cdn' || (server === 'gcr' && path.includes('/blobs/'))
    const at = bringsBlob && method === 'GET' ? left.shift() : undefined
    return at === undefined ? undefined : { kind: 'cut', at }
  }
}

async function stored({ data }: World, { digest }: Layer): Promise<boolean> {
  return (await readdir(join(data, 'blobs', 'sha256'))).includes(digest.slice('sha256:'.length))
}

const size = 1_500_000
const cuts = [
  0,
  1,
  2,
  64 * KiB - 1,
  64 * KiB,
  64 * KiB + 1,
  512 * KiB - 1,
  512 * KiB,
  512 * KiB + 1,
  MiB,
  size - 64 * KiB - 1,
  size - 64 * KiB,
  size - 64 * KiB + 1,
  size - 2,
  size - 1,
]

test('an upstream that breaks off at any byte is not noticed', async () => {
  const { world: opened, layers } = await openWorld(cuts.map((_, index) => size + index))
  await using world = opened
  for (const [index, layer] of layers.entries()) {
    cutFirst(world, [cuts[index]!])
    const { status, headers, body } = await world.get(pathOf(layer))
    assert.is(status, 200)
    assert.is(headers['content-length'], String(layer.size))
    assert.ok(body.equals(bytesOf(layer)), `cut at ${cuts[index]}`)
    assert.ok(await stored(world, layer))
  }
})

test('a small blob that is cut at any byte is not noticed', async () => {
  const { world: opened, layers } = await openWorld([1, 2, 3, 100, 64 * KiB, 64 * KiB + 1])
  await using world = opened
  for (const layer of layers) {
    cutFirst(world, [layer.size - 1])
    assert.ok((await world.get(pathOf(layer))).body.equals(bytesOf(layer)))
  }
})

test('upstreams that break off again and again, anywhere, are not noticed', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 1_200_000 }),
      fc.array(fc.nat(1_200_000), { maxLength: 6 }),
      fc.array(fc.nat(1_200_000), { minLength: 1, maxLength: 3 }),
      async (length, cuts, starts) => {
        const { world: opened, layers } = await openWorld([length])
        await using world = opened
        const [layer] = layers
        cutFirst(world, cuts)
        const bytes = bytesOf(layer!)
        const downloads = starts.map(async start => {
          const range = start < length ? { range: `bytes=${start}-` } : undefined
          const { body } = await world.get(pathOf(layer!), range)
          return body.equals(bytes.subarray(range ? start : 0))
        })
        return (await Promise.all(downloads)).every(Boolean)
      },
    ),
    { numRuns: 20 },
  )
})

test('six clients go on together after a cut, with one request for the rest', async () => {
  const { world: opened, layers } = await openWorld([4 * MiB])
  await using world = opened
  const [layer] = layers
  cutFirst(world, [2 * MiB])
  const { log } = world.internet
  const answers = await Promise.all(Array.from({ length: 6 }, () => world.get(pathOf(layer!))))
  for (const { body } of answers) assert.ok(body.equals(bytesOf(layer!)))
  const asked = log.requests({ server: 'gcr', path: '/blobs/' })
  assert.is(asked.length, 2)
  assert.match(asked[1]!.range ?? '', /^bytes=\d+-/)
  assert.is(log.requests({ server: 'cdn' }).length, 0)
})

test('when mirror.gcr.io breaks off and is gone, Docker Hub gives the rest, from the byte where it broke', async () => {
  const { world: opened, layers } = await openWorld([4 * MiB])
  await using world = opened
  const { gcr, log } = world.internet
  const [layer] = layers
  gcr.intercept = ({ path }) => {
    if (!path.includes('/blobs/')) return undefined
    if (log.requests({ server: 'gcr', path: '/blobs/' }).length > 1) return { kind: 'status', status: 404 }
    return { kind: 'slow', bytesPerSecond: 20 * MiB }
  }
  const download = await Download.open(world.mirror + pathOf(layer!))
  await download.until(MiB)
  await gcr.down()
  assert.ok((await download.whole()).equals(bytesOf(layer!)))
  const [rest, ...more] = log.requests({ server: 'cdn' })
  assert.equal(more, [])
  const [, from] = /^bytes=(\d+)-/.exec(rest?.range ?? '') ?? []
  assert.ok(Number(from) >= MiB)
  assert.is(rest?.status, 206)
  assert.is(log.bytes('cdn'), layer!.size - Number(from))
})

test('the other way round: when the hub breaks off for good, nobody is left, and the client sees the end', async () => {
  const { world: opened, layers } = await openWorld([MiB])
  await using world = opened
  const { hub, gcr } = world.internet
  const [layer] = layers
  gcr.lacks.add(layer!.digest)
  hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'cut', at: 1000 } : undefined)
  const download = await Download.open(world.mirror + pathOf(layer!))
  assert.is(await download.end(), 'broken')
  assert.ok(download.body.equals(bytesOf(layer!).subarray(0, download.received)))
  assert.ok(download.received < layer!.size)
  assert.not.ok(await stored(world, layer!))
})

test('when every answer breaks off for ever, no client ever has an answer that looks whole', async () => {
  const { world: opened, layers } = await openWorld([3 * MiB])
  await using world = opened
  const { hub, gcr } = world.internet
  const [layer] = layers
  hub.intercept = gcr.intercept = ({ server, path }) =>
    server === 'cdn' || (server === 'gcr' && path.includes('/blobs/')) ? { kind: 'cut', at: 5000 } : undefined
  const downloads = await Promise.all(
    ['bytes=0-', 'bytes=1000-', 'bytes=100-199', 'bytes=-100'].map(range =>
      Download.open(world.mirror + pathOf(layer!), { range }),
    ),
  )
  for (const download of downloads) assert.is(await download.end(), 'broken')
  assert.not.ok(await stored(world, layer!))
  hub.intercept = gcr.intercept = undefined
  const { status, body } = await world.get(pathOf(layer!))
  assert.is(status, 200)
  assert.ok(body.equals(bytesOf(layer!)))
})

test('an upstream that brings some bytes before each cut is followed to the end', async () => {
  const { world: opened, layers } = await openWorld([2 * MiB])
  await using world = opened
  const { hub, gcr, log } = world.internet
  const [layer] = layers
  hub.intercept = gcr.intercept = ({ server, path }) =>
    server === 'cdn' || (server === 'gcr' && path.includes('/blobs/')) ? { kind: 'cut', at: 256 * KiB } : undefined
  const { body } = await world.get(pathOf(layer!))
  assert.ok(body.equals(bytesOf(layer!)))
  assert.ok(log.requests({ server: 'gcr', path: '/blobs/' }).length >= 8)
})

test('a manifest that is cut is asked for again', async () => {
  await using world = await World.open()
  const { hub, images } = world.internet
  const { digest, manifest } = images.image('library/zstd')
  let cut = 0
  hub.intercept = ({ method, path, headers }) =>
    method === 'GET' && path.includes('/manifests/') && headers.authorization !== undefined && cut++ === 0
      ? { kind: 'cut', at: 20 }
      : undefined
  const { status, body } = await world.get(`/v2/library/zstd/manifests/${digest}`)
  assert.is(status, 200)
  assert.is(body.length, manifest.size)
  assert.is(cut, 2)
})

test('a manifest that mirror.gcr.io always cuts comes from the hub', async () => {
  await using world = await World.open()
  const { gcr, hub } = world.internet
  gcr.intercept = ({ method }) => (method === 'GET' ? { kind: 'cut', at: 20 } : undefined)
  const { status, headers } = await world.get('/v2/library/forty/manifests/latest')
  assert.is(status, 200)
  assert.is(headers['cache-status'], `shoal; fwd=miss; detail="${new URL(hub.url).host}"`)
})

test('after a cut for ever, what came is kept for the next try', async () => {
  const { world: opened, layers } = await openWorld([4 * MiB])
  await using world = opened
  const { hub, gcr, log } = world.internet
  const [layer] = layers
  gcr.lacks.add(layer!.digest)
  let requests = 0
  hub.intercept = ({ server }) => {
    if (server !== 'cdn') return undefined
    return { kind: 'cut', at: requests++ === 0 ? 2 * MiB : 0 }
  }
  const download = await Download.open(world.mirror + pathOf(layer!))
  assert.is(await download.end(), 'broken')
  await until(
    async () => ((await readdir(join(world.data, 'ingest'))).length === 2 ? true : undefined),
    () => 'the part is not kept',
  )
  await log.idle()
  log.clear()
  hub.intercept = undefined
  const { body } = await world.get(pathOf(layer!))
  assert.ok(body.equals(bytesOf(layer!)))
  assert.ok(log.bytes('cdn') <= 2 * MiB + 64 * KiB, `${log.bytes('cdn')} bytes were fetched again`)
})

test.run()
