import { join } from 'node:path'
import { Internet } from '../internet/internet.ts'
import { median, timed } from './program.ts'
import { type Contender, startDockerRegistry, startFileServer } from './rivals.ts'
import { startShoal } from './shoal.ts'

const bytes = 1024 ** 3

/** A blob of 1 GiB that is held, to one client and to eight at once: bytes a second, and CPU seconds of the server. */
export async function warmBlob(folder: string, runs: number): Promise<void> {
  await using internet = await Internet.open({ big: bytes, folder: join(folder, 'internet') })
  const [layer] = internet.images.image('library/big').layers
  if (!layer || typeof layer.source !== 'string') throw new Error('the big layer is not a file')
  const blob = { path: layer.source, digest: layer.digest }
  await using stack = new AsyncDisposableStack()
  const { program, mirror } = await startShoal(folder, { endpoints: [internet.gcr.url, internet.hub.url] })
  stack.use(program)
  const shoal = { program, url: `${mirror}/v2/library/big/blobs/${layer.digest}` }
  const contenders: Contender[] = [shoal]
  for (const start of [startFileServer, startDockerRegistry]) {
    const contender = await start(folder, blob)
    stack.use(contender.program)
    contenders.push(contender)
  }
  // The first one fetches the blob, and brings every file into the page cache.
  for (const { url } of contenders) await fetchBlob(url, 1)
  for (const clients of [1, 8]) {
    const seconds = new Map<Contender, number[]>(contenders.map(each => [each, []]))
    const cpu = new Map<Contender, number[]>(contenders.map(each => [each, []]))
    for (let run = 0; run < runs; run++)
      for (const each of run % 2 === 0 ? contenders : contenders.toReversed()) {
        const before = await each.program.cpuSeconds()
        seconds.get(each)!.push(await fetchBlob(each.url, clients))
        cpu.get(each)!.push(((await each.program.cpuSeconds()) - before) / ((bytes * clients) / 1e9))
      }
    console.log(`\nwarm blob of 1 GiB, ${clients} ${clients === 1 ? 'client' : 'clients'} (curl), median of ${runs}`)
    const base = median(seconds.get(contenders[1]!)!)
    for (const each of contenders) {
      const time = median(seconds.get(each)!)
      const rate = (bytes * clients) / 1e9 / time
      console.log(
        `  ${each.program.name.padEnd(16)} ${rate.toFixed(2)} GB/s   ${(base / time).toFixed(2)} × nginx   ${median(cpu.get(each)!).toFixed(2)} CPU-s/GB`,
      )
    }
  }
}

/** Seconds until all clients have it. */
async function fetchBlob(url: string, clients: number): Promise<number> {
  return Math.max(
    ...(await Promise.all(Array.from({ length: clients }, () => timed('curl', ['-sSf', '-o', '/dev/null', url])))),
  )
}
