import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { EventLoopWatch, type Stall } from './event-loop.ts'

function watched(): { watch: EventLoopWatch; told: Stall[]; lookAfter(ms: number): void } {
  let time = 5000
  const told: Stall[] = []
  const watch = new EventLoopWatch({ now: () => time, onStall: stall => told.push(stall) })
  const lookAfter = (ms: number) => {
    time += ms
    watch.look()
  }
  return { watch, told, lookAfter }
}

test('a loop that is a little late has not stalled', () => {
  const { watch, told, lookAfter } = watched()
  using _watch = watch
  for (const ms of [1000, 1001, 999, 1900, 2000]) lookAfter(ms)
  assert.equal(told, [])
  assert.is(watch.last, undefined)
})

test('each stall is told of once, with its length', () => {
  const { watch, told, lookAfter } = watched()
  using _watch = watch
  for (const ms of [1000, 4500, 1000, 1000, 2001]) lookAfter(ms)
  assert.equal(told, [
    { ms: 3500, until: 10_500 },
    { ms: 1001, until: 14_501 },
  ])
  assert.equal(watch.last, told[1])
})

test.run()
