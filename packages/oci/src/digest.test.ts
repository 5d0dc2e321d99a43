import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  algorithmOf,
  type DigestAlgorithm,
  DigestError,
  DigestHasher,
  digestFrom,
  digestOf,
  hexOf,
  isDigest,
  parseDigest,
} from './digest.ts'

// Lone surrogates included.
const anyText = fc.string({ unit: fc.nat(0xffff).map(code => String.fromCharCode(code)) })
const emptySha256 = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
const hex = (length: number) =>
  fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: length, maxLength: length })
const parts = fc.oneof(
  fc.tuple(fc.constant<DigestAlgorithm>('sha256'), hex(64)),
  fc.tuple(fc.constant<DigestAlgorithm>('sha512'), hex(128)),
)

test('a digest is read as it is written, and splits into its algorithm and hex', () => {
  fc.assert(
    fc.property(parts, ([algorithm, digits]) => {
      const digest = parseDigest(`${algorithm}:${digits}`)
      assert.is(digest, `${algorithm}:${digits}`)
      assert.is(algorithmOf(digest), algorithm)
      assert.is(hexOf(digest), digits)
      assert.is(digestFrom(algorithm, digits), digest)
    }),
  )
})

test('text that is no digest throws DigestError and nothing else', () => {
  const almost = parts.chain(([algorithm, digits]) =>
    fc.constantFrom(
      `${algorithm}${digits}`,
      `${algorithm}:`,
      `${algorithm}:${digits.slice(1)}`,
      `${algorithm}:${digits}0`,
      `${algorithm}:${digits.slice(1)}G`,
      `${algorithm}:${digits.slice(1)}A`,
      `${algorithm}:${digits}\n`,
      ` ${algorithm}:${digits}`,
      `${algorithm.toUpperCase()}:${digits}`,
      `${algorithm}::${digits.slice(1)}`,
      digits,
    ),
  )
  fc.assert(
    fc.property(fc.oneof(almost, fc.string(), anyText), text => {
      assert.not(isDigest(text))
      assert.throws(
        () => parseDigest(text),
        (error: unknown) => error instanceof DigestError && error.code === 'DIGEST_INVALID',
      )
    }),
  )
})

test('algorithms that cannot be verified are refused, also those that every object has a property for', () => {
  for (const algorithm of [
    'md5',
    'sha384',
    'sha1',
    '',
    'constructor',
    '__proto__',
    'toString',
    'sha256+b64',
    'sha256.',
  ])
    for (const length of [0, 1, 32, 40, 64, 96, 128])
      assert.not(isDigest(`${algorithm}:${'0'.repeat(length)}`), `${algorithm} of ${length}`)
})

test('each algorithm takes hex of its own length only', () => {
  assert.not(isDigest(`sha256:${'0'.repeat(128)}`))
  assert.not(isDigest(`sha512:${'0'.repeat(64)}`))
})

test('an error for long text stays short', () => {
  for (const text of ['x'.repeat(1e6), `sha256:${'0'.repeat(1e6)}`])
    assert.throws(
      () => parseDigest(text),
      (error: unknown) => error instanceof DigestError && error.message.length < 300,
    )
})

test('known content has its known digest', () => {
  assert.is(digestOf(new Uint8Array()), emptySha256)
  assert.is(
    digestOf(new TextEncoder().encode('abc'), 'sha512'),
    'sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
  )
})

test('content given in pieces matches its digest, and changed content does not', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }),
      fc.constantFrom<DigestAlgorithm>('sha256', 'sha512'),
      (pieces, algorithm) => {
        const digest = digestOf(Buffer.concat(pieces), algorithm)
        const whole = new DigestHasher(digest)
        const changed = new DigestHasher(digest)
        for (const piece of pieces) {
          whole.update(piece)
          changed.update(piece)
        }
        changed.update(new Uint8Array([0]))
        assert.is(whole.digest, digest)
        assert.ok(whole.matches())
        assert.not(changed.matches())
      },
    ),
  )
})

test.run()
