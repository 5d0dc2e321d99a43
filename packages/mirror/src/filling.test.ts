import { randomBytes } from 'node:crypto'
import type { ByteRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import { type Offer, type RangeWriter, type Source, SourceError, type Want } from '@shoal/store/source'
import { Store } from '@shoal/store/store'
import type { Transfer } from '@shoal/store/transfer'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readAll } from '../../../test/read-all.ts'
import { type DiskOperation, WatchedDisk } from '../../../test/watched-disk.ts'
import { Filling, NowhereError } from './filling.ts'

const megabyte = 1024 * 1024
const blob = randomBytes(megabyte)
const whole = { start: 0, end: blob.length }
const name = parseName('docker.io', 'busybox')
const wantOf = (content: Buffer): Want => ({ name, digest: digestOf(content), kind: 'blob', size: content.length })

type Fetch = (range: ByteRange, into: RangeWriter, signal: AbortSignal) => Promise<void>

/** A source of a test's making. */
class FakeSource implements Source {
  readonly label: string
  readonly found: Want[] = []
  readonly fetched: ByteRange[] = []
  closed = 0
  readonly #size: number | null | SourceError
  readonly #fetch: Fetch

  /** @param size of what it offers; null if it has nothing, or why it cannot say */
  constructor(label: string, size: number | null | SourceError, fetch: Fetch) {
    this.label = label
    this.#size = size
    this.#fetch = fetch
  }

  async find(want: Want, signal: AbortSignal): Promise<Offer | null> {
    signal.throwIfAborted()
    this.found.push(want)
    const size = this.#size
    if (size instanceof SourceError) throw size
    if (size === null) return null
    return {
      origin: { kind: 'upstream', host: this.label, visibility: 'public' },
      size,
      mediaType: mediaTypes.ociManifest,
      ranges: () => new RangeSet([{ start: 0, end: size }]),
      onGrow: () => ({ [Symbol.dispose]: () => {} }),
      fetch: async (range, into, signal) => {
        this.fetched.push(range)
        await this.#fetch(range, into, signal)
      },
      close: () => {
        this.closed++
      },
    }
  }
}

/** Gives bytes until `until`, and then breaks off. */
function giving(content: Buffer, until = content.length): Fetch {
  return async (range, into) => {
    for (let at = range.start; into.room > 0; ) {
      const piece = content.subarray(at, Math.min(at + 50_000, until, range.end))
      if (piece.length === 0) throw new SourceError('broken', 'it ends early')
      at += piece.length
      await into.write(piece)
    }
  }
}

const good = (label: string, content = blob) => new FakeSource(label, content.length, giving(content))

/** Gives nothing until it is aborted. */
const stalling: Fetch = (_range, _into, signal) =>
  new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))

/** A store, and one filling in it. */
class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly store: Store
  readonly wrong: string[] = []
  readonly failed: string[] = []
  readonly unstored: string[] = []
  #running: Promise<void> = Promise.resolve()

  private constructor(disk: WatchedDisk, store: Store) {
    this.disk = disk
    this.store = store
  }

  static async open(): Promise<World> {
    const disk = await WatchedDisk.open()
    return new World(disk, await Store.open({ folder: disk.folder, disk, onWarning: () => {} }))
  }

  fill(sources: readonly Source[], want = wantOf(blob)): { transfer: Transfer; filling: Filling } {
    const transfer = this.store.begin(want.digest)
    const filling = new Filling({
      store: this.store,
      transfer,
      want,
      sources,
      random: () => 0,
      onWrong: source => this.wrong.push(source.label),
      onUnstored: error => this.unstored.push(error.message),
      onFailure: (source, error) => this.failed.push(`${source.label}: ${(error as SourceError).code}`),
    })
    this.#running = filling.run()
    return { transfer, filling }
  }

  /** Leaves a part of the blob in the store. */
  async park(bytes: Buffer, size = blob.length, of = blob): Promise<void> {
    const transfer = this.store.begin(digestOf(of))
    await transfer.begin(size)
    const lease = transfer.lease({ start: 0, end: bytes.length })
    await lease.write(bytes)
    await transfer.park(new SourceError('revoked', 'stopped'))
    await transfer.settled
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running
    await this.store.close()
    for (let i = 0; this.disk.openFiles > 0 && i < 100; i++) await new Promise(resolve => setImmediate(resolve))
    const { openFiles, misused } = this.disk
    await this.disk[Symbol.asyncDispose]()
    assert.is(openFiles, 0, 'all files are closed')
    assert.equal(misused, [])
  }
}

const nowhere = async (transfer: Transfer): Promise<NowhereError> => {
  const settled = await transfer.settled
  assert.not(settled.stored)
  const { error } = settled
  assert.instance(error, NowhereError, String(error))
  return error as NowhereError
}

test('sources are asked in their order, until one has it', async () => {
  await using world = await World.open()
  const [none, down] = [
    new FakeSource('none', null, stalling),
    new FakeSource('down', new SourceError('failing', 'x'), stalling),
  ]
  const [first, second] = [good('first'), good('second')]
  const { transfer } = world.fill([none, down, first, second])
  const body = readAll(transfer.read({ start: 0, end: blob.length }))
  assert.is(await transfer.sized, blob.length)
  assert.is(transfer.origin?.host, 'first')
  assert.ok((await body).equals(blob))
  assert.equal(await transfer.settled, { stored: true })
  assert.equal(
    [none, down, first, second].map(source => source.found.length),
    [1, 1, 1, 0],
  )
  assert.equal(world.failed, ['down: failing'])
  assert.is(first.closed, 1)
})

test('if none has it, the error says why for each', async () => {
  await using world = await World.open()
  const sources = [
    new FakeSource('none', null, stalling),
    new FakeSource('limit', new SourceError('limited', 'limit is reached'), stalling),
    good('other size', blob.subarray(1)),
  ]
  const { transfer } = world.fill(sources)
  const sized = transfer.sized.catch((error: unknown) => error)
  const error = await nowhere(transfer)
  assert.is(await sized, error)
  assert.equal(
    error.failures.map(({ source, error }) => [source, error?.code]),
    [
      ['none', undefined],
      ['limit', 'limited'],
      ['other size', 'broken'],
    ],
  )
  assert.match(error.message, 'none does not have it; limit is reached')
})

test('with no source there is nothing', async () => {
  await using world = await World.open()
  assert.equal((await nowhere(world.fill([]).transfer)).failures, [])
})

test('a source that breaks off is gone on with at its byte, then the next at that byte', async () => {
  await using world = await World.open()
  const first = new FakeSource('first', blob.length, giving(blob, 400_000))
  const second = good('second')
  const { transfer } = world.fill([first, second])
  const body = readAll(transfer.read({ start: 0, end: blob.length }))
  assert.ok((await body).equals(blob))
  assert.equal(
    first.fetched.map(({ start }) => start),
    [0, 400_000, 400_000, 400_000],
  )
  assert.is(second.found[0]?.at, 400_000)
  assert.equal(second.fetched, [{ start: 400_000, end: blob.length }])
  assert.equal(world.wrong, [])
})

test('a source that denies or limits midway is not asked again', async () => {
  for (const code of ['denied', 'limited', 'skipped'] as const) {
    await using world = await World.open()
    const first = new FakeSource('first', blob.length, async (range, into) => {
      await into.write(blob.subarray(range.start, range.start + 100_000))
      throw new SourceError(code, 'no more')
    })
    const { transfer } = world.fill([first, good('second')])
    assert.equal(await transfer.settled, { stored: true })
    assert.is(first.fetched.length, 1)
  }
})

test('wrong bytes of one giver are its fault, and the next is asked from the start', async () => {
  await using world = await World.open()
  const second = good('second')
  const { transfer } = world.fill([good('liar', Buffer.alloc(blob.length)), second])
  const late = readAll(transfer.read({ start: blob.length - 10, end: blob.length }))
  assert.equal(await transfer.settled, { stored: true })
  assert.ok((await late).equals(blob.subarray(-10)))
  assert.equal(world.wrong, ['liar'])
  assert.equal(second.fetched, [{ start: 0, end: blob.length }])
})

test('wrong bytes of the only source leave nothing behind', async () => {
  await using world = await World.open()
  const { transfer } = world.fill([good('liar', Buffer.alloc(blob.length))])
  const body = readAll(transfer.read({ start: 0, end: blob.length })).catch((error: unknown) => error)
  const error = await nowhere(transfer)
  assert.instance(await body, Error)
  assert.match(error.message, 'liar gives other bytes')
  assert.is(world.store.sizeOf(wantOf(blob).digest), undefined)
})

test('of several givers nobody knows at first who was wrong: they are asked once more, from one', async () => {
  await using world = await World.open()
  const liar = new FakeSource('liar', blob.length, giving(Buffer.alloc(blob.length), 400_000))
  const honest = good('honest')
  const { transfer } = world.fill([liar, honest])
  assert.equal(await transfer.settled, { stored: true })
  assert.equal(honest.fetched, [
    { start: 400_000, end: blob.length },
    { start: 0, end: blob.length },
  ])
  while (world.wrong.length === 0 || world.disk.openFiles > 0) await new Promise(resolve => setImmediate(resolve))
  assert.equal(world.wrong, ['liar'])
})

test('givers that are only ever wrong together are given up', async () => {
  await using world = await World.open()
  const half = (label: string) =>
    new FakeSource(label, blob.length, async (range, into) => {
      if (range.start > 0 && label === 'first') throw new SourceError('limited', 'no more')
      if (range.start === 0 && label === 'second') {
        await into.write(Buffer.alloc(1000))
        throw new SourceError('limited', 'no more')
      }
      await giving(Buffer.alloc(blob.length), label === 'first' ? 400_000 : blob.length)(
        range,
        into,
        new AbortController().signal,
      )
    })
  const { transfer } = world.fill([half('first'), half('second')])
  const error = await nowhere(transfer)
  assert.ok(error.failures.length > 0)
})

test('a wrong digest with bytes from an earlier run is nobody’s fault: once more, from the start', async () => {
  await using world = await World.open()
  await world.park(Buffer.alloc(300_000))
  const source = good('source')
  const { transfer } = world.fill([source])
  assert.equal(await transfer.settled, { stored: true })
  assert.equal(world.wrong, [])
  assert.equal(
    source.fetched.map(({ start }) => start),
    [300_000, 0],
  )
})

test('what an earlier run left is not fetched again', async () => {
  await using world = await World.open()
  await world.park(blob.subarray(0, 300_000))
  const source = good('source')
  const { transfer } = world.fill([source])
  assert.equal(await transfer.settled, { stored: true })
  assert.equal(source.fetched, [{ start: 300_000, end: blob.length }])
})

test('a part that turns out to be whole needs no source', async () => {
  await using world = await World.open()
  await world.park(blob)
  const { transfer } = world.fill([])
  assert.is(await transfer.sized, blob.length)
  assert.equal(await transfer.settled, { stored: true })
})

test('a manifest of a wrong length from one source does not keep the next from giving it', async () => {
  await using world = await World.open()
  const { size: _, ...want } = wantOf(blob)
  const { transfer } = world.fill([good('liar', Buffer.from('{}')), good('honest')], { ...want, kind: 'manifest' })
  assert.equal(await transfer.settled, { stored: true })
  assert.equal(world.wrong, ['liar'])
})

/** Gives bytes up to `until` at once, and then waits to be aborted. */
const upTo =
  (until: number): Fetch =>
  async (range, into, signal) => {
    if (range.start < until) await into.write(blob.subarray(range.start, until))
    await stalling(range, into, signal)
  }

test('when all leave, a transfer that has not half of it stops after a while and keeps its part', async () => {
  await using world = await World.open()
  const { transfer } = world.fill([new FakeSource('source', blob.length, upTo(300_000))])
  const reader = transfer.read({ start: 0, end: blob.length })
  await reader.read(Buffer.alloc(10))
  reader.close()
  const settled = await transfer.settled
  assert.is((settled.error as SourceError).code, 'revoked')
  const again = world.fill([good('source')])
  await again.transfer.settled
  assert.ok(world.store.sizeOf(wantOf(blob).digest))
})

test('when all leave, a transfer past half goes on', async () => {
  await using world = await World.open()
  let release = () => {}
  const source = new FakeSource('source', blob.length, async (range, into) => {
    await into.write(blob.subarray(range.start, 700_000))
    await new Promise<void>(resolve => (release = resolve))
    await giving(blob)({ start: 700_000, end: range.end }, into, new AbortController().signal)
  })
  const { transfer } = world.fill([source])
  const reader = transfer.read({ start: 0, end: blob.length })
  await reader.read(Buffer.alloc(10))
  reader.close()
  await new Promise(resolve => setTimeout(resolve, 1050))
  assert.ok(transfer.open)
  release()
  assert.equal(await transfer.settled, { stored: true })
})

test('a client that comes back within the grace finds the transfer going on', async () => {
  await using world = await World.open()
  const { transfer, filling } = world.fill([new FakeSource('source', blob.length, upTo(300_000))])
  const first = transfer.read({ start: 0, end: blob.length })
  await first.read(Buffer.alloc(10))
  first.close()
  const interest = transfer.hold()
  await new Promise(resolve => setTimeout(resolve, 1050))
  assert.ok(transfer.open)
  filling.stop(new SourceError('revoked', 'shoal is stopping'))
  await transfer.settled
  interest[Symbol.dispose]()
})

test('stopping ends it promptly, whatever it waits for', async () => {
  for (const fetch of [stalling, giving(blob, 0)]) {
    await using world = await World.open()
    const { transfer, filling } = world.fill([new FakeSource('source', blob.length, fetch)])
    await transfer.sized
    const reason = new SourceError('revoked', 'shoal is stopping')
    filling.stop(reason)
    assert.equal(await transfer.settled, { stored: false, error: reason })
  }
})

/** Operations of the disk that fail in turn, from the `nth` of their kind on. */
const failures: [operation: DiskOperation, nth: number][] = [
  ['open', 0],
  ['write', 0],
  ['write', 1],
  ['sync', 0],
  ['rename', 0],
  ['syncFolder', 0],
]

for (const [operation, nth] of failures)
  test(`a disk whose ${operation} fails (${nth}) lets what arrives pass through, verified, and blames no source`, async () => {
    await using world = await World.open()
    let count = 0
    world.disk.before = each => {
      if (each === operation && count++ >= nth) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
    }
    const { transfer } = world.fill([good('source'), good('other')])
    const readers = [whole, { start: 100, end: 200 }, { start: blob.length - 100, end: blob.length }].map(
      async range => {
        using _interest = transfer.hold()
        await transfer.sized
        const bytes = await readAll(transfer.read(range))
        assert.ok(bytes.equals(blob.subarray(range.start, range.end)))
      },
    )
    await Promise.all(readers)
    assert.equal(await transfer.settled, { stored: false })
    assert.equal([world.wrong, world.failed], [[], []])
    assert.ok(world.unstored.length > 0 && world.unstored.every(message => message === 'no space left'))
    world.disk.before = () => {}
    assert.is(world.store.sizeOf(digestOf(blob)), undefined)
    const again = world.fill([good('source')])
    assert.equal(await again.transfer.settled, { stored: true })
  })

test('of wrong bytes that pass through, no reader gets the end', async () => {
  await using world = await World.open()
  world.disk.before = operation => {
    if (operation === 'write') throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
  }
  const wrong = Buffer.from(blob)
  wrong[10] = wrong[10]! ^ 1
  const { transfer } = world.fill([new FakeSource('liar', blob.length, giving(wrong)), good('other')])
  using _interest = transfer.hold()
  await transfer.sized
  const early = await readAll(transfer.read(whole)).then(
    bytes => bytes.equals(blob),
    error => error instanceof SourceError,
  )
  assert.ok(early)
  assert.equal(await transfer.settled, { stored: false })
  assert.equal(world.wrong, ['liar'])
})

test('a manifest that passes through is remembered', async () => {
  await using world = await World.open()
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(blob), size: blob.length }
  const manifest = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [] }),
  )
  world.disk.before = operation => {
    if (operation === 'write') throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
  }
  const { transfer } = world.fill([good('source', manifest)], { ...wantOf(manifest), kind: 'manifest' })
  using _interest = transfer.hold()
  assert.equal(await transfer.settled, { stored: false })
  assert.ok((await world.store.manifest(digestOf(manifest)))?.bytes.equals(manifest))
  assert.is(world.store.sizeOf(digestOf(manifest)), undefined)
})

const large = Buffer.alloc(20 * megabyte, randomBytes(1000))

test('a reader far ahead has its range fetched at once, and nothing is fetched twice', async () => {
  await using world = await World.open()
  const bytes = { given: 0 }
  let release = () => {}
  const held = new Promise<void>(resolve => (release = resolve))
  const source = new FakeSource('source', large.length, async (range, into) => {
    let at = range.start
    for (; into.room > 0; at += megabyte) {
      const piece = large.subarray(at, Math.min(at + megabyte, range.end))
      bytes.given += Math.min(piece.length, into.room)
      await into.write(piece)
      if (range.start === 0) await held
    }
  })
  const { transfer } = world.fill([source], wantOf(large))
  const far = transfer.read({ start: 15 * megabyte, end: 16 * megabyte })
  const near = readAll(transfer.read({ start: 0, end: large.length }))
  const buffer = Buffer.alloc(1000)
  assert.is(await far.read(buffer), 1000)
  assert.ok(buffer.equals(large.subarray(15 * megabyte, 15 * megabyte + 1000)))
  far.close()
  release()
  assert.ok((await near).equals(large))
  assert.equal(
    source.fetched.map(({ start }) => start),
    [0, 15 * megabyte],
  )
  assert.is(bytes.given, large.length)
})

test('a reader that waits does not make a failing source be asked in a hurry', async () => {
  await using world = await World.open()
  const source = new FakeSource('source', large.length, async () => {
    throw new SourceError('broken', 'no Range here')
  })
  const { transfer } = world.fill([source], wantOf(large))
  const reading = [0, 15].map(start =>
    readAll(transfer.read({ start: start * megabyte, end: large.length })).catch((error: unknown) => error),
  )
  await nowhere(transfer)
  for (const error of await Promise.all(reading)) assert.instance(error, NowhereError)
  assert.ok(source.fetched.length <= 6, `it was asked ${source.fetched.length} times`)
})

test('a source that fails for far readers only still fills it all', async () => {
  await using world = await World.open()
  const source = new FakeSource('source', large.length, async (range, into, signal) => {
    if (range.start > 0) throw new SourceError('broken', 'no Range here')
    await new Promise(resolve => setTimeout(resolve, 20))
    await giving(large)(range, into, signal)
  })
  const rest = good('rest', large)
  const { transfer } = world.fill([source, rest], wantOf(large))
  const far = readAll(transfer.read({ start: 15 * megabyte, end: large.length }))
  assert.ok((await far).equals(large.subarray(15 * megabyte)))
  assert.equal(await transfer.settled, { stored: true })
})

test.run()
