import { readFile, writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Cell, cells } from './matrix/cell.ts'
import { faultCases } from './matrix/fault-case.ts'
import { Tally } from './matrix/tally.ts'
import { Trap } from './matrix/trap.ts'
import { tryCell } from './matrix/trial.ts'

/**
 * Every fault at every place in every phase of a pull: docs/faults.md. With words as arguments only the cells whose names
 * have them all; with `--write` the table there is renewed.
 */
const { values, positionals } = parseArgs({ options: { write: { type: 'boolean' } }, allowPositionals: true })

/**
 * Cells at once. Those that wait come first, and by themselves: where others keep the processor busy, timers are late, and
 * what is measured is the machine.
 */
const lanes = { waiting: 24, busy: 4 }

const chosen = cells.filter(({ name }) => positionals.every(word => name.includes(word)))
const trap = await Trap.open()
const tally = new Tally()
const failures = new Map<Cell, string>()
const trials = new Map(chosen.map(cell => [cell, Promise.withResolvers<void>()]))
let running: Promise<void> | undefined

async function runAll(): Promise<void> {
  const waiting = chosen.filter(({ faultCase }) => faultCase.waits)
  const busy = chosen.filter(({ faultCase }) => !faultCase.waits)
  await Promise.all(Array.from({ length: lanes.waiting }, () => runLane(waiting)))
  await Promise.all(Array.from({ length: lanes.busy }, () => runLane(busy)))
}

async function runLane(queue: Cell[]): Promise<void> {
  for (let cell: Cell | undefined; (cell = queue.shift()); ) {
    try {
      tally.add({ cell, ...(await tryCell(cell, trap.host)) })
    } catch (error) {
      tally.add({ cell, outcome: undefined, ms: 0 })
      failures.set(cell, error instanceof Error ? error.message : String(error))
    }
    trials.get(cell)?.resolve()
  }
}

for (const faultCase of faultCases) {
  const own = chosen.filter(cell => cell.faultCase === faultCase)
  if (own.length === 0) continue
  test(`${faultCase.name}: right bytes or a clean error, in time, and nothing wrong is kept`, async () => {
    running ??= runAll()
    await Promise.all(own.map(cell => trials.get(cell)?.promise))
    const failed = own.filter(cell => failures.has(cell)).map(cell => `${cell.name}: ${failures.get(cell)}`)
    assert.equal(failed, [])
  })
}

test('nobody was sent to an address that is refused', async () => {
  await running
  await trap[Symbol.asyncDispose]()
  assert.is(trap.caught, 0)
})

test('the matrix is counted', async () => {
  console.log(`\nmeasured: ${tally.line}`)
  if (values.write) {
    const path = new URL('../../docs/faults.md', import.meta.url)
    const page = await readFile(path, 'utf8')
    await writeFile(path, page.replace(/\| fault \|[\s\S]*\n/, `${tally.table}\n\n${tally.line}.\n`))
  } else if (positionals.length === 0) console.log(tally.table)
})

test.run()
