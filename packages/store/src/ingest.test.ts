import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { type Digest, digestOf } from '@shoal/oci/digest'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Ingest } from './ingest.ts'
import { Layout } from './layout.ts'

const blob = randomBytes(10_000)
const digest = digestOf(blob)

async function withDisk(use: (disk: WatchedDisk, layout: Layout) => Promise<void>): Promise<void> {
  await using disk = await WatchedDisk.open()
  await use(disk, await Layout.open(disk.folder, disk))
  assert.is(disk.openFiles, 0, 'all files are closed')
  assert.equal(disk.misused, [])
}

/** Cuts a blob at these places. */
function pieces(cuts: readonly number[]): { start: number; end: number }[] {
  const bounds = [...new Set([0, ...cuts, blob.length])].sort((a, b) => a - b)
  return bounds.slice(1).map((end, i) => ({ start: bounds[i]!, end }))
}

const order = fc
  .array(fc.integer({ min: 1, max: blob.length - 1 }), { maxLength: 12 })
  .map(pieces)
  .chain(parts => fc.shuffledSubarray(parts, { minLength: parts.length }))

test('pieces in any order, one by one or all at once, have the right digest', () =>
  withDisk(async (disk, layout) => {
    await fc.assert(
      fc.asyncProperty(order, fc.boolean(), async (parts, atOnce) => {
        const ingest = await Ingest.open(disk, layout, digest, blob.length)
        const write = ({ start, end }: { start: number; end: number }) => ingest.write(blob.subarray(start, end), start)
        if (atOnce) await Promise.all(parts.map(write))
        else for (const part of parts) await write(part)
        assert.ok(ingest.complete)
        assert.ok(await ingest.verify())
        await ingest.commit()
        await ingest.close()
        assert.ok((await disk.readFile(layout.blob(digest))).equals(blob))
      }),
      { numRuns: 40 },
    )
  }))

test('one wrong byte anywhere, in any order, is a wrong digest', () =>
  withDisk(async (disk, layout) => {
    await fc.assert(
      fc.asyncProperty(order, fc.nat(blob.length - 1), async (parts, at) => {
        const wrong = Buffer.from(blob)
        wrong[at]! ^= 1
        const ingest = await Ingest.open(disk, layout, digest, blob.length)
        for (const { start, end } of parts) await ingest.write(wrong.subarray(start, end), start)
        assert.not(await ingest.verify())
        await ingest.discard()
        await ingest.close()
      }),
      { numRuns: 25 },
    )
    assert.equal(await disk.list(layout.ingestFolder), [])
  }))

test('sha512 is verified too', () =>
  withDisk(async (disk, layout) => {
    const ingest = await Ingest.open(disk, layout, digestOf(blob, 'sha512'), blob.length)
    await ingest.write(blob, 0)
    assert.ok(await ingest.verify())
    await ingest.discard()
    await ingest.close()
  }))

test('what was parked is gone on with, and nothing is left in ingest/ at the end', () =>
  withDisk(async (disk, layout) => {
    await fc.assert(
      fc.asyncProperty(order, fc.nat(12), async (parts, before) => {
        const first = await Ingest.open(disk, layout, digest, blob.length)
        for (const { start, end } of parts.slice(0, before)) await first.write(blob.subarray(start, end), start)
        await first.park()
        await first.close()
        const second = await Ingest.open(disk, layout, digest, blob.length)
        assert.equal(second.have.toJSON(), first.have.toJSON())
        assert.is(second.resumed, first.have.total)
        for (const { start, end } of second.have.gaps({ start: 0, end: blob.length }))
          await second.write(blob.subarray(start, end), start)
        assert.ok(await second.verify())
        await second.commit()
        await second.close()
        assert.equal(await disk.list(layout.ingestFolder), [])
      }),
      { numRuns: 25 },
    )
  }))

test('a part for another size is begun anew', () =>
  withDisk(async (disk, layout) => {
    const first = await Ingest.open(disk, layout, digest, blob.length)
    await first.write(blob.subarray(0, 100), 0)
    await first.park()
    await first.close()
    const second = await Ingest.open(disk, layout, digest, 50)
    assert.is(second.have.total, 0)
    await second.discard()
    await second.close()
  }))

async function parked(disk: WatchedDisk, layout: Layout, bytes: Buffer, state: string): Promise<Ingest> {
  await writeFile(layout.part(digest), bytes)
  await writeFile(layout.partState(digest), state)
  return Ingest.open(disk, layout, digest, blob.length)
}

test('a state file that makes no sense is not believed', () =>
  withDisk(async (disk, layout) => {
    const size = blob.length
    for (const state of [
      '',
      'null',
      '[]',
      '{"version":1}',
      JSON.stringify({ version: 2, size, ranges: [[0, 10]] }),
      JSON.stringify({ version: 1, size, ranges: [[0, size + 1]] }),
      JSON.stringify({ version: 1, size, ranges: [[0, 5001]] }),
      JSON.stringify({ version: 1, size, ranges: [[-1, 5]] }),
      JSON.stringify({ version: 1, size, ranges: [[5, 5]] }),
      JSON.stringify({ version: 1, size, ranges: [[0.5, 5]] }),
      JSON.stringify({ version: 1, size, ranges: [['0', '5']] }),
      JSON.stringify({ version: 1, size, ranges: [[0]] }),
      JSON.stringify({ version: 1, size, ranges: [5] }),
      JSON.stringify({ version: 1, size, ranges: { 0: 5 } }),
      JSON.stringify({ version: 1, size, ranges: [[0, 10]], unproven: 5 }),
      JSON.stringify({ version: 1, size, ranges: [[0, 10]], unproven: [[5, 2]] }),
    ]) {
      const ingest = await parked(disk, layout, blob.subarray(0, 5000), state)
      assert.is(ingest.have.total, 0, state)
      await ingest.close()
    }
  }))

test('a state file tells what peers gave; in one without that there is nothing of them', () =>
  withDisk(async (disk, layout) => {
    const first = await Ingest.open(disk, layout, digest, blob.length)
    await first.write(blob.subarray(0, 1000), 0)
    await first.write(blob.subarray(1000, 3000), 1000, { kind: 'peer', label: 'ada', wrong: () => {} })
    await first.write(blob.subarray(3000, 4000), 3000, { kind: 'upstream', label: 'hub', wrong: () => {} })
    await first.park()
    await first.close()
    assert.equal(JSON.parse((await disk.readFile(layout.partState(digest))).toString()), {
      version: 1,
      size: blob.length,
      ranges: [[0, 4000]],
      unproven: [[1000, 3000]],
    })
    const second = await Ingest.open(disk, layout, digest, blob.length)
    assert.equal(second.ledger.unproven.toJSON(), [[1000, 3000]])
    assert.equal([...second.ledger.givers], [])
    await second.close()
    const state = JSON.stringify({ version: 1, size: blob.length, ranges: [[0, 5000]] })
    const old = await parked(disk, layout, blob.subarray(0, 5000), state)
    assert.is(old.ledger.unproven.total, 0)
    await old.close()
  }))

test('a state file that lies about the bytes is found out by the digest', () =>
  withDisk(async (disk, layout) => {
    const state = JSON.stringify({ version: 1, size: blob.length, ranges: [[0, 5000]] })
    const ingest = await parked(disk, layout, Buffer.alloc(5000), state)
    assert.is(ingest.resumed, 5000)
    await ingest.write(blob.subarray(5000), 5000)
    assert.not(await ingest.verify())
    await ingest.discard()
    await ingest.close()
  }))

test('a write that fails is not made good by other bytes at its place', () =>
  withDisk(async (disk, layout) => {
    const ingest = await Ingest.open(disk, layout, digest, blob.length)
    await ingest.write(blob.subarray(0, 100), 0)
    disk.before = operation => {
      if (operation === 'write') throw new Error('no space left on device')
    }
    const failed = await ingest.write(blob.subarray(100), 100).catch((error: unknown) => error)
    assert.match(String(failed), 'no space left')
    disk.before = () => {}
    const other = await ingest.write(Buffer.alloc(blob.length - 100), 100).catch((error: unknown) => error)
    assert.match(String(other), 'no space left')
    assert.not(ingest.complete)
    await ingest.discard()
    await ingest.close()
  }))

test('a read that fails while the hash catches up fails the verification', () =>
  withDisk(async (disk, layout) => {
    disk.before = operation => {
      if (operation === 'read') throw new Error('input/output error')
    }
    const ingest = await Ingest.open(disk, layout, digest, blob.length)
    await ingest.write(blob.subarray(5000), 5000)
    await ingest.write(blob.subarray(0, 5000), 0)
    assert.match(String(await ingest.verify().catch((error: unknown) => error)), 'input/output error')
    await ingest.close()
  }))

test('to close does not wait until all that was resumed is hashed', () =>
  withDisk(async (disk, layout) => {
    const size = 4 * 1024 * 1024
    const large = digestOf(Buffer.alloc(size)) as Digest
    await writeFile(layout.part(large), Buffer.alloc(size))
    await writeFile(layout.partState(large), JSON.stringify({ version: 1, size, ranges: [[0, size]] }))
    let reads = 0
    disk.before = operation => {
      if (operation === 'read') reads++
    }
    const ingest = await Ingest.open(disk, layout, large, size)
    await ingest.close()
    assert.is(reads, 1)
  }))

test('an empty part is not parked', () =>
  withDisk(async (disk, layout) => {
    const ingest = await Ingest.open(disk, layout, digest, blob.length)
    await ingest.park()
    await ingest.close()
    assert.equal(await disk.list(layout.ingestFolder), [])
  }))

test.run()
