import assert from 'node:assert/strict'
import { test } from 'uvu'
import { generateTrace } from './generated.ts'
import type { Keeping } from './keeping.ts'
import { replay } from './office.ts'
import { offline } from './offline.ts'
import { policies } from './policies.ts'
import { uniqueBytesOf } from './trace.ts'

const trace = generateTrace(4000, 2)
const setting = { trace, days: 30, wrong: 0 }

/** A machine alone that has place for so many bytes, and what it keeps. */
function machineOf(policy: string, sizes: readonly number[], capacity: number) {
  const kept = new Set<number>()
  const keeping: Keeping = policies[policy]!()({
    number: 0,
    capacity,
    sizes,
    digests: sizes.map((_, blob) => String(blob)),
    copiesOf: () => ({ others: 0, keeps: true }),
    clock: () => 0,
    changed: (blob, isKept) => (isKept ? kept.add(blob) : kept.delete(blob)),
  })
  const ask = (...blobs: readonly number[]) => {
    for (const blob of blobs) keeping.has(blob) ? keeping.hit(blob) : keeping.miss(blob)
  }
  return { kept, keeping, ask }
}

test('whatever is asked for, a machine keeps no more than it has place for, and says so when it does', () => {
  const capacity = 0.02 * uniqueBytesOf(trace)
  for (const policy of Object.keys(policies)) {
    const { kept, keeping, ask } = machineOf(policy, trace.sizes, capacity)
    for (const { blob } of trace.requests) {
      ask(blob)
      const bytes = [...kept].reduce((sum, each) => sum + trace.sizes[each]!, 0)
      assert.ok(bytes <= capacity, `${policy} keeps ${bytes} bytes of ${capacity}`)
      assert.equal(keeping.has(blob), kept.has(blob), policy)
    }
    assert.ok(kept.size > 0, policy)
  }
})

test('nobody answers more than the offline bound, and who has place for all answers what was asked for before', () => {
  for (const [policy, make] of Object.entries(policies)) {
    for (const peers of [1, 4]) {
      const small = { ...setting, peers, capacity: 0.05 }
      const [outcome, bound] = [replay(make(), small), offline(small)]
      for (const key of ['hit', 'byteHit', 'localHit'] as const)
        assert.ok(outcome[key] <= bound[key] && outcome[key] > 0, `${policy} ${key} with ${peers} machines`)
      assert.ok(peers > 1 ? outcome.localHit < outcome.hit : outcome.localHit === outcome.hit, policy)
    }
    // W-TinyLFU keeps a part of the place for what is new.
    const { hit } = replay(make(), { ...setting, peers: 1, capacity: 1.5 })
    assert.equal(hit, 1 - trace.digests.length / trace.requests.length, policy)
  }
})

test('the offline bound is what fits into place times time, the cheapest answers first', () => {
  const requests = [0, 1, 2, 0, 1, 2].map(blob => ({ blob, repository: 0 }))
  const digests = ['a', 'b', 'c']
  const bound = (sizes: readonly number[], capacity: number) =>
    offline({ ...setting, trace: { digests, sizes, repositories: ['r'], requests }, peers: 1, capacity })
  // A byte for six requests; an answer takes a byte for three.
  assert.deepEqual(bound([1, 1, 1], 1 / 3), { hit: 2 / 6, byteHit: 2 / 6, localHit: 2 / 6 })
  // 2 bytes: 12, of which the small take 3 each; a third of the large one's 18 is left, which does not fit at all.
  assert.deepEqual(bound([1, 1, 6], 2 / 8), { hit: 2 / 6, byteHit: 2 / 16, localHit: 2 / 6 })
  // 3 bytes: 18, of which the small take 6 each; two thirds of what the other takes are left.
  const { hit, byteHit } = bound([2, 2, 3], 3 / 7)
  assert.ok(Math.abs(hit - (2 + 2 / 3) / 6) < 1e-9 && Math.abs(byteHit - 6 / 14) < 1e-9)
})

test('of three that are as large, the one goes that the paper says', () => {
  const left = (policy: string, ...asked: readonly number[]) => {
    const { kept, ask } = machineOf(policy, [1, 1, 1, 1, 1, 1], 3)
    ask(...asked)
    return [...kept].sort().join('')
  }
  assert.equal(left('lru', 0, 1, 2, 0, 3), '023')
  assert.equal(left('lfu-da', 0, 0, 1, 1, 2, 3), '013')
  // What has come and gone ages those that stay: three times long ago is less than once now.
  assert.equal(left('lfu-da', 0, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 5), '345')
  // The hand spares those that were asked for again, and goes on from there.
  assert.equal(left('sieve', 0, 1, 2, 0, 3), '023')
  assert.equal(left('sieve', 0, 1, 2, 0, 3, 4), '034')
  assert.equal(left('s3-fifo', 0, 0, 0, 1, 2, 3), '023')
  assert.equal(left('s3-fifo', 0, 1, 2, 3), '123')
  assert.equal(left('w-tiny-lfu', 0, 0, 1, 1, 2, 2, 3), '01')
})

test('by size, one large blob goes before several small ones', () => {
  for (const policy of ['gdsf', 'gdsf-sqrt', 'shoal']) {
    const { kept, ask } = machineOf(policy, [10, 1, 1, 1, 5], 13)
    ask(0, 1, 2, 3, 4)
    assert.deepEqual([...kept].sort(), [1, 2, 3, 4], policy)
  }
})

test('machines of an office that know of each other keep fewer copies than machines that do not', () => {
  const small = { ...setting, peers: 8, capacity: 0.1 }
  const informed = replay(policies['shoal']!(), small)
  const wrong = replay(policies['shoal']!(), { ...small, wrong: 1 })
  assert.ok(informed.hit > wrong.hit + 0.02, `${informed.hit} ${wrong.hit}`)
})

test.run()
