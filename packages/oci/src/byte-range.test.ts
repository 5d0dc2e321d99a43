import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type ByteRange, formatContentRange, formatRange, parseContentRange, parseRange } from './byte-range.ts'

/** RFC 9110, 14.1.2 word for word, byte by byte, for a header of one range in plain form. */
function naive(first: bigint | undefined, last: bigint | undefined, size: number): ReturnType<typeof parseRange> {
  if (first === undefined && last === undefined) return undefined
  if (first !== undefined && last !== undefined && last < first) return undefined
  if (first === undefined && last === 0n) return 'unsatisfiable'
  if (first === undefined && size === 0) return undefined
  const wanted: number[] = []
  for (let i = 0; i < size; i++) {
    const at = BigInt(i)
    if (first === undefined ? at >= BigInt(size) - last! : at >= first && (last === undefined || at <= last))
      wanted.push(i)
  }
  return wanted.length ? { start: wanted[0]!, end: wanted.at(-1)! + 1 } : 'unsatisfiable'
}

const size = fc.nat(40)
const position = fc.option(
  fc.oneof(fc.bigInt(0n, 45n), fc.constantFrom(2n ** 31n, 2n ** 53n, 2n ** 64n, 10n ** 400n)),
  {
    nil: undefined,
  },
)
const range = fc
  .tuple(fc.nat(1000), fc.integer({ min: 1, max: 1000 }))
  .map(([start, length]) => ({ start, end: start + length }))

test('a header with one range gives the bytes that RFC 9110 says', () => {
  fc.assert(
    fc.property(position, position, size, fc.constantFrom('bytes', 'Bytes', 'BYTES'), (first, last, length, unit) => {
      assert.equal(parseRange(`${unit}=${first ?? ''}-${last ?? ''}`, length), naive(first, last, length))
    }),
    { numRuns: 1500 },
  )
})

test('whatever the header, the range lies within the content', () => {
  const header = fc
    .array(
      fc.constantFrom('bytes', '=', '-', ',', ' ', '\t', '0', '1', '9', '17', '-1', '1e3', '0x1', '+1', '1.5', 'x'),
      {
        maxLength: 8,
      },
    )
    .map(list => list.join(''))
  fc.assert(
    fc.property(
      fc.oneof(
        header,
        header.map(text => `bytes=${text}`),
        fc.string(),
      ),
      size,
      (text, length) => {
        const parsed = parseRange(text, length)
        if (parsed === undefined || parsed === 'unsatisfiable') return
        assert.ok(Number.isSafeInteger(parsed.start) && Number.isSafeInteger(parsed.end), text)
        assert.ok(0 <= parsed.start && parsed.start < parsed.end && parsed.end <= length, text)
      },
    ),
    { numRuns: 500 },
  )
})

test('what is no single range of bytes is answered with the whole', () => {
  assert.is(parseRange(undefined, 10), undefined)
  const whole = ['', 'bytes', 'bytes=', 'bytes=-', 'bytes=a-b', 'bytes=1', 'bytes=0-1,4-5', 'bytes=5-2', 'items=0-1']
  for (const header of [...whole, 'bytes=--1', 'bytes=0--1', 'bytes=0x0-1', 'bytes=1.0-2', 'bytes=+1-2', 'bytes 0-1'])
    assert.is(parseRange(header, 10), undefined, header)
})

test('a range past the end is unsatisfiable, and so are the last none of the bytes', () => {
  for (const header of ['bytes=10-', 'bytes=10-10', 'bytes=99-100', 'bytes=-0'])
    assert.is(parseRange(header, 10), 'unsatisfiable', header)
})

test('of empty content the last bytes are the whole, and from any position on there is nothing', () => {
  assert.is(parseRange('bytes=-5', 0), undefined)
  assert.is(parseRange('bytes=-0', 0), 'unsatisfiable')
  assert.is(parseRange('bytes=0-', 0), 'unsatisfiable')
  assert.is(parseRange('bytes=0-0', 0), 'unsatisfiable')
})

test('blanks around the range do not matter', () => {
  assert.equal(parseRange('bytes= \t0-1 ', 10), { start: 0, end: 2 })
})

test('a long hostile header is refused', () => {
  for (const header of [`bytes=${' '.repeat(1e5)}x`, `bytes=${'1'.repeat(1e5)}`, `bytes=0-${' '.repeat(1e5)}x`])
    assert.is(parseRange(header, 10), undefined)
  assert.is(parseContentRange(`bytes ${'1'.repeat(1e5)}`), undefined)
})

test('a formatted range is read back as the same range', () => {
  fc.assert(
    fc.property(range, fc.nat(50), (value, more) => {
      const total = value.end + more
      assert.equal(parseRange(formatRange(value), total), value)
      assert.equal(parseRange(formatRange(value, total), total), value)
    }),
  )
})

test('a range to the end of the content is asked for without an end', () => {
  assert.is(formatRange({ start: 5, end: 10 }, 10), 'bytes=5-')
  assert.is(formatRange({ start: 5, end: 10 }, 11), 'bytes=5-9')
  assert.is(formatRange({ start: 5, end: 10 }), 'bytes=5-9')
})

test('a formatted Content-Range is read back as the same range and size', () => {
  fc.assert(
    fc.property(range, fc.nat(50), (value, more) => {
      const total = value.end + more
      assert.equal(parseContentRange(formatContentRange(value, total)), { range: value, size: total })
      assert.equal(parseContentRange(`bytes ${value.start}-${value.end - 1}/*`), { range: value })
    }),
  )
  assert.is(formatContentRange({ start: 0, end: 1 }, 5), 'bytes 0-0/5')
  assert.is(formatContentRange('unsatisfiable', 5), 'bytes */5')
})

test('a Content-Range that makes no sense is not read', () => {
  assert.is(parseContentRange(undefined), undefined)
  const bad = ['', 'bytes */5', 'bytes 0-4', 'bytes 0-5/5', 'bytes 3-2/5', 'bytes -1/5', 'bytes 0-/5', 'items 0-1/5']
  for (const header of [...bad, 'bytes=0-1/5', 'bytes 0-1/', 'bytes 0-1/5, bytes 2-3/5', 'bytes 0-1/5x'])
    assert.is(parseContentRange(header), undefined, header)
})

test('a Content-Range with numbers too large to count with is not read', () => {
  const max = BigInt(Number.MAX_SAFE_INTEGER)
  assert.equal(parseContentRange(`bytes 0-${max - 1n}/${max}`), {
    range: { start: 0, end: Number.MAX_SAFE_INTEGER },
    size: Number.MAX_SAFE_INTEGER,
  })
  for (const header of [
    `bytes 0-${max}/*`,
    `bytes 0-1/${max + 1n}`,
    `bytes 0-1/${'9'.repeat(400)}`,
    `bytes ${max}-${max + 2n}/*`,
  ])
    assert.is(parseContentRange(header), undefined, header)
})

test('whatever the Content-Range, the range lies within the size', () => {
  const number = fc.oneof(fc.nat(20).map(String), fc.constantFrom('*', '', '-1', '9007199254740993', '1e3'))
  fc.assert(
    fc.property(number, number, number, (first, last, total) => {
      const parsed: { range: ByteRange; size?: number } | undefined = parseContentRange(
        `bytes ${first}-${last}/${total}`,
      )
      if (!parsed) return
      assert.ok(0 <= parsed.range.start && parsed.range.start < parsed.range.end)
      assert.ok(parsed.size === undefined ? total === '*' : parsed.range.end <= parsed.size)
    }),
    { numRuns: 300 },
  )
})

test.run()
