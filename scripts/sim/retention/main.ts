import { writeFile } from 'node:fs/promises'
import { generateTrace } from './generated.ts'
import { replay } from './office.ts'
import { offline } from './offline.ts'
import { type Point, plotOf } from './plot.ts'
import { policies } from './policies.ts'
import { parseSettings, type Settings, SettingsError } from './settings.ts'
import { halfOf, parseSizes, parseTrace, readText, type Trace, uniqueBytesOf } from './trace.ts'

/**
 * `npm run sim [-- --trace FILE --sizes FILE | --requests N]`: replays requests for blobs to offices of machines, with what
 * the daemon keeps, and what others would keep.
 *
 * `--capacity 1%,5%`: of all machines together, of the bytes of all blobs. `--peers 1,20`: machines. `--half first|second`:
 * of the trace, which is then a trace of its own: stores are empty at its beginning, and all its requests count.
 * `--days N`: how long all of the trace takes. `--wrong 30%`: how often a machine is wrong about whether others have a
 * blob: it takes what some have for what nobody has, and the other way round. `--json`: a line for each policy.
 * `--plot FILE`: draws what is answered without upstream.
 */

try {
  await main(parseSettings(process.argv.slice(2)))
} catch (error) {
  if (!(error instanceof SettingsError)) throw error
  console.error(`sim: ${error.message}`)
  process.exitCode = 2
}

async function main(settings: Settings): Promise<void> {
  const { half, capacities, peers, days, wrong, json, plot } = settings
  const all = await traceOf(settings)
  const trace = half === 'both' ? all : halfOf(all, half)
  const daysOfHalf = (days * trace.requests.length) / all.requests.length
  const points: Point[] = []
  if (!json) {
    const bytes = (uniqueBytesOf(trace) / 1e9).toFixed(1)
    console.log(
      `${trace.requests.length} requests for ${trace.digests.length} blobs of ${bytes} GB in ${Math.round(daysOfHalf)} days`,
    )
    console.log('policy        peers  capacity    hit  byte hit  local hit')
  }
  for (const each of peers)
    for (const capacity of capacities) {
      const setting = { trace, peers: each, capacity, days: daysOfHalf, wrong }
      for (const [policy, make] of Object.entries(policies))
        points.push(tell({ policy, peers: each, capacity, ...replay(make(), setting) }, json))
      points.push(tell({ policy: 'offline', peers: each, capacity, ...offline(setting) }, json))
    }
  if (plot !== undefined)
    await writeFile(plot, plotOf(points)).catch(error => {
      throw new SettingsError(`--plot ${plot} cannot be written, name another file: ${error.message}`)
    })
}

async function traceOf({ source }: Settings): Promise<Trace> {
  if ('requests' in source) return generateTrace(source.requests, 1)
  const sizes = await reading('--sizes', source.sizes, parseSizes)
  return reading('--trace', source.trace, text => parseTrace(text, sizes))
}

async function reading<T>(option: string, file: string, parse: (text: string) => T): Promise<T> {
  try {
    return parse(await readText(file))
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new SettingsError(`${option} ${file} cannot be read, name another file: ${why}`)
  }
}

function tell(point: Point, json: boolean): Point {
  const { policy, peers, capacity, hit, byteHit, localHit } = point
  const share = (value: number, width: number) => value.toFixed(3).padStart(width)
  if (json) console.log(JSON.stringify({ policy, peers, capacity, hit, byte_hit: byteHit, local_hit: localHit }))
  else
    console.log(
      `${policy.padEnd(12)}${String(peers).padStart(7)}${`${(capacity * 100).toFixed(1)} %`.padStart(10)}` +
        `${share(hit, 7)}${share(byteHit, 10)}${share(localHit, 11)}`,
    )
  return point
}
