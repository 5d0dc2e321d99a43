import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('crowd-process.ts', import.meta.url))

/** What a crowd took: until everybody was connected to everybody, until all knew what all have, in ms; memory in MB. */
export type CrowdTimes = { readonly connected: number; readonly converged: number; readonly rss: number }

type Line = {
  address?: string
  connected?: true
  converged?: true
  waiting?: true
  least?: number
  ms?: number
  rss?: number
}

/**
 * Has so many peers find each other, from the address of one, in a few processes on loopback.
 * @param blobs that each of them has
 * @param patience in ms
 */
export async function gather(peers: number, processes: number, blobs: number, patience: number): Promise<CrowdTimes> {
  const children: ChildProcess[] = []
  const lines: Line[][] = []
  const begin = performance.now()
  const start = (count: number, bootstrap?: string) => {
    const args = [program, String(count), String(peers), String(blobs), ...(bootstrap === undefined ? [] : [bootstrap])]
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const told: Line[] = []
    createInterface({ input: child.stdout }).on('line', line => void told.push(JSON.parse(line) as Line))
    children.push(child)
    lines.push(told)
    return told
  }
  const until = async (what: string, look: () => boolean) => {
    while (!look()) {
      if (performance.now() - begin > patience || children.some(({ exitCode }) => exitCode !== null))
        throw new Error(`${what}: ${JSON.stringify(lines.map(told => told.at(-1)))}`)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    return performance.now() - begin
  }
  try {
    const counts = Array.from({ length: processes }, (_, index) => Math.floor((peers + index) / processes))
    const first = start(counts[0] ?? 0)
    await until('the first peer does not start', () => first[0]?.address !== undefined)
    for (const count of counts.slice(1)) start(count, first[0]?.address)
    await until('not all have started', () => lines.every(told => told.length > 0))
    const all = (key: 'connected' | 'converged') => () => lines.every(told => told.some(line => line[key]))
    const connected = await until('not all are connected', all('connected'))
    const converged = await until('not all know what all have', all('converged'))
    const rss = lines.reduce((sum, told) => sum + (told.find(line => line.converged)?.rss ?? 0), 0)
    return { connected, converged, rss }
  } finally {
    for (const child of children) {
      child.stdin?.end()
      if (child.exitCode === null)
        await Promise.race([once(child, 'exit'), new Promise(resolve => setTimeout(resolve, 2000))])
      child.kill('SIGKILL')
    }
  }
}
