import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { gather } from './crowd.ts'

test('fifty peers that know one of them all find each other, and know what each of them has', async () => {
  const { connected, converged } = await gather(50, 2, 20, 120_000)
  assert.ok(connected <= converged)
  console.log(
    `  measured: all connected after ${(connected / 1000).toFixed(1)} s, all known after ${(converged / 1000).toFixed(1)} s`,
  )
})

test.run()
