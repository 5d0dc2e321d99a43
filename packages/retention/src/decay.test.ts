import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { countOf, halfLife, scoreOf, sumOf } from './decay.ts'

const now = Date.UTC(2026, 0, 1)
const close = (a: number, b: number) => Math.abs(a - b) <= 1e-6 * Math.max(a, b, 1)

test('a count halves every half-life', () => {
  const score = scoreOf(8, now)
  for (const [halves, count] of [8, 4, 2, 1, 0.5].entries())
    assert.ok(close(countOf(score, now + halves * halfLife), count))
})

test('what is counted at different times adds up to what is left of each', () => {
  const times = fc.array(fc.integer({ min: -10 * halfLife, max: 0 }), { minLength: 1, maxLength: 50 })
  fc.assert(
    fc.property(times, ages => {
      const score = ages.map(age => scoreOf(1, now + age)).reduce(sumOf)
      const expected = ages.reduce((sum, age) => sum + 2 ** (age / halfLife), 0)
      assert.ok(close(countOf(score, now), expected))
    }),
  )
})

test('a score only grows when something is counted', () => {
  const score = fc.double({ min: 2900, max: 3100, noNaN: true })
  fc.assert(fc.property(score, score, (a, b) => assert.ok(sumOf(a, b) >= Math.max(a, b))))
})

test.run()
