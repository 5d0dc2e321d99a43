import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Breaker } from './breaker.ts'

class Clock {
  time = 1000
  readonly now = () => this.time
}

function broken(clock: Clock, failures: number): Breaker {
  const breaker = new Breaker(clock.now, () => 0.5)
  for (let i = 0; i < failures; i++) breaker.failed()
  return breaker
}

test('two failures in a row are borne', () => {
  const breaker = broken(new Clock(), 2)
  assert.is(breaker.state, 'closed')
  assert.ok(breaker.admits())
})

test('a success in between starts the count anew', () => {
  const breaker = broken(new Clock(), 2)
  breaker.succeeded()
  breaker.failed()
  assert.is(breaker.state, 'closed')
})

test('after the third it is passed over for two seconds, and then one request may try', () => {
  const clock = new Clock()
  const breaker = broken(clock, 3)
  assert.is(breaker.state, 'open')
  clock.time += 1999
  assert.not(breaker.admits())
  clock.time += 1
  assert.is(breaker.state, 'half-open')
  assert.ok(breaker.admits())
  assert.not(breaker.admits())
})

test('the try that succeeds closes the circuit', () => {
  const clock = new Clock()
  const breaker = broken(clock, 3)
  clock.time += 2000
  breaker.admits()
  breaker.succeeded()
  assert.is(breaker.state, 'closed')
  assert.ok(breaker.admits())
  assert.ok(breaker.admits())
})

test('a try that was given up leaves the next one free', () => {
  const clock = new Clock()
  const breaker = broken(clock, 3)
  clock.time += 2000
  assert.ok(breaker.admits())
  breaker.gaveUp()
  assert.ok(breaker.admits())
})

test('each failed try doubles the pause, up to a minute', () => {
  const clock = new Clock()
  const breaker = broken(clock, 3)
  for (const pause of [2, 4, 8, 16, 32, 60, 60]) {
    clock.time += pause * 1000 - 1
    assert.is(breaker.state, 'open', `${pause} s`)
    clock.time += 1
    assert.ok(breaker.admits(), `${pause} s`)
    breaker.failed()
  }
})

test('silence opens the circuit at once, for eight seconds at first', () => {
  const clock = new Clock()
  const breaker = new Breaker(clock.now, () => 0.5)
  breaker.fellSilent()
  clock.time += 7999
  assert.is(breaker.state, 'open')
  clock.time += 1
  assert.ok(breaker.admits())
  breaker.succeeded()
  assert.is(breaker.state, 'closed')
})

test('pauses differ by up to a quarter, so that machines don’t come all at once', () => {
  for (const [random, pause] of [
    [0, 1500],
    [1, 2500],
  ] as const) {
    const clock = new Clock()
    const breaker = new Breaker(clock.now, () => random)
    for (let i = 0; i < 3; i++) breaker.failed()
    clock.time += pause - 1
    assert.is(breaker.state, 'open')
    clock.time += 1
    assert.is(breaker.state, 'half-open')
  }
})

test('failures of those that were under way when it opened lengthen no pause', () => {
  const clock = new Clock()
  const breaker = broken(clock, 12)
  clock.time += 2000
  assert.is(breaker.state, 'half-open')
  const silent = new Breaker(clock.now, () => 0.5)
  for (let i = 0; i < 12; i++) silent.fellSilent()
  clock.time += 8000
  assert.is(silent.state, 'half-open')
})

test('a thousand failures are no overflow', () => {
  const clock = new Clock()
  const breaker = broken(clock, 3)
  for (let i = 0; i < 2000; i++) {
    clock.time += 60_000
    breaker.failed()
  }
  clock.time += 60_000
  assert.is(breaker.state, 'half-open')
})

test.run()
