import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { halfLife, scoreOf } from './decay.ts'
import { mostOfPeer, mostPeers, mostRows, mostSilence, OfficePopularity, type Told } from './office-popularity.ts'

const now = Date.UTC(2026, 0, 1)
const year = 365 * 24 * 3600 * 1000

/** What peers say, one after another. */
type Said = { readonly peer: string; readonly told: Told }

const image = fc.integer({ min: 0, max: 400 }).map(number => `docker.io/library/image-${number}:latest`)
const row = fc.record({ image, score: fc.double({ min: 2900, max: 3300, noNaN: true }) })
const at = fc.oneof(fc.constant(now), fc.integer({ min: now - year, max: now + year }))
const told = fc.record({
  at,
  rows: fc.oneof(fc.array(row, { maxLength: 20 }), fc.array(row, { minLength: 200, maxLength: 400 })),
})
const said = fc.record({ peer: fc.constantFrom('ada', 'bob', 'eve'), told })

function heard(all: readonly Said[]): OfficePopularity {
  const office = new OfficePopularity()
  for (const { peer, told } of all) office.merge(peer, told, now)
  return office
}

/** All that can be seen of it. */
function seen(office: OfficePopularity): unknown {
  const peers = [...office.peers()].map(({ peer }) => peer).sort()
  return {
    peers: peers.map(peer => [peer, [...office.rowsOf(peer)].sort((a, b) => (a.image < b.image ? -1 : 1))]),
    images: [...office.images()].sort().map(image => [image, office.tellersOf(image)]),
  }
}

test('it does not matter in which order peers are heard', () => {
  fc.assert(
    fc.property(fc.array(said, { maxLength: 8 }), fc.func(fc.integer()), (all, order) => {
      const shuffled = all.map((each, i) => [order(i), each] as const).sort(([a], [b]) => a - b)
      assert.equal(seen(heard(shuffled.map(([, each]) => each))), seen(heard(all)))
    }),
  )
})

test('it does not matter what was heard together, or over whom', () => {
  fc.assert(
    fc.property(fc.array(told, { maxLength: 6 }), all => {
      const separate = heard(all.map(told => ({ peer: 'ada', told: { at: now, rows: told.rows } })))
      const together = heard([{ peer: 'ada', told: { at: now, rows: all.flatMap(({ rows }) => rows) } }])
      if (all.length > 0) assert.equal(seen(together), seen(separate))
      // What one has gathered of a peer tells another as much as the peer itself.
      const passedOn = heard([{ peer: 'ada', told: { at: now, rows: [...separate.rowsOf('ada')] } }])
      if (all.length > 0) assert.equal(seen(passedOn), seen(separate))
    }),
  )
})

test('it does not matter how often something is heard', () => {
  fc.assert(
    fc.property(fc.array(said, { maxLength: 6 }), fc.integer({ min: 0, max: 5 }), (all, again) => {
      const twice = [...all, ...all.slice(again), ...all.slice(0, again)]
      assert.equal(seen(heard(twice)), seen(heard(all)))
    }),
  )
})

test('however much peers say, little of each is kept, and counts', () => {
  const liar = fc.record({
    peer: fc.constant('eve'),
    told: fc.record({
      at,
      rows: fc.array(fc.record({ image, score: fc.double({ min: -1e308, max: 1e308 }) }), {
        minLength: 600,
        maxLength: 800,
      }),
    }),
  })
  fc.assert(
    fc.property(fc.array(fc.oneof(said, liar), { maxLength: 6 }), all => {
      const office = heard(all)
      for (const { peer } of office.peers()) assert.ok([...office.rowsOf(peer)].length <= mostRows)
      for (const image of office.images()) {
        const count = office.count(image, now)
        assert.ok(count >= 0 && count <= mostOfPeer * office.tellersOf(image))
      }
    }),
  )
})

test('a peer whose clock is wrong counts as if it was right', () => {
  for (const error of [-year, -6 * 60_000, 4 * 60_000, year]) {
    const office = new OfficePopularity()
    const clock = now + error
    office.merge('ada', { at: clock, rows: [{ image: 'a', score: scoreOf(2, clock) }] }, now)
    const expected = Math.abs(error) < 5 * 60_000 ? 2 * 2 ** (error / halfLife) : 2
    assert.ok(Math.abs(office.count('a', now) - expected) < 1e-6, `${error} ms`)
  }
})

test('a peer that says it was a year ahead counts for no more than any other', () => {
  const office = new OfficePopularity()
  office.merge('eve', { at: now, rows: [{ image: 'a', score: scoreOf(1, now + year) }] }, now)
  assert.is(office.count('a', now), mostOfPeer)
  // What it has said is not plausible, and does not outlast everything.
  assert.ok(office.count('a', now + year) < 1e-9)
})

test('peers that are gone for long are forgotten, and those that were heard of longest ago if they are too many', () => {
  const office = new OfficePopularity()
  const told = (score: number): Told => ({ at: now, rows: [{ image: 'a', score }] })
  office.merge('gone', told(scoreOf(1, now)), now)
  office.merge('ada', told(scoreOf(1, now)), now + mostSilence + 1)
  assert.equal(
    [...office.peers()].map(({ peer }) => peer),
    ['ada'],
  )
  for (let i = 0; i < mostPeers; i++) office.merge(`peer-${i}`, told(scoreOf(1, now)), now + mostSilence + 2)
  assert.is([...office.peers()].length, mostPeers)
  assert.not([...office.peers()].some(({ peer }) => peer === 'ada'))
})

test('what a peer has said that is forgotten no longer counts', () => {
  const office = heard([{ peer: 'eve', told: { at: now, rows: [{ image: 'a', score: scoreOf(3, now) }] } }])
  office.forget('eve')
  assert.equal([office.count('a', now), office.size, [...office.peers()]], [0, 0, []])
})

test.run()
