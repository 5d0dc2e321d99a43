import { statfs, writeFile } from 'node:fs/promises'
import { cpus, tmpdir, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { whyNoLan } from '../../../test/lan/lan-world.ts'
import type { Rates } from '../../../test/lan/office.ts'
import { type Figures, figuresOf, medianOf } from './figures.ts'
import { HostStats } from './host-stats.ts'
import { curl, layersOf, type Row, type RowName, rows, type Scale } from './rows.ts'

const usage = `usage: npm run bench:lan -- [--hosts 16] [--rate 100mbit] [--size 128MB] [--rows NAME,…] [--runs 3]
         [--parallel 3] [--json FILE] [--verbose]
An office of hosts with networks of their own pulls an image, all at once. Each link, and the office's line, have the
rate; where none is named and the machine turns out to be too busy, also a quarter of it. A client asks for so many
layers in parallel. Needs Linux, root, curl, iproute2, iptables and docker-registry.
rows: ${Object.keys(rows).join(', ')}`

/** A machine that is busier than that is measured itself, not the network. */
const busy = 0.7

/** What is repeated at a quarter of the rates on a machine that is too busy. */
const repeated: readonly RowName[] = ['cold', 'seeded', 'killed']

/** A line of the table. */
type Measured = {
  readonly row: RowName | 'curl'
  readonly title: string
  readonly rates: Rates
  readonly hosts: number
  readonly layers: number
  /** In bytes. */
  readonly size: number
  readonly runs: readonly Figures[]
  readonly medians: Figures
  /** Slowest host, for one of the same by curl, and of size/bandwidth of the slower of line and link. */
  readonly timesCurl: number
  readonly timesIdeal: number
}

type Options = Pick<Scale, 'hosts' | 'rate' | 'size' | 'parallel' | 'runs'> & {
  readonly names: readonly RowName[]
  /** At a quarter of the rates, what is measured on a machine that is too busy. */
  readonly repeat: boolean
  readonly json: string | undefined
  readonly verbose: boolean
}

function parse(): Options | string {
  const { values } = parseArgs({
    options: {
      hosts: { type: 'string', default: '16' },
      rate: { type: 'string' },
      size: { type: 'string', default: '128MB' },
      rows: { type: 'string', default: Object.keys(rows).join() },
      runs: { type: 'string', default: '3' },
      parallel: { type: 'string', default: '3' },
      json: { type: 'string' },
      verbose: { type: 'boolean', default: false },
    },
  })
  const named = values.rows.split(',')
  const unknown = named.filter(name => !(name in rows))
  if (unknown.length > 0) return `no rows ${unknown}`
  const [, megabits = ''] = /^(\d+)mbit$/.exec(values.rate ?? '100mbit') ?? []
  const [, megabytes = ''] = /^(\d+)MB$/.exec(values.size) ?? []
  const numbers = [values.hosts, megabits, megabytes, values.parallel, values.runs].map(Number)
  if (!numbers.every(number => Number.isInteger(number) && number >= 1)) return 'expected whole numbers above 0'
  const [hosts = 0, rate = 0, size = 0, parallel = 0, runs = 0] = numbers
  if (hosts < 2) return 'expected 2 hosts or more'
  const names = (Object.keys(rows) as RowName[]).filter(name => named.includes(name))
  const { json, verbose } = values
  const repeat = values.rate === undefined
  return { hosts, rate: rate * 1e6, size: size * 1e6, parallel, runs, names, repeat, json, verbose }
}

/** Measures rows, each beside curl at the same rates. */
class Bench {
  readonly measured: Measured[] = []
  readonly #options: Options

  constructor(options: Options) {
    this.#options = options
  }

  async measure(name: RowName, rate: number): Promise<Measured> {
    const row: Row = rows[name]
    const rates = { line: row.line * rate, link: row.link * rate }
    const ideal = await this.#curl(rates, row.layers)
    return this.#measure({ name, row, rates, rate, ideal })
  }

  /** Once for the same rates and layers. */
  async #curl(rates: Rates, layers: 4 | 40): Promise<Measured> {
    const isIt = ({ row, rates: { line, link }, layers: count }: Measured) =>
      row === 'curl' && line === rates.line && link === rates.link && count === layers
    const row = {
      title: layers === 4 ? 'curl, one host' : 'curl, one host, 40 layers',
      layers,
      measure: curl,
    }
    return (
      this.measured.find(isIt) ??
      (await this.#measure({
        name: 'curl',
        row: { ...row, line: 1, link: 1 },
        rates,
        rate: rates.line,
        ideal: undefined,
      }))
    )
  }

  async #measure({
    name,
    row,
    rates,
    rate,
    ideal,
  }: {
    readonly name: RowName | 'curl'
    readonly row: Row
    readonly rates: Rates
    readonly rate: number
    readonly ideal: Measured | undefined
  }): Promise<Measured> {
    const { size, verbose, hosts } = this.#options
    const stats = new HostStats()
    const scale: Scale = {
      ...this.#options,
      rate,
      async onRun(run, office) {
        const { slowest, upstream, failed, cpu } = figuresOf(run, size)
        console.error(
          `${row.title}: ${slowest.toFixed(1)} s, ${upstream.toFixed(2)} × upstream, CPU ${percent(cpu.machine)}`,
        )
        if (failed > 0 || verbose) for (const line of await stats.linesOf(run, office)) console.error(`    ${line}`)
      },
    }
    const runs = (await row.measure(scale, rates, layersOf(size, row.layers))).map(run => figuresOf(run, size))
    const medians = medianOf(runs)
    const measured: Measured = {
      row: name,
      title: row.title,
      rates,
      hosts: name === 'curl' || name === 'alone' ? 1 : hosts,
      layers: row.layers,
      size,
      runs,
      medians,
      timesCurl: medians.slowest / (ideal ?? { medians }).medians.slowest,
      timesIdeal: medians.slowest / ((size * 8) / Math.min(rates.line, rates.link)),
    }
    this.measured.push(measured)
    return measured
  }
}

/** Where there is room in memory, the hosts' data goes there: they would have a disk each, not one between them. */
async function takeMemoryAsDisk({ hosts, size, runs }: Options): Promise<void> {
  if (process.env['TMPDIR'] !== undefined) return
  const memory = '/dev/shm'
  const { bavail = 0, bsize = 0 } = await statfs(memory).catch(() => ({}) as { bavail?: number; bsize?: number })
  // A run leaves what it has pulled; and something is to remain for the daemons.
  if (bavail * bsize > 2 * (hosts + 1) * (runs + 1) * size) process.env['TMPDIR'] = memory
}

function percent(part: number): string {
  return `${Math.round(part * 100)} %`
}

const columns: readonly (readonly [head: string, cell: (measured: Measured) => string])[] = [
  ['', ({ title }) => title],
  ['line/link Mbit/s', ({ rates: { line, link } }) => `${line / 1e6}/${link / 1e6}`],
  ['upstream ×', ({ medians }) => medians.upstream.toFixed(3)],
  ['manifest GETs', ({ medians }) => String(medians.manifestGets)],
  ['HEADs', ({ medians }) => String(medians.manifestHeads)],
  ['slowest', ({ medians }) => `${medians.slowest.toFixed(2)} s`],
  ['× curl', ({ timesCurl }) => timesCurl.toFixed(2)],
  ['× size/rate', ({ timesIdeal }) => timesIdeal.toFixed(2)],
  ['p50', ({ medians }) => `${medians.p50.toFixed(2)} s`],
  ['p99/p50', ({ medians: { p99, p50 } }) => (p99 / p50).toFixed(2)],
  ['CPU', ({ medians: { cpu } }) => percent(cpu.machine)],
  ['of it ours', ({ medians: { cpu } }) => percent(cpu.own)],
  ['runs', ({ runs }) => String(runs.length)],
  ['failed', ({ medians }) => String(medians.failed)],
]

function tableOf(measured: readonly Measured[]): string {
  const lines = [columns.map(([head]) => head), ...measured.map(each => columns.map(([, cell]) => cell(each)))]
  const widths = columns.map((_, index) => Math.max(...lines.map(line => line[index]!.length)))
  return lines
    .map(line => line.map((text, i) => (i === 0 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))).join('  '))
    .join('\n')
}

function parseOrSay(): Options | string {
  try {
    return parse()
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const options = parseOrSay()
if (typeof options === 'string') {
  console.error(`${options}\n${usage}`)
  process.exit(2)
}
const lacking = whyNoLan()
if (lacking !== undefined) {
  console.error(lacking)
  process.exit(1)
}
const { hosts, rate, size, parallel, runs, names, repeat, json } = options
const machine = `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}, ${Math.round(totalmem() / 1e9)} GB of memory`
await takeMemoryAsDisk(options)
console.log(`${machine}; the hosts' data is in ${tmpdir()}`)
const bench = new Bench(options)
const tooBusy: RowName[] = []
for (const name of names) {
  const { medians } = await bench.measure(name, rate)
  if (repeat && medians.cpu.machine > busy && repeated.includes(name)) tooBusy.push(name)
}
for (const name of tooBusy) await bench.measure(name, rate / 4)
console.log(
  `\n${hosts} hosts, an image of ${size / 1e6} MB, ${parallel} layers at a time; medians of ${runs}, of one where no swarm is`,
)
console.log(tableOf(bench.measured))
if (tooBusy.length > 0)
  console.log(`CPU above ${percent(busy)} measures the machine: ${tooBusy.join(', ')} also at a quarter of all rates`)
if (json !== undefined)
  await writeFile(
    json,
    JSON.stringify({ machine, hosts, rate, size, parallel, measured: bench.measured }, undefined, 2),
  )
