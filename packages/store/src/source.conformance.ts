import { randomBytes } from 'node:crypto'
import type { ByteRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import type { Test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Giver, type Offer, type RangeWriter, type Source, SourceError, type Want } from './source.ts'

/** A source under test that has some blobs. */
export type Subject = AsyncDisposable & {
  readonly source: Source
  /** Makes it unable to say what it has. */
  breakDown(): Promise<void> | void
}

const never = new AbortController().signal
const name = parseName('docker.io', 'library/busybox')

/** Keeps what it is given, and how. */
export class CollectingWriter implements RangeWriter {
  readonly pieces: Buffer[] = []
  /** Who was named, in turn. */
  readonly givers: Giver[] = []
  room: number
  readonly #pace: () => Promise<void> | undefined

  /** @param pace what each write has to be waited for */
  constructor(range: ByteRange, pace: () => Promise<void> | undefined = () => undefined) {
    this.room = range.end - range.start
    this.#pace = pace
  }

  get bytes(): Buffer {
    return Buffer.concat(this.pieces)
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    const taken = Buffer.from(bytes.subarray(0, this.room))
    this.pieces.push(taken)
    this.room -= taken.length
    return this.#pace()
  }

  from(giver: Giver): void {
    this.givers.push(giver)
  }
}

async function found(source: Source, want: Want): Promise<Offer> {
  const offer = await source.find(want, never)
  assert.ok(offer, 'it has the content')
  return offer!
}

/** What every source must do, whatever it is. @param open makes one that has these blobs */
export function sourceConformance(test: Test, open: (blobs: readonly Buffer[]) => Promise<Subject>): void {
  const blob = randomBytes(700_001)
  const want: Want = { name, digest: digestOf(blob), kind: 'blob', size: blob.length }
  const whole = { start: 0, end: blob.length }

  test('what it has, it offers: size, origin, the whole range', async () => {
    await using subject = await open([blob])
    const offer = await found(subject.source, want)
    assert.is(offer.size, blob.length)
    assert.is.not(offer.origin.host, '')
    assert.is(offer.origin.kind, subject.source.kind ?? 'upstream')
    assert.ok(offer.ranges().covers(whole))
    offer.onGrow(() => {})[Symbol.dispose]()
    offer.close()
  })

  test('what it does not have is null', async () => {
    await using subject = await open([])
    assert.is(await subject.source.find(want, never), null)
  })

  test('where it cannot say, it throws a SourceError', async () => {
    await using subject = await open([blob])
    await subject.breakDown()
    const error = await subject.source.find(want, never).catch((error: unknown) => error)
    assert.instance(error, SourceError)
  })

  test('any range has exactly its bytes, at any pace, one after another from one offer', async () => {
    await using subject = await open([blob])
    const offer = await found(subject.source, want)
    const slow = () => new Promise<void>(resolve => setImmediate(resolve))
    const ends = [whole, { start: 0, end: 1 }, { start: 1, end: 2 }, { start: blob.length - 1, end: blob.length }]
    const some = Array.from({ length: 6 }, (_, i) => ({ start: i * 1000 + 7, end: blob.length - i * 90_000 }))
    for (const [i, range] of [...ends, ...some].entries()) {
      const writer = new CollectingWriter(range, i % 2 ? slow : undefined)
      await offer.fetch(range, writer, never)
      assert.ok(writer.bytes.equals(blob.subarray(range.start, range.end)), `${range.start} to ${range.end}`)
    }
    offer.close()
  })

  test('ranges can be fetched at the same time', async () => {
    await using subject = await open([blob])
    const offer = await found(subject.source, want)
    const ranges = Array.from({ length: 4 }, (_, i) => ({ start: i * 150_000, end: (i + 1) * 150_000 }))
    await Promise.all(
      ranges.map(async range => {
        const writer = new CollectingWriter(range)
        await offer.fetch(range, writer, never)
        assert.ok(writer.bytes.equals(blob.subarray(range.start, range.end)))
      }),
    )
    offer.close()
  })

  test('an offer that was found at a later byte gives all ranges too', async () => {
    await using subject = await open([blob])
    for (const start of [400_000, 0]) {
      const offer = await found(subject.source, { ...want, at: 400_000 })
      assert.is(offer.size, blob.length)
      const writer = new CollectingWriter({ start, end: blob.length })
      await offer.fetch({ start, end: blob.length }, writer, never)
      assert.ok(writer.bytes.equals(blob.subarray(start)))
      offer.close()
    }
  })

  test('a size that was not told is found out', async () => {
    await using subject = await open([blob])
    const { size: _, ...unsized } = want
    const offer = await found(subject.source, unsized)
    assert.is(offer.size, blob.length)
    offer.close()
  })

  test('a writer whose room falls while it is written to ends the fetch, without excess', async () => {
    await using subject = await open([blob])
    const offer = await found(subject.source, want)
    const writer: CollectingWriter = new CollectingWriter(whole, () => {
      writer.room = Math.min(writer.room, Math.max(200_000 - writer.bytes.length, 0))
      return undefined
    })
    await offer.fetch(whole, writer, never)
    assert.is(writer.room, 0)
    assert.ok(writer.bytes.equals(blob.subarray(0, writer.bytes.length)))
    offer.close()
  })

  test('what the writer throws comes out', async () => {
    await using subject = await open([blob])
    const offer = await found(subject.source, want)
    const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
    for (const pace of [
      () => {
        throw full
      },
      () => Promise.reject(full),
    ]) {
      const thrown = await offer.fetch(whole, new CollectingWriter(whole, pace), never).catch((error: unknown) => error)
      assert.is(thrown, full)
    }
    offer.close()
  })

  test('an abort ends finding, and fetching at any time, with its reason', async () => {
    await using subject = await open([blob])
    const reason = new SourceError('revoked', 'enough')
    const finding = await subject.source.find(want, AbortSignal.abort(reason)).catch((error: unknown) => error)
    assert.is(finding, reason)
    for (const when of ['before', 'at the first bytes', 'while the writer waits']) {
      const offer = await found(subject.source, want)
      const abort = new AbortController()
      if (when === 'before') abort.abort(reason)
      const writer = new CollectingWriter(whole, () => {
        abort.abort(reason)
        return when === 'while the writer waits' ? new Promise(() => {}) : undefined
      })
      const thrown = await offer.fetch(whole, writer, abort.signal).catch((error: unknown) => error)
      assert.is(thrown, reason, when)
      offer.close()
    }
  })

  test('an offer that is not used can be closed, also twice', async () => {
    await using subject = await open([blob])
    const offer = await found(subject.source, want)
    offer.close()
    offer.close()
  })
}
