import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { countOf, halfLife } from './decay.ts'
import { mostImages, Popularity, strongest } from './popularity.ts'

const now = Date.UTC(2026, 0, 1)

test('pulls of an image are counted, and go on from what was kept', () => {
  const before = new Popularity()
  before.pulled('nginx', now)
  before.pulled('nginx', now)
  const after = new Popularity([...before])
  const score = after.pulled('nginx', now + halfLife)
  assert.is(Math.round(1e6 * countOf(score, now + halfLife)), 2e6)
  assert.is(after.scoreOf('nginx'), score)
  assert.is(after.scoreOf('redis'), undefined)
})

test('of too many images, those that were pulled least are forgotten', () => {
  const popularity = new Popularity()
  popularity.pulled('often', now)
  popularity.pulled('often', now)
  for (let i = 0; i < 2 * mostImages; i++) popularity.pulled(`once-${i}`, now)
  assert.ok(popularity.size <= mostImages * 1.1)
  assert.ok(popularity.scoreOf('often') !== undefined)
})

test('the strongest come first, and equal ones always in the same order', () => {
  const rows = ['d', 'b', 'a', 'c'].map((image, i) => ({ image, score: i === 0 ? 2 : 1 }))
  assert.equal(
    strongest(rows, 3).map(({ image }) => image),
    ['d', 'a', 'b'],
  )
  assert.equal(strongest(rows.toReversed(), 3), strongest(rows, 3))
})

test.run()
