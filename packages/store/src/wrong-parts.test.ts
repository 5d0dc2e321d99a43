import { randomBytes } from 'node:crypto'
import type { ByteRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { Ingest } from './ingest.ts'
import { Layout } from './layout.ts'
import type { Giver } from './source.ts'
import type { HeldBlob } from './store.ts'
import { WrongParts } from './wrong-parts.ts'

const blob = randomBytes(1_000_000)
const digest = digestOf(blob)

/** The blob as it is held. */
const held = (onRead: () => Promise<void> = async () => {}): HeldBlob => ({
  digest,
  size: blob.length,
  read: ({ start, end }) => ({
    read: async buffer => {
      await onRead()
      const count = Math.min(buffer.length, end - start, 90_000)
      blob.copy(buffer, 0, start, start + count)
      start += count
      return count
    },
    cancel: () => {},
    close: () => {},
  }),
  close: () => {},
})

async function withParts(use: (parts: WrongParts, wrongPart: (wrongAt: number) => Promise<Ingest>) => Promise<void>) {
  await using disk = await WatchedDisk.open()
  const layout = await Layout.open(disk.folder, disk)
  const parts = new WrongParts()
  await use(parts, async wrongAt => {
    const part = await Ingest.open(disk, layout, digest, blob.length)
    const bytes = Buffer.from(blob)
    bytes[wrongAt]! ^= 1
    for (const [giver, { start, end }] of shares) await part.write(bytes.subarray(start, end), start, giver)
    await part.discard()
    return part
  })
  await parts.close()
  assert.is(disk.openFiles, 0, 'all files are closed')
  assert.equal(disk.misused, [])
}

let told: string[] = []
const giver = (label: string): Giver => ({ kind: 'peer', label, wrong: () => void told.push(label) })
const [ada, eve] = [giver('ada'), giver('eve')]
/** Who gave what of a part; nobody knows of the last bytes. */
const shares: readonly (readonly [Giver | undefined, ByteRange])[] = [
  [ada, { start: 0, end: 300_000 }],
  [eve, { start: 300_000, end: 600_000 }],
  [ada, { start: 600_000, end: 900_000 }],
  [undefined, { start: 900_000, end: 1_000_000 }],
]

test.before.each(() => {
  told = []
})

const quiet = async () => {
  for (let i = 0; i < 200; i++) await new Promise(resolve => setImmediate(resolve))
}

for (const [at, who] of [
  [0, ['ada']],
  [299_999, ['ada']],
  [300_000, ['eve']],
  [599_999, ['eve']],
  [899_999, ['ada']],
  [900_000, []],
] as const)
  test(`a wrong byte at ${at} was given by ${who.join() || 'nobody known'}`, () =>
    withParts(async (parts, wrongPart) => {
      const part = await wrongPart(at)
      const done = Promise.withResolvers<void>()
      parts.compare(part, async () => ({ ...held(), close: () => done.resolve() }))
      await done.promise
      assert.equal(told, who)
    }))

test('a few are compared at once, and closing ends them', () =>
  withParts(async (parts, wrongPart) => {
    let open = 0
    const release = Promise.withResolvers<void>()
    for (let i = 0; i < 5; i++) {
      const part = await wrongPart(0)
      parts.compare(part, async () => {
        open++
        return held(() => release.promise)
      })
    }
    await quiet()
    assert.is(open, 2)
    const closing = parts.close()
    release.resolve()
    await closing
    assert.is(open, 2)
    assert.equal(told, [])
  }))

test('if the blob is gone, or cannot be read, nobody is told', () =>
  withParts(async (parts, wrongPart) => {
    parts.compare(await wrongPart(0), async () => undefined)
    parts.compare(await wrongPart(0), async () => held(() => Promise.reject(new Error('input/output error'))))
    await quiet()
    assert.equal(told, [])
  }))

test.run()
