import { type CrowdTimes, gather } from '../../test/swarm/crowd.ts'
import { median } from './program.ts'

/** Fifty peers that know one of them, in two processes: until all are connected, and until all know what all have. */
export async function crowd(_folder: string, runs: number): Promise<void> {
  const [peers, processes, blobs] = [50, 2, 100]
  const measured: CrowdTimes[] = []
  for (let run = 0; run < runs; run++) measured.push(await gather(peers, processes, blobs, 120_000))
  const seconds = (key: 'connected' | 'converged') => (median(measured.map(each => each[key])) / 1000).toFixed(1)
  console.log(`\n${peers} peers of ${blobs} blobs in ${processes} processes, median of ${runs}`)
  console.log(
    `  all connected to all after ${seconds('connected')} s, all know what all have after ${seconds('converged')} s`,
  )
  console.log(`  memory: ${median(measured.map(({ rss }) => rss)) / peers} MB a peer`)
}
