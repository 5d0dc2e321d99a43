import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Inventory } from './inventory.ts'
import { type Victim, Victims, type VictimsOptions } from './victims.ts'

const now = Date.UTC(2026, 0, 1)

/** Blobs, and how often they were pulled by themselves; all were just used. */
class World {
  readonly inventory = new Inventory()
  readonly pulls = new Map<string, number>()
  readonly copies = new Map<string, number>()
  readonly staying = new Set<string>()
  random: () => number = Math.random

  blob(id: string, { size = 1000, pulls = 0, copies = 1 } = {}): string {
    this.inventory.add(id, size, undefined, now)
    this.pulls.set(id, pulls)
    this.copies.set(id, copies)
    return id
  }

  manifest(id: string, parts: readonly string[], { pulls = 0 } = {}): string {
    this.inventory.add(id, 100, { ids: parts, needs: 'all' }, now)
    this.pulls.set(id, pulls)
    return id
  }

  index(id: string, parts: readonly string[], { pulls = 0 } = {}): string {
    this.inventory.add(id, 100, { ids: parts, needs: 'any' }, now)
    this.pulls.set(id, pulls)
    return id
  }

  choose(options: Partial<VictimsOptions> = {}): Victims {
    return new Victims({
      inventory: this.inventory,
      demandOf: id => ({ own: this.pulls.get(id) ?? 0, office: this.pulls.get(id) ?? 0 }),
      copiesOf: id => this.copies.get(id) ?? 1,
      stays: id => this.staying.has(id),
      random: () => this.random(),
      now,
      ...options,
    })
  }
}

/** All that may go, in order, as groups. */
function allOf(victims: Victims): (readonly Victim[])[] {
  const groups: (readonly Victim[])[] = []
  for (let group: readonly Victim[] | undefined; (group = victims.next()); ) if (group.length > 0) groups.push(group)
  return groups
}

const idsOf = (groups: readonly (readonly Victim[])[]) => groups.map(group => group.map(({ id }) => id).join(' '))

test('what is pulled least goes first, and of what is pulled alike the larger', () => {
  const world = new World()
  world.blob('often', { pulls: 9 })
  world.blob('seldom', { pulls: 1 })
  world.blob('large', { pulls: 1, size: 5000 })
  assert.equal(idsOf(allOf(world.choose())), ['large', 'seldom', 'often'])
})

test('what was not used for long goes before what was', () => {
  const world = new World()
  for (const id of ['old', 'new']) world.blob(id, { pulls: 1 })
  world.inventory.add('old', 1000, undefined, now - 3 * 24 * 3600 * 1000)
  assert.equal(idsOf(allOf(world.choose())), ['old', 'new'])
})

test('what others hold, too, goes before what is the only copy', () => {
  const world = new World()
  world.blob('copied', { pulls: 5, copies: 3 })
  world.blob('only', { pulls: 2 })
  assert.equal(idsOf(allOf(world.choose())), ['copied', 'only'])
})

test('an image goes as a whole, its manifests first, and then its topmost layers', () => {
  const world = new World()
  const layers = [world.blob('base', { size: 10 }), world.blob('top', { size: 5000 })]
  world.index('index', [world.manifest('manifest', [world.blob('config', { size: 10 }), ...layers])], { pulls: 1 })
  const groups = allOf(world.choose())
  assert.equal(idsOf(groups), ['index manifest', 'top', 'base', 'config'])
  assert.equal(
    groups.flat().map(({ because }) => because),
    ['incomplete', 'least', 'alone', 'alone', 'alone'],
  )
})

test('a layer is wanted as much as all images together that need it', () => {
  const world = new World()
  const base = world.blob('base', { size: 5000 })
  for (const [name, pulls] of [
    ['one', 1],
    ['two', 2],
  ] as const)
    world.manifest(name, [base, world.blob(`top of ${name}`, { size: 4000 })], { pulls })
  assert.equal(idsOf(allOf(world.choose())), ['one', 'top of one', 'two', 'top of two', 'base'])
})

test('an index stays as long as one of its images does', () => {
  const world = new World()
  const arm = world.manifest('arm', [world.blob('arm layer')])
  const amd = world.manifest('amd', [world.blob('amd layer')], { pulls: 5 })
  world.index('index', [arm, amd, 'not held'], { pulls: 9 })
  assert.equal(idsOf(allOf(world.choose())), ['arm', 'arm layer', 'index amd', 'amd layer'])
})

test('what must stay stays, with all that it is made of', () => {
  const world = new World()
  world.manifest('pinned', [world.blob('layer', { size: 5000 })])
  world.blob('other', { pulls: 9 })
  world.staying.add('pinned')
  assert.equal(idsOf(allOf(world.choose())), ['other'])
})

test('only what is worth less goes, if that is asked for', () => {
  const world = new World()
  for (const pulls of [1, 2, 3]) world.blob(String(pulls), { pulls })
  const worth = world.choose().worthOf(world.inventory.get('2')!)
  assert.equal(idsOf(allOf(world.choose({ below: worth }))), ['1'])
})

test('something that is named goes with what needs it, or not at all', () => {
  const world = new World()
  const layer = world.blob('layer')
  world.manifest('manifest', [layer])
  const victims = world.choose()
  const item = world.inventory.get(layer)!
  assert.equal(
    victims.take(item)?.map(({ id }) => id),
    ['manifest', 'layer'],
  )
  assert.is(victims.take(item), undefined, 'it has gone')
  world.staying.add('manifest')
  assert.is(world.choose().take(item), undefined)
})

test('among many that must stay, the one that may go is found', () => {
  const world = new World()
  for (let i = 0; i < 5000; i++) world.staying.add(world.blob(`pinned-${i}`))
  world.blob('other')
  assert.equal(idsOf(allOf(world.choose())), ['other'])
})

test('of many, nearly what is worth least goes first', () => {
  const world = new World()
  for (let i = 0; i < 2000; i++) world.blob(String(i), { pulls: i })
  const victims = world.choose()
  const first = Array.from({ length: 50 }, () => Number(victims.next()?.[0]?.id))
  assert.ok(
    first.every(pulls => pulls < 400),
    `${first}`,
  )
})

test('whatever is held, no manifest is left without what it needs, and nothing goes twice', () => {
  const layers = ['a', 'b', 'c', 'd', 'e', 'f']
  const manifest = fc.record({ parts: fc.uniqueArray(fc.constantFrom(...layers), { minLength: 1 }), pulls: fc.nat(5) })
  const world = fc.record({
    manifests: fc.array(manifest, { maxLength: 5 }),
    indexes: fc.array(fc.uniqueArray(fc.nat(4), { minLength: 1 }), { maxLength: 3 }),
    sizes: fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 6, maxLength: 6 }),
    staying: fc.uniqueArray(fc.constantFrom(...layers, 'm0', 'm1', 'i0'), { maxLength: 2 }),
  })
  fc.assert(
    fc.property(world, fc.nat(20), ({ manifests, indexes, sizes, staying }, most) => {
      const world = new World()
      for (const [i, id] of layers.entries()) world.blob(id, { size: sizes[i]! })
      for (const [i, { parts, pulls }] of manifests.entries()) world.manifest(`m${i}`, parts, { pulls })
      for (const [i, parts] of indexes.entries())
        world.index(
          `i${i}`,
          parts.map(part => `m${part}`),
        )
      for (const id of staying) world.staying.add(id)
      const groups = allOf(world.choose()).slice(0, most)
      const gone = groups.flat().map(({ id }) => id)
      assert.is(new Set(gone).size, gone.length)
      assert.not(gone.some(id => world.staying.has(id)))
      // Also if it is cut off in the middle of a group.
      for (let cut = 0; cut <= gone.length; cut++) {
        const left = new Set(gone.slice(0, cut))
        for (const { id, parts } of world.inventory.items) {
          if (left.has(id) || !parts || !gone.slice(0, cut).some(each => parts.ids.includes(each))) continue
          const isThere = (part: string) => world.inventory.get(part) !== undefined && !left.has(part)
          assert.ok(parts.needs === 'all' ? parts.ids.every(part => !left.has(part)) : parts.ids.some(isThere), id)
        }
      }
    }),
    { numRuns: 300 },
  )
})

test.run()
