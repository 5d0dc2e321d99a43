import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { median, timed } from './program.ts'
import { startShoal } from './shoal.ts'
import { randomLayer, startUpstream } from './upstream.ts'

const clients = 8
const repository = 'library/big'

/** Memory of a daemon that has nothing to do, and of one from which eight clients pull 1 GiB at once, cold and then warm. */
export async function memory(folder: string, runs: number): Promise<void> {
  const layer = await randomLayer(join(folder, 'blob'), 1024 ** 3)
  const { program: nginx, http } = await startUpstream(folder, repository, [layer])
  await using _nginx = nginx
  const idle: number[] = []
  const cold: number[] = []
  const warm: number[] = []
  for (let run = 0; run < runs; run++) {
    const { program, mirror } = await startShoal(folder, { endpoints: [http] })
    await using _program = program
    await sleep(2000)
    idle.push((await program.memory()).now)
    const args = ['-sSf', '-o', '/dev/null', `${mirror}/v2/${repository}/blobs/${layer.digest}`]
    for (const peaks of [cold, warm]) {
      await Promise.all(Array.from({ length: clients }, () => timed('curl', args)))
      peaks.push((await program.memory()).peak)
    }
    await program[Symbol.asyncDispose]()
    await rm(join(folder, 'shoal'), { recursive: true })
  }
  const megabytes = (values: readonly number[]) => `${(median(values) / 1e6).toFixed(0)} MB`
  console.log(`\nresident memory of the daemon, median of ${runs}`)
  console.log(`  idle, 2 s after its start                            ${megabytes(idle)}`)
  console.log(`  highest while ${clients} clients pull 1 GiB at once, cold      ${megabytes(cold)}`)
  console.log(`  highest when they have pulled it once more, warm     ${megabytes(warm)}`)
}
