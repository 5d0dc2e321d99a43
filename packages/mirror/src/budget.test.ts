import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Budget } from './budget.ts'

test('what is saved up can be used at once, and more is owed until its time has come', () => {
  let now = 0
  const budget = new Budget({ rate: 1000, most: 500, now: () => now })
  assert.is(budget.use(500), 0)
  assert.is(budget.use(250), 250)
  assert.is(budget.use(250), 500)
  now += 250
  assert.is(budget.left, -250)
  now += 1_000_000
  assert.is(budget.left, 500)
})

test('a clock that is set back neither gives nor takes', () => {
  let now = 1_000_000
  const budget = new Budget({ rate: 1000, most: 500, now: () => now })
  budget.use(500)
  now = 0
  assert.is(budget.left, 0)
  now += 100
  assert.is(budget.left, 100)
})

test.run()
