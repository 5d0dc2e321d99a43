import { RangeSet } from '@shoal/oci/range-set'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Ledger } from './ledger.ts'
import type { Giver } from './source.ts'

const giver = (kind: Giver['kind'], label: string): Giver => ({ kind, label, wrong: () => {} })
const [hub, ada, eve] = [giver('upstream', 'hub'), giver('peer', 'ada'), giver('peer', 'eve')]

test('what peers gave is there, and cannot be read; what lies behind it can', () => {
  const ledger = new Ledger()
  ledger.add({ start: 0, end: 10 }, hub)
  ledger.add({ start: 10, end: 20 }, ada)
  ledger.add({ start: 20, end: 30 }, hub)
  assert.equal(ledger.have.toJSON(), [[0, 30]])
  assert.equal(
    [0, 5, 10, 15, 20, 30].map(position => ledger.readable(position)),
    [10, 10, 10, 15, 30, 30],
  )
})

test('what was there from before is nobody’s, and as unproven as it was', () => {
  const ledger = new Ledger(new RangeSet([{ start: 0, end: 10 }]), new RangeSet([{ start: 5, end: 10 }]))
  ledger.add({ start: 10, end: 12 })
  assert.equal([...ledger.givers], [])
  assert.is(ledger.readable(0), 5)
  assert.is(ledger.readable(10), 12)
})

test('it knows who gave what', () => {
  const ledger = new Ledger()
  ledger.add({ start: 0, end: 10 }, eve)
  ledger.add({ start: 30, end: 40 }, ada)
  ledger.add({ start: 10, end: 30 }, eve)
  assert.equal(
    [...ledger.givers].map(([{ label }, ranges]) => [label, ranges.toJSON()]),
    [
      ['eve', [[0, 30]]],
      ['ada', [[30, 40]]],
    ],
  )
})

test('a part of it knows nothing of the rest', () => {
  const ledger = new Ledger()
  ledger.add({ start: 0, end: 10 }, hub)
  ledger.add({ start: 10, end: 20 }, eve)
  ledger.add({ start: 20, end: 30 }, ada)
  const part = ledger.until(15)
  assert.equal(
    [part.have, part.unproven].map(ranges => ranges.toJSON()),
    [[[0, 15]], [[10, 15]]],
  )
  assert.equal([...part.givers.keys()], [hub, eve])
  assert.is(ledger.have.total, 30)
})

test.run()
