import type { Digest } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { coordinatorsOf } from './coordinators.ts'

const digestOf = (i: number) => `sha256:${String(i).padStart(64, '0')}` as Digest
const members = Array.from({ length: 20 }, (_, i) => `member${i}`)

test('all agree on who is asked, whatever the order in which they know each other', () => {
  assert.equal(coordinatorsOf(digestOf(1), members, 2), coordinatorsOf(digestOf(1), members.toReversed(), 2))
})

test('when the first goes, the second takes its place, and nobody else', () => {
  for (let i = 0; i < 100; i++) {
    const [first, second, third] = coordinatorsOf(digestOf(i), members, 3)
    const others = members.filter(member => member !== first)
    assert.equal(coordinatorsOf(digestOf(i), others, 2), [second, third])
  }
})

test('blobs are shared out over the members', () => {
  const counts = new Map<string, number>()
  for (let i = 0; i < 2000; i++) {
    const [first = ''] = coordinatorsOf(digestOf(i), members, 1)
    counts.set(first, (counts.get(first) ?? 0) + 1)
  }
  assert.is(counts.size, members.length)
  for (const count of counts.values()) assert.ok(count > 50 && count < 150, `${count} of 2000`)
})

test.run()
