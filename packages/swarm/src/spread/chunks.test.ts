import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ChunkSet, Chunks, chunkSizeOf, isChunkSize, runsOf, wholeUpTo } from './chunks.ts'

test('a small blob is one chunk', () => {
  for (const size of [1, 1000, wholeUpTo]) {
    assert.is(chunkSizeOf(size), size)
    assert.is(new Chunks(size, size).count, 1)
  }
})

test('the size of chunks is one that others accept, whatever the blob', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 42 }), size => isChunkSize(size, chunkSizeOf(size))))
})

test('chunks that are too many to keep account of are refused', () => {
  assert.not.ok(isChunkSize(2 ** 30, 1))
  assert.not.ok(isChunkSize(2 ** 30, 4096))
  assert.not.ok(isChunkSize(2 ** 30, 300_000))
  assert.not.ok(isChunkSize(2 ** 30, 2 ** 30))
})

test('chunks cover the blob, and the last one ends with it', () => {
  const chunks = new Chunks(1_000_001, 65_536)
  let at = 0
  for (let index = 0; index < chunks.count; index++) {
    const { start, end } = chunks.rangeOf(index)
    assert.is(start, at)
    at = end
  }
  assert.is(at, 1_000_001)
})

test('runs that are not of this blob are told from those that are', () => {
  const chunks = new Chunks(10, 1)
  assert.ok(chunks.holds([[0, 10]]))
  for (const run of [
    [0, 11],
    [3, 3],
    [5, 4],
    [-1, 2],
  ] as const)
    assert.not.ok(chunks.holds([run]), `${run}`)
})

test('a set has what was added and not deleted, and tells it as runs', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat({ max: 40 }))), changes => {
      const set = new ChunkSet(41)
      const model = new Set<number>()
      for (const [adds, index] of changes) {
        assert.is(adds ? set.add(index) : set.delete(index), adds ? !model.has(index) : model.has(index))
        if (adds) model.add(index)
        else model.delete(index)
      }
      const sorted = [...model].sort((a, b) => a - b)
      assert.equal([...set], sorted)
      assert.equal([...new ChunkSet(41, set.runs)], sorted)
      assert.equal(runsOf(sorted), set.runs)
      assert.is(set.total, model.size)
      assert.is(set.full, model.size === 41)
    }),
  )
})

test.run()
