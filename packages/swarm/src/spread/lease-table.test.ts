import type { Digest } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { LeaseTable } from './lease-table.ts'
import type { Ask, ChunkRun, Have, LeaseMessage } from './spread-message.ts'
import { tuning } from './tuning.ts'

const digest = `sha256:${'ab'.repeat(32)}` as Digest
const chunk = 65_536
const count = 100

/** A table, a clock, and what the table has said to whom. */
function tableOf() {
  const world = { now: 0, said: [] as { to: string; message: LeaseMessage }[] }
  const table = new LeaseTable({
    tuning,
    now: () => world.now,
    random: () => 0.5,
    send: (to, message) => world.said.push({ to, message }),
  })
  let n = 0
  const ask = (from: string, more: Partial<Ask> = {}) => {
    const question: Ask = {
      ...{
        t: 'ask',
        digest,
        n: ++n,
        size: count * chunk,
        chunk,
        epoch: 0,
        want: [],
        gives: true,
        line: true,
        why: 'new',
      },
      ...more,
    }
    table.ask(from, question)
    return world.said.findLast(({ to, message }) => to === from && message.n === question.n)!.message
  }
  const have = (from: string, add: readonly ChunkRun[], claim: readonly ChunkRun[], epoch: number, gives = true) => {
    const message: Have = {
      ...{ t: 'have', digest, size: count * chunk, chunk, first: false, hashes: [], handing: false },
      ...{ add, claim, epoch, gives },
    }
    table.have(from, message)
  }
  const last = (to: string) => world.said.findLast(each => each.to === to)!.message
  return { table, world, ask, have, last }
}

const all: readonly ChunkRun[] = [[0, count]]

test('the first fetches all, the others join and hear of it', () => {
  const { ask } = tableOf()
  assert.equal(ask('a').fetch, all)
  const { fetch, members } = ask('b')
  assert.equal(fetch, [])
  assert.equal(members, ['a'])
})

test('who has no line is not to fetch, and does not keep the next from it', () => {
  const { ask } = tableOf()
  assert.equal(ask('a', { line: false }).fetch, [])
  assert.equal(ask('b').fetch, all)
})

test('who gives nothing fetches for itself alone', () => {
  const { ask } = tableOf()
  assert.equal(ask('a', { gives: false }).fetch, all)
  assert.equal(ask('b').fetch, all)
})

test('what is lost when the one that fetches goes is for the first to ask, and for no other', () => {
  const { table, ask, have } = tableOf()
  const { epoch } = ask('a')
  ask('b')
  ask('c')
  have('a', [[0, 10]], [[10, count]], epoch)
  const lost = { why: 'lost', want: [[10, count]] } as const
  assert.equal(ask('b', lost).fetch, [], 'it is there, and fetches')
  table.left('a')
  assert.equal(ask('b', lost).fetch, [[10, count]])
  assert.equal(ask('c', lost).fetch, [])
})

test('who says nothing for a while is not waited for', () => {
  const { world, ask, have } = tableOf()
  const { epoch } = ask('a')
  have('a', [[0, 1]], [[1, count]], epoch)
  world.now = 1100
  const lost = { why: 'lost', want: [[1, count]] } as const
  assert.equal(ask('b', lost).fetch, [])
  world.now = 1300
  assert.equal(ask('b', lost).fetch, [[1, count]])
})

test('what was just fetched is not lost: it is on its way from one to the next', () => {
  const { world, ask, have } = tableOf()
  const { epoch } = ask('a')
  ask('b')
  have('a', [[0, 10]], [[10, count]], epoch)
  assert.equal(ask('b', { why: 'lost', want: [[0, 10]] }).fetch, [])
  world.now = 6000
  have('a', [], [[10, count]], epoch)
  assert.equal(ask('b', { why: 'lost', want: [[0, 10]] }).fetch, [[0, 10]])
})

test('of two who fetch the same, one is told to leave it', () => {
  const { have, last } = tableOf()
  have('a', [], [[0, 60]], 1)
  have('b', [], [[40, count]], 2)
  assert.equal(last('a').fetch, [[0, 40]])
  assert.ok(last('a').epoch > 2)
  assert.equal(last('b').fetch, [[40, count]])
})

test('what one has said before it heard of its lease counts for nothing', () => {
  const { ask, have } = tableOf()
  ask('a')
  have('a', [], [], 0)
  assert.equal(ask('b', { why: 'lost', want: all }).fetch, [])
})

/** Lets time go by while two fetch so many chunks a second. */
function run(
  { world, have }: ReturnType<typeof tableOf>,
  rates: Record<string, number>,
  ms: number,
  epochs: Record<string, number>,
  left: Record<string, [number, number]>,
): void {
  for (let past = 0; past < ms; past += 100) {
    world.now += 100
    for (const [member, rate] of Object.entries(rates)) {
      const [start, end] = left[member]!
      const next = Math.min(start + rate / 10, end)
      left[member] = [next, end]
      const [before, after] = [Math.floor(start), Math.floor(next)]
      have(member, after > before ? [[before, after]] : [], [[after, end]], epochs[member]!)
    }
  }
}

test('a second one gets the upper half, and gives it back if all are no faster', () => {
  const world = tableOf()
  const { ask, last } = world
  const first = ask('a')
  ask('b')
  const left: Record<string, [number, number]> = { a: [0, count] }
  run(world, { a: 5 }, 2000, { a: first.epoch }, left)
  const second = ask('b', { why: 'starving', want: [[10, count]] })
  assert.equal(second.fetch, [[55, count]])
  assert.equal(last('a').fetch, [[10, 55]])
  left['a'] = [10, 55]
  left['b'] = [55, count]
  run(world, { a: 2.5, b: 2.5 }, 2500, { a: second.epoch, b: second.epoch }, left)
  assert.equal(last('b').fetch, [])
  assert.is(last('a').fetch.at(-1)?.[1], count)
})

test('a second one that is much faster gets all', () => {
  const world = tableOf()
  const { ask, last } = world
  const first = ask('a')
  ask('b')
  const left: Record<string, [number, number]> = { a: [0, count] }
  run(world, { a: 2 }, 2000, { a: first.epoch }, left)
  const second = ask('b', { why: 'starving', want: [[4, count]] })
  const [[half = 0] = []] = second.fetch
  left['a'] = [4, half]
  left['b'] = [half, count]
  run(world, { a: 1, b: 20 }, 1500, { a: second.epoch, b: second.epoch }, left)
  assert.equal(last('a').fetch, [])
  assert.ok(last('b').fetch.length === 2, 'what was left of both halves')
})

test('few chunks are shared as well, if they would take long', () => {
  const world = tableOf()
  const { ask, have, last } = world
  const { epoch } = ask('a')
  ask('b')
  have('a', [[0, 88]], [[88, count]], epoch)
  run(world, { a: 1 }, 2000, { a: epoch }, { a: [88, count] })
  assert.equal(ask('b', { why: 'starving', want: [[88, count]] }).fetch, [[94, count]])
  assert.equal(last('a').fetch, [[89, 94]])
})

test('a large office is told of some only, and all find each other', () => {
  const { ask } = tableOf()
  const links = new Map<string, Set<string>>()
  for (let i = 0; i < 200; i++) {
    const { members } = ask(`m${i}`)
    assert.ok(members.length <= tuning.mates)
    links.set(`m${i}`, new Set(members))
    for (const member of members) links.get(member)!.add(`m${i}`)
  }
  const reached = new Set(['m0'])
  for (const member of reached) for (const other of links.get(member)!) reached.add(other)
  assert.is(reached.size, 200)
  for (const [member, others] of links) assert.ok(others.size <= 2 * tuning.mates, `${member} knows ${others.size}`)
})

test('a blob that nobody takes part in any more is forgotten', () => {
  const { table, ask } = tableOf()
  ask('a')
  ask('b')
  table.leave('a', digest)
  assert.is(table.size, 1)
  table.left('b')
  assert.is(table.size, 0)
})

test.run()
