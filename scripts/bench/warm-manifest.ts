import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { median } from './program.ts'
import { type Contender, startBareServer } from './rivals.ts'
import { startShoal } from './shoal.ts'
import { randomLayer, startUpstream } from './upstream.ts'

const connections = 50
const seconds = 5
const repository = 'library/small'

/** A manifest that is held, asked for over 50 connections, beside a bare node:http server that answers the same bytes. */
export async function warmManifest(folder: string, runs: number): Promise<void> {
  const layers = [await randomLayer(join(folder, 'layer'), 1000)]
  const { program: nginx, http } = await startUpstream(folder, repository, layers)
  await using _nginx = nginx
  const { program, mirror } = await startShoal(folder, { endpoints: [http] })
  await using _program = program
  const answer = await fetch(`${mirror}/v2/${repository}/manifests/latest`)
  const bytes = Buffer.from(await answer.arrayBuffer())
  const url = `${mirror}/v2/${repository}/manifests/${answer.headers.get('docker-content-digest')}`
  const bare = await startBareServer(folder, bytes, answer.headers.get('content-type') ?? '')
  await using _bare = bare.program
  const contenders: Contender[] = [{ program, url }, bare]
  const measured = new Map<Contender, { rate: number; p99: number }[]>(contenders.map(each => [each, []]))
  for (const { url } of contenders) await load(url, 2)
  for (let run = 0; run < runs; run++)
    for (const each of run % 2 === 0 ? contenders : contenders.toReversed())
      measured.get(each)!.push(await load(each.url, seconds))
  console.log(`\nwarm manifest by digest, ${connections} connections (wrk for ${seconds} s), median of ${runs}`)
  const rateOf = (each: Contender) => median(measured.get(each)!.map(({ rate }) => rate))
  for (const each of contenders) {
    const p99 = median(measured.get(each)!.map(({ p99 }) => p99))
    console.log(
      `  ${each.program.name.padEnd(16)} ${rateOf(each).toFixed(0)} requests/s   ${(rateOf(each) / rateOf(bare)).toFixed(2)} × bare   p99 ${p99.toFixed(1)} ms`,
    )
  }
}

/** Requests a second, and the 99th percentile of their times in ms. @throws if one failed */
async function load(url: string, seconds: number): Promise<{ rate: number; p99: number }> {
  const args = ['-t', '1', '-c', String(connections), '-d', `${seconds}s`, '--latency', url]
  const { stdout } = await promisify(execFile)('wrk', args)
  if (/Non-2xx|Socket errors/.test(stdout)) throw new Error(stdout)
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1])
  const [, p99, unit] = /99%\s+([\d.]+)(us|ms|s)/.exec(stdout) ?? []
  return { rate, p99: Number(p99) * { us: 0.001, ms: 1, s: 1000 }[unit as 'us' | 'ms' | 's'] }
}
