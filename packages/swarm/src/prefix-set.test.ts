import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { DigestPrefix } from './digest-prefix.ts'
import { type PrefixHash, PrefixSet, seededHash } from './prefix-set.ts'

const keyOf = ({ high, low }: DigestPrefix) => `${high}/${low}`

/** Few enough that the same comes again; the one that is all zeros, and those that would be negative, included. */
const prefix = fc.record({
  high: fc.constantFrom(0, 1, 0x80000000, 0xffffffff),
  low: fc.oneof(fc.nat(30), fc.constantFrom(0xffffffff, 0x80000000)),
})

const hashes: Record<string, PrefixHash> = {
  'a seeded hash': seededHash(Math.random),
  'a hash by which all collide': () => 0xffffffff,
  'a hash with few values': ({ low }) => low & 3,
}

for (const [what, hash] of Object.entries(hashes))
  test(`a set with ${what} has what a plain Set would have`, () => {
    const operations = fc.array(fc.record({ prefix, adds: fc.boolean() }), { maxLength: 200, size: 'max' })
    fc.assert(
      fc.property(operations, operations => {
        const set = new PrefixSet(hash)
        const model = new Map<string, DigestPrefix>()
        for (const { prefix, adds } of operations) {
          const key = keyOf(prefix)
          if (adds) assert.is(set.add(prefix, hash(prefix)), !model.has(key))
          else assert.is(set.delete(prefix, hash(prefix)), model.has(key))
          if (adds) model.set(key, prefix)
          else model.delete(key)
          assert.is(set.size, model.size)
        }
        for (const { prefix } of operations) assert.is(set.has(prefix, hash(prefix)), model.has(keyOf(prefix)))
        assert.equal([...set].map(keyOf).sort(), [...model.keys()].sort())
      }),
    )
  })

test('prefixes that a peer has chosen to be alike are spread like all others', () => {
  // Each differs from the others in some bits only: low ones, high ones, both words in step.
  const alike: Record<string, (index: number) => DigestPrefix> = {
    'in the high bits of the low word': index => ({ high: 7, low: (index << 20) >>> 0 }),
    'in the high bits of the high word': index => ({ high: (index << 20) >>> 0, low: 7 }),
    'in the high bits of both': index => ({ high: (index << 26) >>> 0, low: ((index >>> 6) << 26) >>> 0 }),
    'in the low bits of both': index => ({ high: index & 63, low: index >>> 6 }),
    'in equal words': index => ({ high: index, low: index }),
    'in opposite words': index => ({ high: index, low: ~index >>> 0 }),
  }
  const count = 4096
  for (const [where, prefixAt] of Object.entries(alike))
    for (const seed of [0.1, 0.37, 0.61, 0.93]) {
      let state = seed
      const hash = seededHash(() => (state = (state * 997.13) % 1))
      const prefixes = Array.from({ length: count }, (_, index) => prefixAt(index))
      // Of so many that fall on as many places at random, 63 % of the places are met.
      for (const shift of [0, 20]) {
        const places = new Set(prefixes.map(prefix => (hash(prefix) >>> shift) & (count - 1)))
        assert.ok(places.size > count * 0.5, `${where}, seed ${seed}: ${places.size} places`)
      }
    }
})

test.run()
