import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytesOf, type Content } from '../../scripts/internet/content.ts'
import type { Image } from '../../scripts/internet/image.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { freePorts, ShoalProcess, until } from '../shoal-process.ts'
import { fetchWhole } from '../world.ts'

const KiB = 1024
const MiB = 1024 * KiB
const rounds = 50

/** A change of a tag is written within so long, in ms. */
const tagWritten = 2000

/** The same numbers for the same seed (mulberry32), from 0 to 1. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What clients were given to the end, by path. */
type Acknowledged = Map<string, Content>

/** Pulls an image as docker does. @throws if anything breaks off */
async function pull(mirror: string, repository: string, image: Image, acknowledged: Acknowledged): Promise<void> {
  const get = async (path: string, content: Content) => {
    const { status, body } = await fetchWhole('GET', `${mirror}/v2/${repository}/${path}`)
    assert.is(status, 200, path)
    assert.ok(body.equals(bytesOf(content)), `${path} has the right bytes`)
  }
  const acknowledge = async (path: string, content: Content) => {
    await get(path, content)
    acknowledged.set(`/v2/${repository}/${path}`, content)
  }
  await get('manifests/latest', image.manifest)
  await acknowledge(`manifests/${image.digest}`, image.manifest)
  // All that was begun comes to its end, so that all that was given is known.
  const parts = [image.config, ...image.layers].map(blob => acknowledge(`blobs/${blob.digest}`, blob))
  await Promise.allSettled(parts)
  await Promise.all(parts)
}

test('kill -9 at fifty moments loses nothing that was given, and spoils nothing', async () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
  const random = randomFrom(seed)
  // It goes down and up again, and nobody may take its ports meanwhile.
  const [hubPort, tokenPort, cdnPort, gcrPort] = (await freePorts(4)) as [number, number, number, number]
  await using internet = await Internet.open({ hubPort, tokenPort, cdnPort, gcrPort })
  const { hub, gcr } = internet
  await using shoal = await ShoalProcess.start({ internet, env: { SHOAL_TAGS_TTL: '1h' } })
  const acknowledged: Acknowledged = new Map()
  const writtenTags = async () => {
    const { manifests } = JSON.parse(await readFile(join(shoal.folder, 'data', 'index.json'), 'utf8'))
    return manifests.map((entry: { annotations: Record<string, string> }) => {
      const reference = entry.annotations['org.opencontainers.image.ref.name'] ?? ''
      return reference.replace(/^docker\.io\/(.*):latest$/, '$1')
    }) as string[]
  }
  let broken = 0
  let duringStart = 0
  let whole = 0
  let tagsChecked = 0
  let bytesChecked = 0
  let repository = ''
  let image: Image | undefined
  let written: string[] = []
  const kill = async () => {
    // At any moment it is whole, and what it has is there for good.
    written = await writtenTags()
    shoal.process.kill('SIGKILL')
    await shoal.process.end()
  }
  try {
    for (let round = 1; round <= rounds; round++) {
      if (!image) {
        repository = `library/kill-${round}`
        const sizes = [3 * MiB + Math.floor(random() * 3 * MiB), MiB, 200 * KiB, 1 + Math.floor(random() * KiB)]
        image = await internet.add({ repository, tag: 'latest', layers: sizes })
      }
      // Slow enough that most kills come in the middle.
      hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'slow', bytesPerSecond: 24 * MiB } : undefined)
      const pulls = [1, 2, 3].map(() => pull(shoal.mirror, repository, image!, acknowledged))
      const settled = Promise.allSettled(pulls)
      await setTimeout(random() * 300)
      await kill()
      for (const { status, ...rest } of await settled) {
        if (status === 'fulfilled') continue
        broken++
        // Only the connection may break: what came whole was right.
        const { reason } = rest as PromiseRejectedResult
        assert.not.instance(reason, assert.Assertion, reason.message)
      }
      if (round % 10 === 0) {
        const starting = shoal.start().then(
          () => {},
          () => {},
        )
        await setTimeout(200 + random() * 400)
        await kill()
        await starting
        duringStart++
      }
      await Promise.all([hub.down(), gcr.down()])
      await shoal.start()
      for (const [path, content] of acknowledged) {
        const { status, headers, body } = await shoal.get(path)
        assert.is(status, 200, `${path} in round ${round}`)
        assert.is(headers['cache-status'], 'shoal; hit; detail=local')
        assert.ok(body.equals(bytesOf(content)), path)
        bytesChecked += body.length
      }
      for (const repository of written) {
        const { status } = await shoal.get(`/v2/${repository}/manifests/latest`)
        assert.is(status, 200, `the tag of ${repository} in round ${round}`)
        tagsChecked++
      }
      await Promise.all([hub.up(), gcr.up()])
      const parts = await readdir(join(shoal.folder, 'data', 'ingest'))
      assert.ok(parts.length <= 2 * image.layers.length, parts.join(' '))
      // Every third image is pulled to its end, the others are met by several kills.
      if (round % 3 !== 0 && round !== rounds) continue
      hub.intercept = undefined
      await pull(shoal.mirror, repository, image, acknowledged)
      assert.equal(await readdir(join(shoal.folder, 'data', 'ingest')), [])
      // What is older is known to survive: reading all of it each time takes too long.
      if (acknowledged.size > 30) acknowledged.clear()
      if (whole % 4 === 0) {
        await until(
          async () => ((await writtenTags()).includes(repository) ? true : undefined),
          () => `the tag of ${repository} is not written in time`,
          tagWritten,
        )
      }
      image = undefined
      whole++
    }
    assert.is(await shoal.stop(), 0)
  } catch (error) {
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error })
  }
  assert.ok(broken > rounds / 4, `only ${broken} pulls were broken off: the kills come too late`)
  const megabytes = Math.round(bytesChecked / MiB)
  console.log(
    `measured: ${rounds} kills in the middle of pulls and ${duringStart} of starts, ${broken} pulls broken off, ` +
      `${whole} images whole in the end, ${megabytes} MiB and ${tagsChecked} tags checked offline, seed ${seed}`,
  )
})

test.run()
