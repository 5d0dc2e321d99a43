import { execFile } from 'node:child_process'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startNginx } from './nginx.ts'
import { freePort, median } from './program.ts'
import { startRelay } from './relay.ts'
import { meets, type RunningShoal, startShoal } from './shoal.ts'
import { randomLayer, startUpstream } from './upstream.ts'

const size = 200_000_000
/** Of the line, in bytes/s. */
const line = 50_000_000
/** To upstream and back, in ms. */
const roundTrip = 30
const repository = 'library/big'

type Measured = { readonly seconds: number; readonly firstByte: number }

/**
 * A blob of 200 MB over a line of 400 Mbit/s and 30 ms to upstream, with peers about: who don't have it, or have it and are
 * fast, slow or hung; beside the daemon alone.
 */
export async function peersAbout(folder: string, runs: number): Promise<void> {
  const layer = await randomLayer(join(folder, 'blob'), size)
  const { program: nginx, http } = await startUpstream(folder, repository, [layer])
  await using _nginx = nginx
  const port = await freePort()
  const root = join(folder, 'line')
  await mkdir(root)
  const server = `server { listen 127.0.0.1:${port}; location / { proxy_pass ${http}; proxy_buffering on;
    proxy_max_temp_file_size 0; limit_rate ${line}; } }`
  await using _line = await startNginx('line', root, server, `http://127.0.0.1:${port}/v2/`)
  await using relay = await startRelay(port, roundTrip / 2)
  const endpoints = [`http://127.0.0.1:${relay.port}`]
  const blob = `/v2/${repository}/blobs/${layer.digest}`
  const fetch = async (mirror: string, path: string) => {
    const format = '{"seconds":%{time_total},"firstByte":%{time_starttransfer}}'
    const { stdout } = await promisify(execFile)('curl', ['-sSf', '-o', '/dev/null', '-w', format, `${mirror}${path}`])
    return JSON.parse(stdout) as Measured
  }
  const peer = async (name: string, env: Record<string, string> = {}): Promise<RunningShoal> => {
    const started = await startShoal(folder, { endpoints: [http], name, bootstrap: [], env })
    await fetch(started.mirror, `/v2/${repository}/manifests/latest`)
    return started
  }
  await using stack = new AsyncDisposableStack()
  const lacking = await peer('lacking')
  const fast = await peer('fast')
  const slow = await peer('slow', { SHOAL_SWARM_MAX_UPLOAD_RATE: '5MB/s' })
  const hung = await peer('hung')
  for (const { program } of [lacking, fast, slow, hung]) stack.use(program)
  for (const { mirror } of [fast, slow, hung]) await fetch(mirror, blob)

  const through = async (peers: readonly RunningShoal[], before = () => {}): Promise<Measured> => {
    const bootstrap = peers.map(({ swarm }) => swarm)
    const getter = await startShoal(folder, {
      endpoints,
      name: 'getter',
      ...(peers.length > 0 && { bootstrap }),
    })
    await using _getter = getter.program
    await meets(getter, peers.length, peers.length)
    // It has pulled before, and knows how fast upstream is.
    await fetch(getter.mirror, `/v2/${repository}/manifests/latest`)
    before()
    const measured = await fetch(getter.mirror, blob)
    await getter.program[Symbol.asyncDispose]()
    await rm(join(folder, 'getter'), { recursive: true })
    return measured
  }
  const cases: Record<string, () => Promise<Measured>> = {
    'alone, the swarm off': () => through([]),
    'a peer that lacks it': () => through([lacking]),
    'a peer that gives it': () => through([fast]),
    'a peer that gives 5 MB/s': () => through([slow]),
    async 'a peer that hangs'() {
      try {
        return await through([hung], () => hung.program.signal('SIGSTOP'))
      } finally {
        hung.program.signal('SIGCONT')
      }
    },
    'a slow one and a fast one': () => through([slow, fast]),
  }
  const names = Object.keys(cases)
  const measured = new Map<string, Measured[]>(names.map(name => [name, []]))
  for (let run = 0; run < runs; run++)
    for (const name of run % 2 === 0 ? names : names.toReversed()) measured.get(name)!.push(await cases[name]!())
  console.log(`\na blob of ${size / 1e6} MB, line of ${line / 1e6} MB/s and ${roundTrip} ms, median of ${runs}`)
  const of = (name: string, key: keyof Measured) => median(measured.get(name)!.map(each => each[key]))
  for (const name of names) {
    const ratio = of(name, 'seconds') / of(names[0]!, 'seconds')
    console.log(
      `  ${name.padEnd(26)} ${of(name, 'seconds').toFixed(2)} s   ${ratio.toFixed(2)} × alone   ` +
        `first byte after ${(of(name, 'firstByte') * 1000).toFixed(0)} ms`,
    )
  }
}
