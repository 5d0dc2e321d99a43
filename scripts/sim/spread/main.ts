import { parseArgs } from 'node:util'
import { type Tuning, tuning } from '@shoal/swarm/spread/tuning'
import { growth } from './growth.ts'
import { medianOf, type Outcome, play } from './scenario.ts'
import { scenarios } from './scenarios.ts'
import { fateOf } from './schedule.ts'

/**
 * `npm run sim:spread -- [--seeds N] [--only TEXT] [--tune NAME=NUMBER …]`: how long it takes until a blob is everywhere, over
 * the ideal time. `--growth`: how that grows with the number of machines; writes docs/performance-growth.svg.
 * `--schedule SEED`: the story of one of the random schedules that are tested.
 */
const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '5' },
    only: { type: 'string', default: '' },
    tune: { type: 'string', multiple: true, default: [] },
    growth: { type: 'boolean', default: false },
    schedule: { type: 'string' },
  },
})

const columns: readonly (readonly [keyof Outcome, string, number])[] = [
  ['slowest', 'slowest', 2],
  ['median', 'median', 2],
  ['evenness', 'p99/p50', 2],
  ['upstream', 'upstream', 3],
  ['messages', 'messages', 0],
  ['requests', 'requests', 0],
  ['busiest', 'busiest', 2],
]

if (values.schedule !== undefined) {
  const { faults, story } = fateOf(Number(values.schedule))
  console.log(story.join('\n'))
  console.log(faults.length > 0 ? `faults: ${faults.join('; ')}` : 'all went well')
} else if (values.growth) await growth()
else table()

function table(): void {
  const tuned: Tuning = { ...tuning, ...Object.fromEntries(values.tune.map(each => readTuning(each))) }
  console.log('times of the ideal, of the image, messages and requests a machine, part of the busiest processor')
  console.log(columns.map(([, name]) => name.padStart(9)).join(''))
  for (const scenario of scenarios) {
    if (!scenario.name.includes(values.only)) continue
    const outcomes = Array.from({ length: Number(values.seeds) }, (_, i) => play(scenario, i + 1, tuned))
    const cells = columns.map(([key, , digits]) =>
      medianOf(outcomes.map(each => each[key]))
        .toFixed(digits)
        .padStart(9),
    )
    console.log(`${cells.join('')}  ${scenario.name}`)
  }
}

function readTuning(text: string): [string, number] {
  const [name = '', value] = text.split('=')
  if (!(name in tuning))
    throw new Error(`nothing to tune is called "${name}": there are ${Object.keys(tuning).join(', ')}`)
  return [name, Number(value)]
}
