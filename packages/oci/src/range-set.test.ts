import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { ByteRange } from './byte-range.ts'
import { RangeSet } from './range-set.ts'

const limit = 40
// Also empty and backward ranges, which hold no bytes.
const range: fc.Arbitrary<ByteRange> = fc.record({ start: fc.nat(limit), end: fc.nat(limit) })
const step = fc.record({ remove: fc.boolean(), range })

const indexes = ({ start, end }: ByteRange) => Array.from({ length: Math.max(end - start, 0) }, (_, i) => start + i)

/** The runs of those bytes of `within` for which `has` holds. */
function runs(has: (index: number) => boolean, within: ByteRange): [number, number][] {
  const found: [number, number][] = []
  for (const index of indexes(within).filter(has)) {
    const last = found.at(-1)
    if (last?.[1] === index) last[1]++
    else found.push([index, index + 1])
  }
  return found
}

test('adding and removing ranges does what it does to a set of single bytes', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), range, (steps, asked) => {
      const set = new RangeSet()
      const model = new Set<number>()
      for (const { remove, range } of steps) {
        if (remove) set.remove(range)
        else set.add(range)
        for (const index of indexes(range)) remove ? model.delete(index) : model.add(index)

        assert.equal(
          set.toJSON(),
          runs(index => model.has(index), { start: 0, end: limit }),
        )
        assert.is(set.total, model.size)
      }
      assert.is(
        set.covers(asked),
        indexes(asked).every(index => model.has(index)),
      )
      assert.equal(
        set.gaps(asked).map(gap => [gap.start, gap.end]),
        runs(index => !model.has(index), asked),
      )
      for (let position = 0; position <= limit; position++) {
        let end = position
        while (model.has(end)) end++
        assert.is(set.reach(position), end)
      }
    }),
    { numRuns: 400 },
  )
})

test('the order in which ranges come does not matter', () => {
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), ranges => {
      assert.equal(new RangeSet(ranges).toJSON(), new RangeSet(ranges.toReversed()).toJSON())
    }),
  )
})

test('filling the gaps covers the whole, and adds as many bytes as the gaps have', () => {
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), range, (ranges, within) => {
      const set = new RangeSet(ranges)
      const gaps = set.gaps(within)
      const expected = set.total + gaps.reduce((sum, gap) => sum + gap.end - gap.start, 0)
      for (const gap of gaps) set.add(gap)
      assert.ok(set.covers(within))
      assert.equal(set.gaps(within), [])
      assert.is(set.total, expected)
    }),
  )
})

test('a set made from the ranges of another is equal to it', () => {
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), ranges => {
      const set = new RangeSet(ranges)
      assert.equal(new RangeSet(set).toJSON(), set.toJSON())
      const stored = JSON.parse(JSON.stringify(set)) as [number, number][]
      assert.equal(new RangeSet(stored.map(([start, end]) => ({ start, end }))).toJSON(), set.toJSON())
    }),
  )
})

test('an empty set has no bytes and everything is missing', () => {
  const set = new RangeSet()
  assert.is(set.total, 0)
  assert.equal([...set], [])
  assert.is(set.reach(0), 0)
  assert.not(set.covers({ start: 0, end: 1 }))
  assert.ok(set.covers({ start: 5, end: 5 }))
  assert.equal(set.gaps({ start: 2, end: 9 }), [{ start: 2, end: 9 }])
})

test('ranges that touch become one', () => {
  const set = new RangeSet([
    { start: 0, end: 5 },
    { start: 10, end: 15 },
  ])
  set.add({ start: 5, end: 10 })
  assert.equal(set.toJSON(), [[0, 15]])
})

test('neither the ranges given nor the ranges handed out are shared with the set', () => {
  const given = { start: 0, end: 5 }
  const set = new RangeSet([given])
  given.end = 50
  for (const out of set) (out as { end: number }).end = 50
  for (const pair of set.toJSON()) pair[1] = 50
  assert.equal(set.toJSON(), [[0, 5]])
})

test('a set can be changed while it is walked', () => {
  const set = new RangeSet([
    { start: 0, end: 1 },
    { start: 4, end: 5 },
    { start: 8, end: 9 },
  ])
  const seen: ByteRange[] = []
  for (const range of set) {
    seen.push(range)
    set.remove(range)
  }
  assert.is(seen.length, 3)
  assert.is(set.total, 0)
})

test('positions beyond 32 bits are exact', () => {
  const far = 2 ** 40
  const set = new RangeSet([
    { start: far, end: far + 2 },
    { start: far + 3, end: far + 4 },
  ])
  assert.is(set.reach(far + 1), far + 2)
  assert.equal(set.gaps({ start: far, end: far + 4 }), [{ start: far + 2, end: far + 3 }])
  set.remove({ start: far, end: far + 1 })
  assert.equal(set.toJSON(), [
    [far + 1, far + 2],
    [far + 3, far + 4],
  ])
})

test('many thousands of pieces are added and asked for', () => {
  const set = new RangeSet()
  for (let i = 0; i < 20_000; i++) set.add({ start: i * 4, end: i * 4 + 2 })
  for (let i = 0; i < 20_000; i++) assert.ok(set.covers({ start: i * 4, end: i * 4 + 2 }))
  assert.is(set.gaps({ start: 0, end: 80_000 }).length, 20_000)
  set.add({ start: 0, end: 80_000 })
  assert.equal(set.toJSON(), [[0, 80_000]])
})

test.run()
