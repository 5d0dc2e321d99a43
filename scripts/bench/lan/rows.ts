import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Host } from '../../../test/lan/host.ts'
import type { Outline } from '../../../test/lan/internet-program.ts'
import { Office, type Rates } from '../../../test/lan/office.ts'
import { plainEnvironment } from '../../../test/shoal-process.ts'
import { CpuUse } from './cpu-use.ts'
import { measure, type Run } from './run.ts'

/** What all rows have in common. */
export type Scale = {
  readonly hosts: number
  /** Of links and line, in bits a second, where a row does not say otherwise. */
  readonly rate: number
  /** Of the image, in bytes. */
  readonly size: number
  /** Layers at a time. */
  readonly parallel: number
  readonly runs: number
  /** Hears of each run. */
  readonly onRun: (run: Run, office: Office) => Promise<void>
}

export type Row = {
  readonly title: string
  /** Of a rate. */
  readonly line: number
  readonly link: number
  readonly layers: 4 | 40
  /** As often as `runs` has it, or once where no swarm is in it. */
  readonly measure: (scale: Scale, rates: Rates, layers: readonly number[]) => Promise<Run[]>
}

const even = { line: 1, link: 1, layers: 4 } as const

/** In the order of the table. */
export const rows = {
  alone: { ...even, title: 'one daemon alone', measure: alone },
  cold: { ...even, title: 'cold, at once', measure: cold },
  seeded: { ...even, title: 'one seeded', measure: seeded },
  killed: { ...even, title: 'fetcher killed at half', measure: killed },
  staggered: { ...even, title: 'staggered', measure: staggered },
  forty: { ...even, layers: 40, title: 'cold, 40 layers', measure: cold },
  'slow-line': { ...even, line: 0.2, link: 10, title: 'slow line, fast LAN', measure: cold },
  'slow-lan': { ...even, link: 0.2, title: 'slow LAN, fast line', measure: cold },
  'swarm-off': { ...even, title: 'swarm off', measure: swarmOff },
  'docker-registry': { ...even, title: 'docker-registry, central', measure: dockerRegistry },
} as const satisfies Readonly<Record<string, Row>>

export type RowName = keyof typeof rows

/** Sizes of layers that make up an image. @param count 4 equal ones, or 40, most of them small, in no order */
export function layersOf(size: number, count: 4 | 40): number[] {
  const growth = count === 4 ? 1 : 1.2
  // 7 and 40 have no common divisor, nor have 1 and 4.
  const step = count === 4 ? 1 : 7
  const weights = Array.from({ length: count }, (_, index) => growth ** ((index * step) % count))
  const whole = weights.reduce((sum, weight) => sum + weight, 0)
  const sizes = weights.map(weight => Math.floor((size * weight) / whole))
  sizes[0]! += size - sizes.reduce((sum, each) => sum + each, 0)
  return sizes
}

type Measure = (office: Office, image: Outline) => Promise<Run>

/** Daemons that have run for a while, and pull an image that is new to all of them, several times. */
async function withDaemons(
  { hosts, runs, parallel, onRun }: Scale,
  rates: Rates,
  layers: readonly number[],
  pull: Measure,
): Promise<Run[]> {
  await using office = await Office.open(hosts, rates)
  await office.start()
  await office.meet()
  const warm = await office.addImage('warm', [rates.line / 80, rates.line / 80].map(Math.round))
  await office.rush({ image: warm, parallel })
  const measured: Run[] = []
  for (let number = 1; number <= runs; number++) {
    await office.meet()
    const run = await pull(office, await office.addImage(`image${number}`, layers))
    await onRun(run, office)
    measured.push(run)
  }
  return measured
}

function cold(scale: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  return withDaemons(scale, rates, layers, (office, image) => {
    return measure(office, { image, parallel: scale.parallel })
  })
}

/** The last begins as much later than the first as one download takes. */
function staggered(scale: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  const within = (scale.size * 8) / rates.line
  return withDaemons(scale, rates, layers, (office, image) => {
    return measure(office, { image, parallel: scale.parallel, within })
  })
}

function seeded(scale: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  return withDaemons(scale, rates, layers, async (office, image) => {
    const { parallel } = scale
    const [first, ...others] = office.hosts
    const [seed] = (await measure(office, { image, hosts: [first!], parallel })).hosts
    if (seed?.failed !== undefined) throw new Error(`the first has not got it: ${seed.failed}`)
    await office.hearOf(first!.shoals[0]!)
    return measure(office, { image, hosts: others, parallel })
  })
}

/** When half of the image has come over the line, the one that most of it has come to is killed; it does not count. */
function killed(scale: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  return withDaemons(scale, rates, layers, async (office, image) => {
    let victim: Host | undefined
    const meanwhile = async () => {
      victim = await office.fetcherAt(scale.size / 2)
      await victim.shoals[0]!.kill()
    }
    const run = await measure(office, { image, parallel: scale.parallel }, meanwhile)
    await victim!.shoals[0]!.start()
    return { ...run, hosts: run.hosts.filter(({ name }) => name !== victim!.name) }
  })
}

async function swarmOff({ hosts, parallel, onRun }: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  await using office = await Office.open(hosts, rates)
  await office.start({ 'swarm-enabled': 'false' })
  const run = await measure(office, { image: await office.addImage('image', layers), parallel })
  await onRun(run, office)
  return [run]
}

function alone(scale: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  return swarmOff({ ...scale, hosts: 1 }, rates, layers)
}

/** Debian's docker-registry as the office's pull-through cache, on one more host. */
async function dockerRegistry(scale: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  const { hosts, parallel, onRun } = scale
  const folder = await mkdtemp(join(tmpdir(), 'lan-proxy-'))
  try {
    await using office = await Office.open(hosts + 1, rates)
    const [proxy, ...others] = office.hosts
    const configuration = `
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: ${folder}/data }, cache: { blobdescriptor: inmemory }, delete: { enabled: true } }
http: { addr: "${proxy!.address}:5000" }
proxy: { remoteurl: "${office.world.internet.hub}" }
`
    await mkdir(join(folder, 'data'))
    await writeFile(join(folder, 'config.yml'), configuration)
    const command = ['serve', join(folder, 'config.yml')] as const
    await using _registry = proxy!.namespace.start('docker-registry', command, { env: plainEnvironment() })
    const mirror = `http://${proxy!.address}:5000`
    for (let tries = 0; ; tries++) {
      const answer = await proxy!.fetch({ url: `${mirror}/v2/` }).catch(() => undefined)
      if (answer) break
      if (tries > 200) throw new Error(`docker-registry does not answer: ${_registry.output.stderr}`)
      await setTimeout(50)
    }
    const image = await office.addImage('image', layers)
    const run = await measure(office, { image, hosts: others, parallel, mirror })
    await onRun(run, office)
    return [run]
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The same bytes on one host, in one connection, with nothing between: the ideal. */
export async function curl({ onRun }: Scale, rates: Rates, layers: readonly number[]): Promise<Run[]> {
  await using office = await Office.open(1, rates)
  const { internet } = office.world
  const [host] = office.hosts
  const { repository, manifest, config, layers: blobs } = await office.addImage('image', layers)
  const of = `${internet.hub}/v2/${repository}`
  const urls = [
    `${of}/manifests/${manifest.digest}`,
    ...[config, ...blobs].map(({ digest }) => `${of}/blobs/${digest}`),
  ]
  const token = await tokenFor(host!, urls[0]!)
  await internet.agent.call('clear', undefined)
  const use = await CpuUse.begin()
  const begin = performance.now()
  const outputs = urls.flatMap(url => ['-o', '/dev/null', url])
  const ended = await host!.run('curl', ['-sSfL', '-H', `authorization: Bearer ${token}`, ...outputs])
  const seconds = (performance.now() - begin) / 1000
  const cpu = await use.end()
  if (ended.status !== 0) throw new Error(`curl: ${ended.stderr}`)
  const tally = await internet.tally()
  const { name, address } = host!
  const run: Run = { hosts: [{ name, seconds, failed: undefined, upstream: tally.byClient[address] ?? 0 }], tally, cpu }
  await onRun(run, office)
  return [run]
}

/** As the registry's challenge has it. */
async function tokenFor(host: Host, url: string): Promise<string> {
  const challenge = String((await host.fetch({ url })).headers['www-authenticate'])
  const part = (name: string) => new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? ''
  const query = new URLSearchParams({ service: part('service'), scope: part('scope') })
  const { text } = await host.fetch({ url: `${part('realm')}?${query}`, keep: true })
  return (JSON.parse(text) as { token: string }).token
}
