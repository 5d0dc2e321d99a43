import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { UploadSlots } from './upload-slots.ts'

function slotsOf(most: number) {
  const clock = { now: 0 }
  return { slots: new UploadSlots({ most, now: () => clock.now }), clock }
}

test('there are so many, to one peer or to several', () => {
  const { slots } = slotsOf(3)
  assert.ok(slots.take('a'))
  assert.ok(slots.take('a'))
  const third = slots.take('b')
  assert.ok(third)
  assert.is(slots.used, 3)
  assert.not(slots.take('c'))
  third[Symbol.dispose]()
  third[Symbol.dispose]()
  assert.is(slots.used, 2)
  assert.ok(slots.take('c'))
  assert.not(slots.take('c'))
})

test('with none, all are busy', () => {
  assert.not(slotsOf(0).slots.take('a'))
})

test('a slot that is given back is for who holds fewer, if it asks again', () => {
  const { slots, clock } = slotsOf(4)
  const held = [1, 2, 3, 4].map(() => slots.take('a'))
  assert.not(slots.take('b'))
  held.pop()?.[Symbol.dispose]()
  clock.now = 1000
  assert.not(slots.take('a'))
  assert.ok(slots.take('b'))
  assert.not(slots.take('b'))
  held.pop()?.[Symbol.dispose]()
  assert.not(slots.take('a'))
  assert.ok(slots.take('b'))
  // Both hold as many: who has been asking longer comes first.
  held.pop()?.[Symbol.dispose]()
  assert.ok(slots.take('a'))
})

test('among those who hold none, who has been asking longest comes first', () => {
  const { slots, clock } = slotsOf(1)
  const only = slots.take('a')
  clock.now = 1
  assert.not(slots.take('b'))
  clock.now = 2
  assert.not(slots.take('c'))
  only?.[Symbol.dispose]()
  clock.now = 900
  assert.not(slots.take('a'))
  assert.not(slots.take('c'))
  const second = slots.take('b')
  assert.ok(second)
  second[Symbol.dispose]()
  assert.not(slots.take('b'))
  assert.ok(slots.take('c'))
})

test('nothing is kept for who does not come again', () => {
  const { slots, clock } = slotsOf(1)
  const only = slots.take('a')
  assert.not(slots.take('b'))
  only?.[Symbol.dispose]()
  clock.now = 1400
  assert.not(slots.take('a'))
  clock.now = 1600
  assert.ok(slots.take('a'))
})

test.run()
