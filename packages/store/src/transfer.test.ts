import { randomBytes } from 'node:crypto'
import type { ByteRange } from '@shoal/oci/byte-range'
import { type Digest, digestOf } from '@shoal/oci/digest'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readAll } from '../../../test/read-all.ts'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Ingest } from './ingest.ts'
import { Layout } from './layout.ts'
import type { Lease } from './lease.ts'
import { type Giver, SourceError } from './source.ts'
import { Transfer, type Verdict } from './transfer.ts'

const blob = randomBytes(1_500_000)
const digest = digestOf(blob)
const whole = { start: 0, end: blob.length }
const heldBack = 64 * 1024

/** A transfer of the blob, and what its filler was told. */
class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly layout: Layout
  readonly transfer: Transfer
  wanted = 0
  deserted = 0
  passed: Buffer | 'large' | undefined
  admits = true

  private constructor(disk: WatchedDisk, layout: Layout, digest: Digest) {
    this.disk = disk
    this.layout = layout
    this.transfer = new Transfer(digest, size => Ingest.open(disk, layout, digest, size))
    this.transfer.fillBy({ wanted: () => this.wanted++, deserted: () => this.deserted++, arrived: () => {} })
  }

  static async open(of = digest): Promise<World> {
    const disk = await WatchedDisk.open()
    return new World(disk, await Layout.open(disk.folder, disk), of)
  }

  static async begun(): Promise<World> {
    const world = await World.open()
    await world.transfer.begin(blob.length)
    world.transfer.offered({ kind: 'upstream', host: 'hub', visibility: 'public' })
    return world
  }

  verify(): Promise<Verdict> {
    return this.transfer.verify({
      admits: async () => this.admits,
      onStored: async () => {},
      onPassed: async passing => {
        this.passed = (await passing.bytes()) ?? 'large'
      },
    })
  }

  /** Ends the transfer, and checks that no file is left open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.transfer.park(new SourceError('revoked', 'the test is over'))
    for (let i = 0; this.disk.openFiles > 0 && i < 100; i++) await new Promise(resolve => setImmediate(resolve))
    const { openFiles, misused } = this.disk
    await this.disk[Symbol.asyncDispose]()
    assert.is(openFiles, 0, 'all files are closed')
    assert.equal(misused, [])
  }
}

/** Fills what the lease is for, in pieces. */
async function fill(lease: Lease, piece = 100_000, content: Buffer = blob): Promise<void> {
  while (lease.room > 0) {
    const waiting = lease.write(content.subarray(lease.position, lease.position + piece))
    await waiting
  }
  await lease.close()
}

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'it did not fail',
    (error: unknown) => error,
  )

/** Resolves when all that can happen now has happened. */
async function quiet(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
}

const isPending = async (promise: Promise<unknown>): Promise<boolean> => {
  let pending = true
  promise.then(
    () => (pending = false),
    () => (pending = false),
  )
  await quiet()
  return pending
}

test('readers of any range, at any pace, get its bytes while any number of leases fill it', async () => {
  const range = fc
    .tuple(fc.nat(blob.length - 1), fc.integer({ min: 1, max: blob.length }))
    .map(([start, length]): ByteRange => ({ start, end: Math.min(start + length, blob.length) }))
  await fc.assert(
    fc.asyncProperty(
      fc.array(range, { minLength: 1, maxLength: 4 }),
      fc.array(fc.nat(blob.length - 1), { maxLength: 4 }),
      fc.integer({ min: 20_000, max: 900_000 }),
      fc.integer({ min: 30_000, max: 700_000 }),
      async (ranges, starts, piece, size) => {
        await using world = await World.begun()
        const { transfer } = world
        const reading = ranges.map(range => readAll(transfer.read(range), size))
        const filling: Promise<void>[] = []
        for (const start of new Set([0, ...starts])) {
          if (transfer.unleased(start)?.start === start || transfer.distance(start) !== 0)
            filling.push(fill(transfer.lease({ start, end: blob.length }), piece))
        }
        await Promise.all(filling)
        for (let gap: ByteRange | undefined; (gap = transfer.unleased()); ) await fill(transfer.lease(gap), piece)
        assert.ok(transfer.complete)
        assert.equal(await world.verify(), { matches: true, stored: true, resumed: false })
        for (const [i, bytes] of (await Promise.all(reading)).entries())
          assert.ok(bytes.equals(blob.subarray(ranges[i]!.start, ranges[i]!.end)))
        assert.ok((await world.disk.readFile(world.layout.blob(digest))).equals(blob))
        assert.equal(await transfer.settled, { stored: true })
      },
    ),
    { numRuns: 15 },
  )
})

test('the last 64 KiB of a range come only when the blob is verified', async () => {
  for (const range of [whole, { start: 5, end: 1_000_000 }]) {
    await using world = await World.begun()
    const { transfer } = world
    const reader = transfer.read(range)
    let received = 0
    const reading = (async () => {
      const buffer = Buffer.alloc(100_000)
      for (let count: number; (count = await reader.read(buffer)) > 0; ) received += count
      reader.close()
    })()
    await fill(transfer.lease(whole))
    for (let i = 0; received < range.end - range.start - heldBack && i < 1000; i++) await quiet()
    assert.ok(await isPending(reading))
    assert.is(received, range.end - range.start - heldBack)
    await world.verify()
    await reading
    assert.is(received, range.end - range.start)
  }
})

test('a tiny range waits until the blob is verified', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const tiny = [
    { start: 0, end: 1 },
    { start: 700_000, end: 700_000 + heldBack },
    { start: blob.length - 1, end: blob.length },
  ]
  const reading = tiny.map(range => readAll(transfer.read(range)))
  await fill(transfer.lease(whole))
  assert.ok(await isPending(Promise.race(reading)))
  await world.verify()
  for (const [i, bytes] of (await Promise.all(reading)).entries())
    assert.ok(bytes.equals(blob.subarray(tiny[i]!.start, tiny[i]!.end)))
})

test('after a wrong digest readers that had bytes fail, and the others get the right ones', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const wrong = Buffer.from(blob)
  wrong[700_000]! ^= 1
  const started = transfer.read(whole)
  assert.is(
    await Promise.all([started.read(Buffer.alloc(10)), fill(transfer.lease(whole), 100_000, wrong)]).then(([n]) => n),
    10,
  )
  const waiting = readAll(transfer.read({ start: blob.length - 100, end: blob.length }))
  assert.equal(await world.verify(), { matches: false, stored: false, resumed: false })
  assert.instance(await failure(started.read(Buffer.alloc(10))), SourceError)
  started.close()
  assert.is(transfer.have.total, 0)
  await fill(transfer.lease(whole))
  assert.ok((await world.verify()).matches)
  assert.ok((await waiting).equals(blob.subarray(-100)))
})

test('who comes while wrong bytes are thrown away gets none of them', async () => {
  await using world = await World.begun()
  const { transfer } = world
  await fill(transfer.lease(whole), 100_000, Buffer.alloc(blob.length))
  const late = Promise.withResolvers<Promise<Buffer>>()
  world.disk.before = async (operation, path) => {
    if (operation !== 'remove' || !path.endsWith('.part')) return
    world.disk.before = () => {}
    late.resolve(readAll(transfer.read(whole)))
    await quiet()
  }
  using _interest = transfer.hold()
  assert.not((await world.verify()).matches)
  await fill(transfer.lease(whole))
  assert.ok((await world.verify()).matches)
  assert.ok((await await late.promise).equals(blob))
})

class TestGiver implements Giver {
  readonly kind: Giver['kind']
  readonly label: string
  readonly told: string[] = []

  constructor(kind: Giver['kind'], label: string) {
    this.kind = kind
    this.label = label
  }

  wrong(reason: string): void {
    this.told.push(reason)
  }
}

test('a reader is let up to the first byte that a peer gave, until all is verified', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const [hub, ada] = [new TestGiver('upstream', 'hub'), new TestGiver('peer', 'ada')]
  await fill(transfer.lease({ start: 0, end: 400_000 }, hub))
  const lease = transfer.lease({ start: 400_000, end: 900_000 }, hub)
  await lease.write(blob.subarray(400_000, 500_000))
  lease.from(ada)
  await lease.write(blob.subarray(500_000, 600_000))
  lease.from(hub)
  await fill(lease)
  await fill(transfer.lease({ start: 900_000, end: blob.length }, hub))
  const reader = transfer.read(whole)
  let received = 0
  const reading = (async () => {
    const buffer = Buffer.alloc(70_000)
    for (let count: number; (count = await reader.read(buffer)) > 0; received += count)
      assert.is(buffer.compare(blob, received, received + count, 0, count), 0)
    reader.close()
  })()
  const behind = transfer.read({ start: 650_000, end: blob.length })
  assert.is(await behind.read(Buffer.alloc(10)), 10)
  behind.close()
  while (received < 500_000) await quiet()
  assert.ok(await isPending(reading))
  assert.is(received, 500_000)
  assert.ok((await world.verify()).matches)
  await reading
  assert.is(received, blob.length)
})

test('who gave all of a wrong blob is told; what several gave is kept, without a name, to be compared', async () => {
  await using world = await World.begun()
  const { transfer, disk, layout } = world
  const [ada, eve] = [new TestGiver('peer', 'ada'), new TestGiver('peer', 'eve')]
  const zeros = Buffer.alloc(blob.length)
  await fill(transfer.lease(whole, eve), 100_000, zeros)
  assert.not((await world.verify()).matches)
  assert.equal([eve.told.length, transfer.takeWrongParts().length], [1, 0])
  await fill(transfer.lease({ start: 0, end: 700_000 }, ada))
  await fill(transfer.lease({ start: 700_000, end: blob.length }, eve), 100_000, zeros)
  assert.equal(transfer.givers, [ada, eve])
  assert.not((await world.verify()).matches)
  assert.equal([ada.told.length, eve.told.length], [0, 1])
  await fill(transfer.lease(whole, ada))
  assert.ok((await world.verify()).matches)
  const [part, ...others] = transfer.takeWrongParts()
  assert.equal(others, [])
  assert.equal(
    [...part!.ledger.givers].map(([giver, ranges]) => [giver, ranges.toJSON()]),
    [
      [ada, [[0, 700_000]]],
      [eve, [[700_000, blob.length]]],
    ],
  )
  assert.equal(await disk.list(layout.ingestFolder), [])
  const kept = Buffer.alloc(10)
  assert.is(await part!.read(kept, 10, 699_995), 10)
  assert.ok(kept.equals(Buffer.concat([blob.subarray(699_995, 700_000), Buffer.alloc(5)])))
  await part!.close()
})

test('a size that only one told is given up as long as nobody fills it', async () => {
  await using world = await World.open()
  const { transfer } = world
  await transfer.begin(7)
  transfer.offered(undefined)
  assert.is(await transfer.sized, 7)
  const reader = transfer.read({ start: 0, end: 7 })
  const reading = failure(reader.read(Buffer.alloc(7)))
  await transfer.begin(blob.length)
  transfer.offered(undefined)
  assert.instance(await reading, SourceError)
  reader.close()
  assert.is(await transfer.sized, blob.length)
  const lease = transfer.lease(whole)
  assert.instance(await failure(transfer.begin(7)), SourceError)
  await fill(lease)
  assert.ok((await world.verify()).matches)
})

test('no bytes at all are believed only for the digest of nothing', async () => {
  await using other = await World.open()
  assert.instance(await failure(other.transfer.begin(0)), SourceError)
  await using world = await World.open(digestOf(Buffer.alloc(0)))
  await world.transfer.begin(0)
  assert.ok(world.transfer.complete)
  assert.ok((await world.verify()).matches)
})

test('a lease gives up what is leased to another, and never writes there', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const first = transfer.lease(whole)
  await first.write(blob.subarray(0, 200_000))
  const second = transfer.lease({ start: 1_000_000, end: blob.length })
  assert.is(first.end, 1_000_000)
  assert.is(first.room, 800_000)
  assert.is(transfer.distance(500_000), 300_000)
  assert.is(transfer.distance(1_000_000), 0)
  const third = transfer.lease({ start: 600_000, end: blob.length })
  assert.equal([first.end, third.end], [600_000, 1_000_000])
  assert.is(transfer.unleased(), undefined)
  let written = 0
  world.disk.before = operation => {
    if (operation === 'write') written++
  }
  await Promise.all([first, second, third].map(lease => fill(lease, 1_000_000)))
  assert.ok(written > 0)
  assert.ok((await world.verify()).matches)
})

test('bytes that are there, or on their way, are not leased again', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const lease = transfer.lease(whole)
  let release = () => {}
  world.disk.before = operation =>
    operation === 'write' ? new Promise<void>(resolve => (release = resolve)) : undefined
  void lease.write(blob.subarray(0, 100))
  assert.throws(() => transfer.lease({ start: 50, end: 200 }))
  await quiet()
  world.disk.before = () => {}
  release()
  await lease.revoke()
  assert.throws(() => transfer.lease({ start: 0, end: 200 }))
  assert.is(transfer.unleased()?.start, 100)
})

test('a revoked lease keeps what it had and takes no more', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const lease = transfer.lease(whole)
  await lease.write(blob.subarray(0, 300_000))
  await lease.revoke()
  await lease.revoke()
  assert.is(lease.room, 0)
  assert.throws(
    () => lease.write(blob),
    (error: unknown) => error instanceof SourceError && error.code === 'revoked',
  )
  assert.is(transfer.have.total, 300_000)
  assert.is(transfer.unleased()?.start, 300_000)
})

test('a write larger than a buffer is taken whole, once it is waited for', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const lease = transfer.lease(whole)
  await lease.write(blob)
  assert.is(lease.room, 0)
  await lease.close()
  assert.ok((await world.verify()).matches)
})

test('bytes beyond the range are not written', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const lease = transfer.lease({ start: 0, end: 1000 })
  await lease.write(Buffer.concat([blob.subarray(0, 1000), Buffer.alloc(5000)]))
  await lease.write(Buffer.alloc(10))
  await lease.close()
  assert.equal(transfer.have.toJSON(), [[0, 1000]])
})

test('a disk that fails fails the next write and the end of the lease', async () => {
  await using world = await World.begun()
  const { transfer } = world
  world.disk.before = operation => {
    if (operation === 'write') throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
  }
  const lease = transfer.lease(whole)
  const writing = async () => {
    for (let at = 0; at < 1000; at++) {
      await lease.write(blob.subarray(at, at + 1))
      await quiet()
    }
  }
  assert.match(String(await failure(writing())), 'no space left')
  assert.match(String(await failure(lease.close())), 'no space left')
  assert.is(transfer.have.total, 0)
  assert.is(transfer.unleased()?.start, 0)
})

test('the filler is told when a reader waits, and when all have left', async () => {
  await using world = await World.begun()
  const { transfer } = world
  const interest = transfer.hold()
  const reader = transfer.read({ start: 1000, end: 500_000 })
  const reading = failure(reader.read(Buffer.alloc(10)))
  await quiet()
  assert.is(world.wanted, 1)
  assert.equal(transfer.wanted(), [{ start: 1000, end: 500_000 }])
  reader.cancel()
  assert.instance(await reading, SourceError)
  reader.close()
  assert.equal(transfer.wanted(), [])
  assert.is(world.deserted, 0)
  interest[Symbol.dispose]()
  interest[Symbol.dispose]()
  assert.is(world.deserted, 1)
  assert.ok(transfer.deserted)
})

test('parking fails those who wait and those who come later, and keeps what is there', async () => {
  const world = await World.begun()
  const { transfer, disk, layout } = world
  {
    await using _world = world
    const lease = transfer.lease(whole)
    await lease.write(blob.subarray(0, 400_000))
    const interest = transfer.hold()
    const reading = failure(readAll(transfer.read({ start: 500_000, end: 600_000 })))
    const reason = new Error('enough')
    await transfer.park(reason)
    assert.is(await reading, reason)
    assert.equal(await transfer.settled, { stored: false, error: reason })
    assert.not(transfer.open)
    assert.is(await failure(readAll(transfer.read(whole))), reason)
    assert.throws(() => transfer.lease({ start: 400_000, end: 500_000 }))
    assert.ok(disk.openFiles > 0)
    interest[Symbol.dispose]()
    const again = await Ingest.open(disk, layout, digest, blob.length)
    assert.equal(again.have.toJSON(), [[0, 400_000]])
    await again.close()
  }
})

test('parking waits for a lease that is still being closed, before it closes the file', async () => {
  await using world = await World.begun()
  const { transfer } = world
  let release = () => {}
  const writing = Promise.withResolvers<void>()
  world.disk.before = operation => {
    if (operation !== 'write') return undefined
    writing.resolve()
    return new Promise<void>(resolve => (release = resolve))
  }
  const lease = transfer.lease(whole)
  void lease.write(blob.subarray(0, 1000))
  await writing.promise
  const closing = lease.close()
  const parking = transfer.park(new Error('enough'))
  assert.ok(await isPending(parking))
  release()
  await Promise.all([closing, parking])
  assert.is(transfer.have.total === 1000 || world.disk.openFiles === 0, true)
})

test('nobody offers it: who waits for the size is told why', async () => {
  await using world = await World.open()
  const reason = new Error('nowhere')
  const sized = failure(world.transfer.sized)
  await world.transfer.park(reason)
  assert.is(await sized, reason)
})

test('readers that stay after the end can read on, and the last one closes the file', async () => {
  await using world = await World.begun()
  const { transfer, disk } = world
  const slow = transfer.read(whole)
  await fill(transfer.lease(whole))
  await world.verify()
  assert.is(disk.openFiles, 1)
  assert.ok((await readAll(slow)).equals(blob))
  await quiet()
  assert.is(disk.openFiles, 0)
})

test('what is not to be kept is verified, read to its end, and leaves no file', async () => {
  await using world = await World.begun()
  const { transfer } = world
  world.admits = false
  const reading = readAll(transfer.read(whole), blob.length)
  await fill(transfer.lease(whole), 100_000)
  assert.equal(await world.verify(), { matches: true, stored: false, resumed: false })
  assert.ok((await reading).equals(blob))
  assert.ok(blob.equals(world.passed as Buffer))
  assert.equal(await transfer.settled, { stored: false })
  for (const path of [world.layout.blob(digest), world.layout.part(digest), world.layout.partState(digest)])
    assert.is(await world.disk.sizeOf(path), undefined)
})

test.run()
