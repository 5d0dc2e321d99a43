import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { median } from './program.ts'
import { startRelay } from './relay.ts'
import { meets, startShoal } from './shoal.ts'

const crowdProcess = fileURLToPath(new URL('../../test/swarm/crowd-process.ts', import.meta.url))
const peers = 20
/** Nobody asks for anything. */
const endpoints = ['http://127.0.0.1:1']
const seconds = 60
/** Of IPv4 and TCP with timestamps, and of the acknowledgement that answers a piece. */
const headers = 2 * 52

/** What a daemon costs that has nothing to do: alone, and with twenty peers; and what two of them say to each other. */
export async function idle(folder: string, runs: number): Promise<void> {
  const alone: number[] = []
  const crowded: number[] = []
  const memory = { alone: [] as number[], crowded: [] as number[] }
  const traffic: number[] = []
  for (let run = 0; run < runs; run++) {
    const own = join(folder, String(run))
    await mkdir(own)
    const daemon = await startShoal(own, { endpoints, bootstrap: [], name: 'daemon' })
    await using _daemon = daemon.program
    await sleep(5000)
    const usage = async () => {
      const before = await daemon.program.cpuSeconds()
      await sleep(seconds * 1000)
      return ((await daemon.program.cpuSeconds()) - before) / seconds
    }
    alone.push(await usage())
    memory.alone.push((await daemon.program.memory()).now / 1e6)
    await using relay = await startRelay(Number(daemon.swarm.split(':').at(-1)))
    const other = await startShoal(own, { endpoints, bootstrap: [`127.0.0.1:${relay.port}`], name: 'other' })
    await using _other = other.program
    await meets(daemon, 1)
    await sleep(5000)
    const { bytes, pieces } = relay
    await sleep(seconds * 1000)
    traffic.push((relay.bytes - bytes + (relay.pieces - pieces) * headers) / seconds)
    await other.program[Symbol.asyncDispose]()
    const crowd = spawn(process.execPath, [crowdProcess, String(peers), String(peers), '500', daemon.swarm], {
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    await meets(daemon, peers, peers * 500)
    await sleep(10_000)
    crowded.push(await usage())
    memory.crowded.push((await daemon.program.memory()).now / 1e6)
    crowd.stdin.end()
    await once(crowd, 'exit')
  }
  const percent = (values: readonly number[]) => `${(median(values) * 100).toFixed(2)} % of a core`
  console.log(`\na daemon with nothing to do, over ${seconds} s, median of ${runs}`)
  console.log(`  alone                            ${percent(alone)}, ${median(memory.alone).toFixed(0)} MB resident`)
  console.log(
    `  with ${peers} peers of 500 blobs       ${percent(crowded)}, ${median(memory.crowded).toFixed(0)} MB resident`,
  )
  console.log(`  two of them say to each other    ${median(traffic).toFixed(0)} bytes/s, TCP's headers included`)
}
