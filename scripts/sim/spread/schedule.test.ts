import assert from 'node:assert/strict'
import { test } from 'uvu'
import { fateOf } from './schedule.ts'

/** Schedules that are played, thousands in CI; `npm run sim:spread -- --schedule SEED` tells the story of one. */
const schedules = process.env['CI'] ? 2400 : 400

test('whatever happens, everybody ends with what is right, no two fetch the same at length, and only liars are blamed', () => {
  for (let seed = 1; seed <= schedules; seed++) {
    const { faults, story } = fateOf(seed)
    assert.deepEqual(faults, [], `seed ${seed}\n${story.join('\n')}`)
  }
})

test.run()
