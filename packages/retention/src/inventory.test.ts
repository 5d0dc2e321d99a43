import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Inventory } from './inventory.ts'

test('it knows what is held, and what needs it, whatever came and went', () => {
  const id = fc.integer({ min: 0, max: 9 }).map(String)
  const add = fc.record({ id, size: fc.integer({ min: 0, max: 100 }), parts: fc.option(fc.uniqueArray(id)) })
  fc.assert(
    fc.property(fc.array(fc.oneof(add, id)), steps => {
      const inventory = new Inventory()
      const held = new Map<string, { size: number; parts: readonly string[] }>()
      for (const step of steps) {
        if (typeof step === 'string') {
          inventory.remove(step)
          held.delete(step)
        } else {
          const { id, size, parts } = step
          inventory.add(id, size, parts ? { ids: parts, needs: 'all' } : undefined, 0)
          held.set(id, { size, parts: parts ?? [] })
        }
      }
      assert.equal(inventory.items.map(({ id }) => id).sort(), [...held.keys()].sort())
      assert.ok(inventory.items.every((item, i) => item.place === i))
      assert.is(
        inventory.bytes,
        [...held.values()].reduce((sum, { size }) => sum + size, 0),
      )
      for (let part = 0; part < 10; part++) {
        const parents = [...held].filter(([, { parts }]) => parts.includes(String(part))).map(([id]) => id)
        assert.equal([...inventory.parentsOf(String(part))].map(({ id }) => id).sort(), parents.sort())
      }
    }),
  )
})

test.run()
