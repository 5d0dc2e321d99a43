import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { median, type Program, timed } from './program.ts'
import { startProxy } from './rivals.ts'
import { startShoal } from './shoal.ts'
import { randomLayer, startUpstream } from './upstream.ts'

const bytes = 1024 ** 3
const repository = 'library/big'

type Measured = { readonly seconds: number; readonly cpu?: number }

/**
 * A blob of 1 GiB that is not held, pulled from nginx through the daemon and through docker-registry as a proxy, beside
 * curl that downloads it to a file: seconds, and CPU seconds of the server in between.
 */
export async function coldBlob(folder: string, runs: number): Promise<void> {
  const layer = await randomLayer(join(folder, 'blob'), bytes)
  const { program: nginx, ca, ...urls } = await startUpstream(folder, repository, [layer])
  await using _nginx = nginx
  const path = `/v2/${repository}/blobs/${layer.digest}`
  const through = async (program: Program, mirror: string, data: string): Promise<Measured> => {
    await using _program = program
    const before = await program.cpuSeconds()
    const seconds = await timed('curl', ['-sSf', '-o', '/dev/null', `${mirror}${path}`])
    const cpu = (await program.cpuSeconds()) - before
    await program[Symbol.asyncDispose]()
    await rm(join(folder, data), { recursive: true })
    return { seconds, cpu }
  }
  for (const scheme of ['http', 'https'] as const) {
    const url = urls[scheme]
    const contenders: Record<string, () => Promise<Measured>> = {
      async 'curl -o'() {
        const file = join(folder, 'direct')
        const seconds = await timed('curl', ['-sSf', '--cacert', ca, '-o', file, `${url}${path}`])
        await rm(file)
        return { seconds }
      },
      async shoal() {
        const { program, mirror } = await startShoal(folder, { endpoints: [url], ca })
        return through(program, mirror, 'shoal')
      },
      async 'docker-registry'() {
        const { program, mirror } = await startProxy(folder, url, ca)
        return through(program, mirror, 'proxy')
      },
    }
    const names = Object.keys(contenders)
    const measured = new Map<string, Measured[]>(names.map(name => [name, []]))
    for (let run = 0; run < runs; run++)
      for (const name of run % 2 === 0 ? names : names.toReversed()) measured.get(name)!.push(await contenders[name]!())
    console.log(`\ncold blob of 1 GiB, ${scheme} upstream, median of ${runs}`)
    const secondsOf = (name: string) => median(measured.get(name)!.map(({ seconds }) => seconds))
    for (const name of names) {
      const cpu = median(measured.get(name)!.map(({ cpu = 0 }) => cpu)) / (bytes / 1e9)
      const ratio = secondsOf(name) / secondsOf('curl -o')
      console.log(
        `  ${name.padEnd(16)} ${secondsOf(name).toFixed(2)} s   ${ratio.toFixed(2)} × curl -o${cpu > 0 ? `   ${cpu.toFixed(2)} CPU-s/GB` : ''}`,
      )
    }
  }
}
