import type { Digest } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Budget } from './budget.ts'
import type { ChunkHashes } from './chunk-hashes.ts'
import { ChunkSet } from './chunks.ts'
import { Durations } from './durations.ts'
import { type Mate, newMate } from './mate.ts'
import { Mesh } from './mesh.ts'
import type { ChunkAnswer } from './spread-context.ts'
import { tuning } from './tuning.ts'

const digest = `sha256:${'0'.repeat(64)}` as Digest
const count = 4

type Asked = { readonly from: string; readonly chunk: number; readonly answer: (answer: ChunkAnswer) => void }

/** A machine that lacks all, and others that have some. */
function world(others: Readonly<Record<string, readonly number[]>>, options: Partial<typeof tuning> = {}) {
  const tuned = { ...tuning, ...options }
  const have = new ChunkSet(count)
  const mates = new Map<string, Mate>()
  const it = {
    now: 1000,
    have,
    mates,
    asked: [] as Asked[],
    got: [] as number[],
    dropped: 0,
    wrong: [] as string[],
    author: 'author',
    /** Those that were asked since the last time. */
    take: () => it.asked.splice(0),
    chunk: (hash: string): ChunkAnswer => ({
      kind: 'chunk',
      hash,
      keep: (_author, then) => then(),
      drop: () => void it.dropped++,
    }),
    mesh: undefined as unknown as Mesh,
  }
  const hashes = { of: (chunk: number) => ({ hash: `hash ${chunk}`, author: it.author }) } as ChunkHashes
  it.mesh = new Mesh({
    digest,
    context: {
      now: () => it.now,
      random: () => 0.5,
      get: (from: string, _digest: unknown, chunk: number, _has: unknown, answer: (answer: ChunkAnswer) => void) => {
        it.asked.push({ from, chunk, answer })
        return { [Symbol.dispose]: () => {} }
      },
    } as never,
    tuning: tuned,
    budget: new Budget(tuned),
    times: new Durations(),
    mates,
    have,
    hashes,
    got: chunk => void it.got.push(chunk),
    exchanged: () => {},
    wrong: (mate, chunk, hash) => void it.wrong.push(`${mate.id} ${chunk} ${hash}`),
  })
  for (const [id, chunks] of Object.entries(others)) {
    const mate = Object.assign(newMate(id, 0, count), { heard: true, gives: true })
    mates.set(id, mate)
    it.mesh.weigh(mate)
    for (const chunk of chunks) it.mesh.learned(mate, chunk)
  }
  return it
}

test('what fewest have is got first, one at a time from each', () => {
  const it = world({ a: [0, 1, 2], b: [0, 1], c: [0] })
  it.mesh.next()
  const asked = it.take()
  assert.equal(asked.map(({ from, chunk }) => `${from} ${chunk}`).sort(), ['a 2', 'b 1', 'c 0'])
  it.mesh.next()
  assert.equal(it.take(), [])
})

test('who is busy is left alone, longer each time, until it gives', () => {
  const it = world({ a: [0, 1] })
  const pauses: number[] = []
  it.mesh.next()
  for (let i = 0; i < 6; i++) {
    it.take()[0]!.answer({ kind: 'busy' })
    const refusedAt = it.now
    while (it.asked.length === 0) {
      it.now++
      it.mesh.next()
    }
    pauses.push(it.now - refusedAt)
  }
  assert.equal(pauses, [64, 103, 160, 160, 160, 160])
  it.take()[0]!.answer(it.chunk('hash 0'))
  it.take()[0]!.answer({ kind: 'busy' })
  it.now += 65
  it.mesh.next()
  assert.is(it.take().length, 1)
})

test('who fails twice in a row is asked no more', () => {
  const it = world({ a: [0, 1, 2] })
  for (let i = 0; i < 2; i++) {
    it.mesh.next()
    it.take()[0]!.answer({ kind: 'failed' })
    it.now += 5000
  }
  it.mesh.next()
  assert.equal(it.take(), [])
  assert.is(it.mesh.holders(0), 0)
})

test('what is late is asked of another as well, and the first answer counts', () => {
  const it = world({ a: [0], b: [0] })
  it.mesh.next()
  const [first] = it.take()
  it.now += 240
  it.mesh.look()
  assert.equal(it.take(), [])
  it.now += 20
  it.mesh.look()
  const [second] = it.take()
  assert.is.not(second?.from, first?.from)
  second!.answer(it.chunk('hash 0'))
  assert.equal(it.got, [0])
  first!.answer(it.chunk('hash 0'))
  assert.equal(it.got, [0])
  assert.is(it.dropped, 1)
})

test('what one hands on late is not asked of it twice', () => {
  const it = world({ a: [0] })
  it.mesh.handed(it.mates.get('a')!, 0)
  it.take()
  it.now += 60_000
  it.mesh.look()
  assert.equal(it.take(), [])
})

test('other bytes than those that were told are dropped, and their sender is found out, even if they come too late', () => {
  for (const late of [false, true]) {
    const it = world({ a: [0, 1] })
    it.mesh.next()
    const [asked] = it.take()
    if (late) it.have.add(asked!.chunk)
    asked!.answer(it.chunk('another hash'))
    assert.equal(it.wrong, [`a ${asked!.chunk} another hash`])
    assert.equal([it.got, it.dropped], [[], 1])
    it.mesh.next()
    assert.equal(it.take(), [], 'it is not asked again')
  }
})

test('who hands out is asked for what it has not handed on only after a while', () => {
  const it = world({ a: [0] })
  it.mates.get('a')!.handing = true
  it.mesh.next()
  assert.equal(it.take(), [])
  it.mesh.handed(it.mates.get('a')!, 0)
  assert.is(it.take().length, 1)
  const other = world({ a: [0] })
  other.mates.get('a')!.handing = true
  other.now += 2000
  other.mesh.next()
  assert.is(other.take().length, 1)
})

test('what the sources bring is asked of nobody any more, and what one had who left is asked of others', () => {
  const it = world({ a: [0], b: [1] })
  it.mesh.next()
  it.take()
  assert.is(it.mesh.pulling, 2)
  it.mesh.arrived(0)
  assert.is(it.mesh.pulling, 1)
  it.mesh.left(it.mates.get('b')!)
  assert.is(it.mesh.pulling, 0)
  assert.is(it.mesh.holders(1), 0)
})

test('all blobs together ask for so much at once', () => {
  const it = world({ a: [0], b: [1], c: [2] }, { pullsInAll: 2 })
  it.mesh.next()
  const asked = it.take()
  assert.is(asked.length, 2)
  asked[0]!.answer(it.chunk(`hash ${asked[0]!.chunk}`))
  assert.is(it.take().length, 1)
})

test.run()
