import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Allowance } from './allowance.ts'

test('so much may be had at once, and after that so much a second, however long it was left alone', () => {
  let now = 0
  const allowance = new Allowance({ atOnce: 10, perSecond: 2, now: () => now })
  assert.ok(allowance.take(7))
  assert.not(allowance.take(4), 'too much is refused')
  assert.ok(allowance.take(3), 'and costs nothing')
  now += 1000
  assert.not(allowance.take(3))
  assert.ok(allowance.take(2))
  now += 1_000_000
  assert.not(allowance.take(11))
  assert.ok(allowance.take(10))
})

test.run()
