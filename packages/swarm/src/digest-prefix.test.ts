import { digestOf } from '@shoal/oci/digest'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { prefixesOf, prefixOf, readPrefix, writePrefix } from './digest-prefix.ts'

test('a prefix is the first 8 bytes of the hash, whatever the algorithm', () => {
  const abc = new TextEncoder().encode('abc')
  assert.equal(prefixOf(digestOf(abc)), { high: 0xba7816bf, low: 0x8f01cfea })
  assert.equal(prefixOf(digestOf(abc, 'sha512')), { high: 0xddaf35a1, low: 0x93617aba })
})

test('prefixes are written one after another, as the bytes of the hashes', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 8 }), { maxLength: 5 }), contents => {
      const digests = contents.map(content => digestOf(content))
      const expected = digests.map(digest => digest.slice(7, 23)).join('')
      assert.is(Buffer.from(prefixesOf(digests)).toString('hex'), expected)
    }),
  )
})

test('what is written is read again, at any place', () => {
  const uint32 = fc.nat(0xffffffff)
  fc.assert(
    fc.property(uint32, uint32, fc.nat(9), (high, low, offset) => {
      const bytes = new Uint8Array(offset + 9).fill(0xaa)
      writePrefix({ high, low }, bytes, offset)
      assert.equal(readPrefix(bytes, offset), { high, low })
      assert.is(bytes[offset + 8], 0xaa)
    }),
  )
})

test.run()
