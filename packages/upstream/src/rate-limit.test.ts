import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { allowanceOf, parseRateLimit, parseRetryAfter } from './rate-limit.ts'

test('Docker Hub’s headers are read', () => {
  const headers = {
    'ratelimit-limit': '100;w=21600',
    'ratelimit-remaining': '76;w=21600',
    'docker-ratelimit-source': '192.0.2.1',
  }
  assert.equal(parseRateLimit(headers, 5), { limit: 100, remaining: 76, window: 21600, source: '192.0.2.1', at: 5 })
})

test('a window and a source may be missing', () => {
  const headers = { 'ratelimit-limit': ' 100', 'ratelimit-remaining': ['0', '7'] }
  assert.equal(parseRateLimit(headers, 0), { limit: 100, remaining: 0, window: undefined, source: undefined, at: 0 })
})

test('what makes no sense is no limit', () => {
  for (const value of [undefined, '', 'many', '-1', '1'.repeat(16), '1'.repeat(400)]) {
    assert.is(parseRateLimit({ 'ratelimit-limit': value, 'ratelimit-remaining': '1' }, 0), undefined, `limit ${value}`)
    assert.is(parseRateLimit({ 'ratelimit-limit': '1', 'ratelimit-remaining': value }, 0), undefined, `left ${value}`)
  }
})

test('a limit is low with a tenth of it or 10 left, and as ever when its window is over', () => {
  const allowance = (remaining: number, limit = 100, window: number | undefined = 21_600, now = 0) =>
    allowanceOf({ limit, remaining, window, source: undefined, at: 0 }, now)
  assert.is(allowanceOf(undefined, 0), 'ample')
  assert.equal(
    [11, 10, 1, 0].map(left => allowance(left)),
    ['ample', 'low', 'low', 'spent'],
  )
  assert.equal(
    [21, 20].map(left => allowance(left, 200)),
    ['ample', 'low'],
  )
  // Ten of few are many.
  assert.equal(
    [4, 3, 2, 0].map(left => allowance(left, 10)),
    ['ample', 'ample', 'low', 'spent'],
  )
  assert.equal(
    [21_599_999, 21_600_000].map(now => allowance(0, 100, 21_600, now)),
    ['spent', 'ample'],
  )
  assert.is(allowance(0, 100, 60), 'ample', 'who is refused has a minute to wait at most')
  assert.is(allowanceOf({ limit: 100, remaining: 0, window: undefined, source: undefined, at: 0 }, 0), 'ample')
})

test('Retry-After is seconds or a date, and at most a day', () => {
  const now = Date.parse('2026-08-01T12:00:00Z')
  const wait = (value: string | undefined) => parseRetryAfter({ 'retry-after': value }, now)
  assert.is(wait('3'), 3000)
  assert.is(wait(' 0 '), 0)
  assert.is(wait('Sat, 01 Aug 2026 12:01:00 GMT'), 60_000)
  assert.is(wait('Sat, 01 Aug 2026 11:00:00 GMT'), 0)
  assert.is(wait('9'.repeat(400)), 86_400_000)
  assert.is(wait('soon'), undefined)
  assert.is(wait(''), undefined)
  assert.is(wait(undefined), undefined)
})

test('any header gives a finite limit and a finite pause, or none', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'0159;w= -.e') }), value => {
      const limit = parseRateLimit({ 'ratelimit-limit': value, 'ratelimit-remaining': value }, 0)
      if (limit)
        for (const number of [limit.limit, limit.remaining, limit.window ?? 0]) assert.ok(Number.isSafeInteger(number))
      const pause = parseRetryAfter({ 'retry-after': value }, 0)
      assert.ok(pause === undefined || (pause >= 0 && pause <= 86_400_000))
    }),
  )
})

test.run()
