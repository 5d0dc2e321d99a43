import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Budget } from './budget.ts'
import { Handout } from './handout.ts'
import { type Mate, newMate } from './mate.ts'
import { tuning } from './tuning.ts'

function mateOf(id: string): Mate {
  return { ...newMate(id, 0, 100), told: true, heard: true, gives: true, counts: true }
}

/** One that hands out to some others, and what it has handed to whom. */
function handoutOf(ids: readonly string[], hands = 12) {
  const world = { now: 0, handed: [] as [string, number][] }
  const mates = new Map(ids.map(id => [id, mateOf(id)]))
  const holders = (chunk: number) => [...mates.values()].filter(({ has }) => has.has(chunk)).length
  const options = { ...tuning, hands }
  const handout = new Handout({
    context: { now: () => world.now, random: () => 0 },
    tuning: options,
    budget: new Budget(options),
    mates,
    holders,
    hand: ({ id }, chunk) => world.handed.push([id, chunk]),
  })
  const learn = (id: string, chunk: number) => {
    mates.get(id)!.has.add(chunk)
    handout.learned(mates.get(id)!, chunk)
  }
  const add = (chunk: number) => {
    handout.add(chunk)
    handout.next()
  }
  return { handout, world, mates, learn, add }
}

test('each chunk is handed to one, and the next to another', () => {
  const { world, add } = handoutOf(['a', 'b', 'c'])
  for (let chunk = 0; chunk < 3; chunk++) add(chunk)
  assert.equal(world.handed.map(([id]) => id).sort(), ['a', 'b', 'c'])
  assert.equal(
    world.handed.map(([, chunk]) => chunk),
    [0, 1, 2],
  )
})

test('no more are on their way at once than may be; one that was given makes room', () => {
  const { handout, world, mates, add } = handoutOf(['a', 'b', 'c'], 2)
  for (let chunk = 0; chunk < 3; chunk++) add(chunk)
  assert.is(world.handed.length, 2)
  assert.ok(handout.busy)
  const [id, chunk] = world.handed[0]!
  handout.given(mates.get(id)!, chunk)
  assert.is(world.handed.length, 3)
  assert.not.ok(handout.busy)
})

test('who takes long to pass on what it was handed gets less', () => {
  const { world, mates, learn, add } = handoutOf(['fast', 'slow'])
  mates.get('fast')!.pace = 100
  mates.get('slow')!.pace = 1000
  for (let chunk = 0; chunk < 22; chunk++) {
    add(chunk)
    const [id] = world.handed.at(-1)!
    if (id === 'fast') world.now += 1
    learn(id, chunk)
  }
  const slow = world.handed.filter(([id]) => id === 'slow').length
  assert.ok(slow >= 1 && slow <= 3, `${slow} of 22`)
})

test('a chunk that is not asked for is handed to another, and so is one that does not spread', () => {
  const { handout, world, mates, learn, add } = handoutOf(['a', 'b', 'c'])
  add(0)
  const [first = ''] = world.handed[0]!
  world.now = 900
  handout.look()
  assert.is(world.handed.length, 1)
  world.now = 1100
  handout.look()
  assert.is(world.handed.length, 2)
  const [second = ''] = world.handed[1]!
  assert.is.not(second, first)
  assert.ok(handout.asked(mates.get(second)!, 0))
  assert.not.ok(handout.asked(mates.get(first)!, 0))
  learn(second, 0)
  world.now = 12_000
  handout.look()
  assert.is(world.handed.length, 3)
  assert.is.not(world.handed[2]![0], second)
})

test('one that says that it has all does not keep a chunk from the others', () => {
  const { world, mates, add } = handoutOf(['liar', 'b', 'c'])
  for (let chunk = 0; chunk < 100; chunk++) mates.get('liar')!.has.add(chunk)
  add(0)
  assert.is.not(world.handed[0]?.[0], 'liar')
})

test('what more than half have is not handed on, nor again when who had it leaves', () => {
  const { handout, world, mates, learn, add } = handoutOf(['a', 'b', 'c'])
  mates.get('a')!.has.add(0)
  mates.get('b')!.has.add(0)
  add(0)
  assert.equal(world.handed, [])
  add(1)
  const [id = ''] = world.handed[0]!
  handout.left(mates.get(id)!)
  mates.delete(id)
  for (const other of mates.keys()) learn(other, 1)
  world.now = 5000
  handout.look()
  assert.is(world.handed.length, 1)
})

test.run()
