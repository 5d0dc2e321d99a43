import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parseRateLimit, parseRetryAfter } from './rate-limit.ts'

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
