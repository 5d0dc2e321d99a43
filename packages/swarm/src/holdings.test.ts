import { type Digest, digestFrom } from '@shoal/oci/digest'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { prefixesOf } from './digest-prefix.ts'
import { Holdings, mostInAll, mostOfPeer } from './holdings.ts'

function holdingsWith(onFull: (peer: string) => void = () => {}): Holdings {
  return new Holdings({ random: Math.random, onFull })
}

const digestAt = (index: number) => digestFrom('sha256', index.toString(16).padStart(16, '0').padEnd(64, 'f'))

/** Prefixes from `first` on, one after another. */
function run(first: number, count: number): Uint8Array {
  const bytes = Buffer.alloc(8 * count)
  for (let index = 0; index < count; index++) bytes.writeUInt32BE(first + index, 8 * index + 4)
  return bytes
}

test('who holds a blob is known until it takes it back, lacks it, or goes', () => {
  const holdings = holdingsWith()
  const [a, b] = [digestAt(1), digestAt(2)]
  holdings.add('p', prefixesOf([a, b]))
  holdings.add('q', prefixesOf([a]))
  assert.equal([...holdings.holdersOf(a)].sort(), ['p', 'q'])
  assert.equal(holdings.holdersOf(b), ['p'])
  holdings.remove('q', prefixesOf([a]))
  assert.equal(holdings.holdersOf(a), ['p'])
  holdings.lacks('p', a)
  assert.equal(holdings.holdersOf(a), [])
  assert.is(holdings.count('p'), 1)
  holdings.forget('p')
  assert.equal(holdings.holdersOf(b), [])
  assert.is(holdings.count('p'), 0)
})

test('it agrees with a Map of Sets, whatever peers say', () => {
  const peer = fc.nat(40).map(n => `peer ${n}`)
  const digests = fc.uniqueArray(fc.nat(60), { maxLength: 20 }).map(numbers => numbers.map(digestAt))
  const operation = fc.oneof(
    { weight: 8, arbitrary: fc.record({ verb: fc.constant('add' as const), peer, digests }) },
    { weight: 4, arbitrary: fc.record({ verb: fc.constant('remove' as const), peer, digests }) },
    { weight: 2, arbitrary: fc.record({ verb: fc.constant('lacks' as const), peer, digests }) },
    { weight: 1, arbitrary: fc.record({ verb: fc.constantFrom('forget' as const, 'snapshotBegun' as const), peer }) },
  )
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 80, size: 'max' }), operations => {
      const holdings = holdingsWith()
      const model = new Map<string, Set<Digest>>()
      for (const operation of operations) {
        const { verb, peer } = operation
        const known = model.get(peer) ?? new Set()
        model.set(peer, known)
        if (verb === 'add' || verb === 'remove') {
          holdings[verb](peer, prefixesOf(operation.digests))
          for (const digest of operation.digests) verb === 'add' ? known.add(digest) : known.delete(digest)
        } else if (verb === 'lacks')
          for (const digest of operation.digests) {
            holdings.lacks(peer, digest)
            known.delete(digest)
          }
        else {
          holdings[verb](peer)
          known.clear()
        }
        assert.is(holdings.count(peer), known.size)
      }
      for (let index = 0; index <= 60; index++) {
        const digest = digestAt(index)
        const expected = [...model].filter(([, known]) => known.has(digest)).map(([peer]) => peer)
        assert.equal([...holdings.holdersOf(digest)].sort(), expected.sort())
      }
    }),
    { numRuns: 50 },
  )
})

test('more than is kept of one peer is ignored, told once, and taken again where there is room', () => {
  const full: string[] = []
  const holdings = holdingsWith(peer => void full.push(peer))
  holdings.add('p', run(1, mostOfPeer))
  holdings.add('p', run(1, 100))
  assert.equal(full, [])
  holdings.add('p', run(mostOfPeer + 1, 2))
  holdings.add('p', run(mostOfPeer + 1, 2))
  assert.equal(full, ['p'])
  assert.is(holdings.count('p'), mostOfPeer)
  holdings.remove('p', run(1, 1))
  holdings.add('p', run(mostOfPeer + 1, 1))
  assert.equal(holdings.holdersOf(digestAt(mostOfPeer + 1)), ['p'])
  holdings.snapshotBegun('p')
  holdings.add('p', run(1, mostOfPeer + 1))
  assert.equal(full, ['p'])
  assert.is(holdings.count('p'), mostOfPeer)
})

test('more than is kept in all is ignored, and what goes makes room', () => {
  const full: string[] = []
  const holdings = holdingsWith(peer => void full.push(peer))
  const most = run(1, mostOfPeer)
  const peers = Array.from({ length: mostInAll / mostOfPeer }, (_, index) => `peer ${index}`)
  for (const peer of peers) holdings.add(peer, most)
  holdings.add('late', run(1, 10))
  assert.equal(full, ['late'])
  assert.is(holdings.count('late'), 0)
  holdings.forget('peer 0')
  holdings.add('late', run(1, 10))
  assert.is(holdings.count('late'), 10)
  assert.is(holdings.holdersOf(digestAt(5)).length, peers.length)
})

test('what comes and goes for ever is still found, and its marks are wiped out', () => {
  const holdings = holdingsWith()
  holdings.add('p', run(1, 10))
  for (let turn = 1; turn <= 60; turn++) {
    const some = run(turn * 1000, 1000)
    holdings.add('p', some)
    holdings.remove('p', some)
  }
  assert.is(holdings.count('p'), 10)
  for (let index = 1; index <= 10; index++) assert.equal(holdings.holdersOf(digestAt(index)), ['p'])
  assert.equal(holdings.holdersOf(digestAt(1000)), [])
})

test('places of peers that went are taken by others, who have nothing of theirs', () => {
  const holdings = holdingsWith()
  const before = process.memoryUsage().arrayBuffers
  for (let turn = 0; turn < 1000; turn++) {
    holdings.add(`peer ${turn}`, run(1, 5))
    if (turn >= 3) holdings.forget(`peer ${turn - 3}`)
  }
  assert.equal([...holdings.holdersOf(digestAt(1))].sort(), ['peer 997', 'peer 998', 'peer 999'])
  assert.ok(process.memoryUsage().arrayBuffers - before < 5e6)
})

test.run()
