import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Rates } from './rates.ts'

const megabyte = 1024 * 1024

test('a rate is that of large bodies, and follows what is measured', () => {
  const rates = new Rates(() => 0)
  assert.is(rates.of('hub'), undefined)
  rates.begin('hub')(megabyte - 1, 1000)
  assert.is(rates.of('hub'), undefined)
  rates.begin('hub')(10 * megabyte, 1000)
  assert.is(rates.of('hub'), 10 * megabyte)
  assert.is(rates.of('other'), undefined)
  for (let i = 0; i < 20; i++) rates.begin('hub')(2 * megabyte, 1000)
  assert.ok(Math.abs(rates.of('hub')! - 2 * megabyte) < 0.1 * megabyte)
})

test('bodies at the same time share the line', () => {
  const rates = new Rates(() => 0)
  const ends = [rates.begin('hub'), rates.begin('hub')]
  for (const end of ends) end(2 * megabyte, 1000)
  assert.ok(rates.of('hub')! > 2.5 * megabyte)
})

test('what was measured long ago counts for little', () => {
  let now = 0
  const rates = new Rates(() => now)
  rates.begin('hub')(10 * megabyte, 1000)
  now += 10 * 60 * 60_000
  rates.begin('hub')(2 * megabyte, 1000)
  assert.ok(Math.abs(rates.of('hub')! - 2 * megabyte) < 1000)
})

test.run()
