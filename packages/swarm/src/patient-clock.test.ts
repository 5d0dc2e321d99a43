import { mock } from 'node:test'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { PatientClock } from './patient-clock.ts'

test('it goes on as time does, and passes over what the machine has slept through', () => {
  mock.timers.enable({ apis: ['setInterval'] })
  try {
    let now = 1000
    const pass = (ms: number) => {
      now += ms
      mock.timers.tick(ms)
    }
    const clock = new PatientClock(() => now)
    clock.start()
    const begin = clock.now
    for (let i = 0; i < 10; i++) pass(50)
    assert.is(clock.now - begin, 500)
    pass(30)
    assert.is(clock.now - begin, 530)
    now += 3_600_000
    assert.is(clock.now - begin, 600)
    pass(50)
    pass(50)
    assert.is(clock.now - begin, 650)
    clock.stop()
    now += 5000
    assert.is(clock.now - begin, 650)
  } finally {
    mock.timers.reset()
  }
})

test.run()
