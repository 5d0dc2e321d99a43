import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { PacketBudget } from './packet-budget.ts'

function taken(budget: PacketBudget, from: string, times: number): number {
  return Array.from({ length: times }, () => budget.take(from)).filter(Boolean).length
}

test('who floods does not use up what is others', () => {
  const budget = new PacketBudget(() => 0)
  assert.is(taken(budget, '10.0.0.1', 1000), 20)
  assert.is(taken(budget, '10.0.0.2', 3), 3)
})

test('many together are bounded, too, until the next second', () => {
  let now = 0
  const budget = new PacketBudget(() => now)
  const all = () =>
    Array.from({ length: 100 }, (_, host) => taken(budget, `10.0.0.${host}`, 10)).reduce((a, b) => a + b)
  assert.is(all(), 200)
  now = 999
  assert.is(all(), 0)
  now = 1000
  assert.is(all(), 200)
})

test.run()
