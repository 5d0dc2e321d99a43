import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Layer } from '../../scripts/internet/layer.ts'
import { Download } from '../download.ts'
import { World } from '../world.ts'

// containerd 2.1 and later, with `concurrent_layer_fetch_buffer` set (core/remotes/docker/fetcher.go). Debian's is older.

const MiB = 1024 * 1024

/**
 * Fetches a blob as containerd does: the first request, for all from 0 on, must be answered with 206 and tells the size;
 * then each part is asked for from its offset on, with no end, by so many workers in turn, and each connection is
 * closed once its part has come. @returns the bytes put together, and the `Cache-Status` of each answer
 */
async function fetchInParts(
  url: string,
  { part, workers }: { readonly part: number; readonly workers: number },
): Promise<{ bytes: Buffer; sources: Set<string> }> {
  const sources = new Set<string>()
  const open = async (offset: number) => {
    const download = await Download.open(url, {
      accept: 'application/vnd.oci.image.layer.v1.tar, */*',
      'accept-encoding': 'zstd;q=1.0, gzip;q=0.8, deflate;q=0.5',
      range: `bytes=${offset}-`,
    })
    assert.is(download.status, 206)
    assert.is(download.headers['content-encoding'], undefined)
    assert.match(download.headers['content-range'] ?? '', new RegExp(`^bytes ${offset}-`))
    sources.add(String(download.headers['cache-status']))
    return download
  }
  const first = await open(0)
  const size = Number(first.headers['content-length'])
  assert.is(first.headers['content-range'], `bytes 0-${size - 1}/${size}`)
  const offsets = Array.from({ length: Math.ceil(size / part) }, (_, index) => index * part)
  const parts = new Map<number, Buffer>()
  const work = async () => {
    for (let offset = offsets.shift(); offset !== undefined; offset = offsets.shift()) {
      const download = offset === 0 ? first : await open(offset)
      const length = Math.min(part, size - offset)
      await download.until(length)
      download.leave()
      parts.set(offset, download.body.subarray(0, length))
    }
  }
  await Promise.all(Array.from({ length: workers }, work))
  const inOrder = [...parts.keys()].sort((a, b) => a - b).map(offset => parts.get(offset) ?? Buffer.alloc(0))
  return { bytes: Buffer.concat(inOrder), sources }
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** An image of one layer at Docker Hub alone, whose line is as slow as that. */
async function openWorld(size: number, bytesPerSecond: number): Promise<{ world: World; layer: Layer; url: string }> {
  const world = await World.open()
  const image = await world.internet.add({ repository: 'library/one', tag: 'latest', layers: [size] })
  const [layer] = image.layers
  if (!layer) throw new Error('an image without layers')
  await world.get('/v2/library/one/manifests/latest?ns=docker.io')
  world.internet.hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'slow', bytesPerSecond } : undefined)
  return { world, layer, url: `${world.mirror}/v2/library/one/blobs/${layer.digest}?ns=docker.io` }
}

for (const part of [MiB, 4 * MiB, 10 * MiB])
  test(`a layer in parallel parts of ${part / MiB} MiB has the right bytes, and comes about once from upstream`, async () => {
    const size = 32 * MiB + 4321
    const { world: opened, layer, url } = await openWorld(size, 24 * MiB)
    await using world = opened
    const { log } = world.internet
    const cold = await fetchInParts(url, { part, workers: 3 })
    assert.is(digestOf(cold.bytes), layer.digest)
    for (const source of cold.sources) assert.match(source, /^shoal; fwd=miss/)
    await log.idle()
    // Parts that begin far ahead have a request of their own; what is in the sockets when one is cut short is lost.
    const requests = log.requests({ server: 'cdn', method: 'GET' })
    const account = requests.map(({ range, bytes }) => `${range ?? 'all'}: ${bytes}`).join(', ')
    assert.ok(requests.length <= 3, account)
    assert.ok(log.bytes('cdn') <= 1.25 * size, account)

    log.clear()
    const warm = await fetchInParts(url, { part, workers: 3 })
    assert.ok(warm.bytes.equals(cold.bytes))
    assert.equal([...warm.sources], ['shoal; hit; detail=local'])
    assert.equal(log.requests({ method: 'GET' }), [])
  })

test('who closes each part before the next is asked for has not left: there is one transfer', async () => {
  const size = 12 * MiB
  const { world: opened, layer, url } = await openWorld(size, 8 * MiB)
  await using world = opened
  const { bytes } = await fetchInParts(url, { part: MiB, workers: 1 })
  assert.is(digestOf(bytes), layer.digest)
  const { log } = world.internet
  await log.idle()
  assert.is(log.requests({ server: 'cdn', method: 'GET' }).length, 1)
  assert.is(log.bytes('cdn'), size)
})

test.run()
