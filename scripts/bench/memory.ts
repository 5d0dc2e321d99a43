import { setTimeout as sleep } from 'node:timers/promises'
import { Internet } from '../internet/internet.ts'
import { median, timed } from './program.ts'
import { startShoal } from './shoal.ts'

const megabyte = 1_000_000
const clients = 6

/** Memory of a daemon that has nothing to do, and of one from which six clients pull an image of 335 MB at once, cold. */
export async function memory(folder: string, runs: number): Promise<void> {
  const idle: number[] = []
  const peaks: number[] = []
  await using internet = await Internet.open()
  const sizes = [120, 80, 60, 40, 25, 10].map(each => each * megabyte)
  const { layers } = await internet.add({ repository: 'library/memory', tag: 'latest', layers: sizes })
  internet.gcr.repositories.add('library/memory')
  for (let run = 0; run < runs; run++) {
    const { program, mirror } = await startShoal(`${folder}`, internet)
    await using _program = program
    await sleep(2000)
    idle.push((await program.memory()).now)
    const urls = layers.map(({ digest }) => `${mirror}/v2/library/memory/blobs/${digest}`)
    const args = [
      '-sSf',
      '--no-progress-meter',
      '--parallel',
      '--parallel-immediate',
      ...urls.flatMap(url => ['-o', '/dev/null', url]),
    ]
    await timed('curl', ['-sSf', '-o', '/dev/null', `${mirror}/v2/library/memory/manifests/latest`])
    await Promise.all(Array.from({ length: clients }, () => timed('curl', args)))
    peaks.push((await program.memory()).peak)
    await program[Symbol.asyncDispose]()
    await timed('rm', ['-rf', `${folder}/shoal`])
  }
  console.log(`\nresident memory of the daemon, median of ${runs}`)
  console.log(`  idle, 2 s after its start                        ${(median(idle) / 1e6).toFixed(0)} MB`)
  console.log(`  highest while ${clients} clients pull 335 MB at once, cold  ${(median(peaks) / 1e6).toFixed(0)} MB`)
}
