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

test('others are too slow if twice in a row they give less than 1 MB/s, and than a quarter of upstream', () => {
  let now = 0
  const rates = new Rates(() => now)
  using pace = rates.joint(0)
  let total = 0
  const after2s = (bytes: number, upstream: number | undefined) => {
    now += 2000
    total += bytes
    return pace.isSlow(total, upstream)
  }
  assert.not.ok(after2s(1_000_000, 2.5e6))
  assert.ok(after2s(1_000_000, 2.5e6))
  assert.not.ok(after2s(2_100_000, 1e7), 'fast enough')
  assert.not.ok(after2s(1_000_000, 1.9e6))
  assert.not.ok(after2s(1_000_000, 1.9e6), 'upstream is little faster')
  assert.not.ok(after2s(1_000_000, undefined))
  assert.not.ok(after2s(1_000_000, undefined), 'nobody knows what upstream gives')
  assert.not.ok(after2s(0, 1e7))
  assert.not.ok(after2s(0, 1e7), 'nobody has anything yet')
})

test('blobs that come from others at the same time share what those give', () => {
  let now = 0
  const rates = new Rates(() => now)
  using pace = rates.joint(0)
  using _other = rates.joint(0)
  for (let i = 1; i <= 3; i++) {
    now += 2000
    assert.not.ok(pace.isSlow(i * 1_100_000, 1e7))
  }
})

test.run()
