import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Budget } from './budget.ts'
import { tuning } from './tuning.ts'

test('who finds nothing left is called when something is, in turn, and once', () => {
  const budget = new Budget({ ...tuning, pullsInAll: 2 })
  const called: string[] = []
  assert.ok(budget.take('pulls'))
  assert.ok(budget.take('pulls'))
  const [first, second] = [() => called.push('first'), () => called.push('second')]
  assert.not.ok(budget.take('pulls', first))
  assert.not.ok(budget.take('pulls', second))
  assert.not.ok(budget.take('pulls', first))
  budget.free('pulls')
  assert.equal(called, ['first'])
  budget.free('pulls')
  assert.equal(called, ['first', 'second'])
  assert.ok(budget.take('pulls'))
  budget.free('pulls')
  assert.equal(called, ['first', 'second'])
})

test('shares do not mix, and who wants no more is not called', () => {
  const budget = new Budget({ ...tuning, pullsInAll: 1, servesInAll: 1 })
  assert.ok(budget.take('pulls'))
  assert.ok(budget.take('serves'))
  const never = () => assert.unreachable()
  assert.not.ok(budget.take('serves', never))
  budget.free('pulls')
  budget.forget('serves', never)
  budget.free('serves')
})

test.run()
