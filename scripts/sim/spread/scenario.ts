import { createHash } from 'node:crypto'
import type { Digest } from '@shoal/oci/digest'
import type { Tuning } from '@shoal/swarm/spread/tuning'
import type { Download } from './download.ts'
import type { Machine, MachineOptions } from './machine.ts'
import { Office } from './office.ts'

/** Machines that want an image at once; rates in Mbit/s, times in ms, sizes in bytes. */
export type Scenario = {
  readonly name: string
  readonly machines: number
  /** Of the blobs, of which a machine gets three at a time, as Docker does. @default 128 MB in one */
  readonly sizes?: readonly number[]
  /** @default 100 */
  readonly line?: number
  readonly connection?: number
  readonly lan?: number
  /** How long rates stay as they are at least. @default 0 */
  readonly quantum?: number
  /** Of the processors, as in the office's options. @default 1 */
  readonly slowness?: number
  /** Machines that are not like the others; 0 is the first to ask. */
  readonly odd?: Readonly<Record<number, MachineOptions>>
  /** How much later each next one begins. @default all at once, but for the first, which is 5 ms early */
  readonly stagger?: number
  /** Whether another machine has it already. */
  readonly seeded?: boolean
  /** Something that happens when so much of the ideal time has gone by. */
  readonly event?: { readonly at: number; readonly happens: (office: Office, machines: readonly Machine[]) => void }
  /** What one machine alone would take. @default all bytes over the slowest of line and LAN */
  readonly ideal?: number
}

export type Outcome = {
  /** Times of the ideal. */
  readonly slowest: number
  readonly median: number
  /** Of the machines that are like the others; p99 over p50. */
  readonly evenness: number
  /** Times of the image. */
  readonly upstream: number
  /** For each machine. */
  readonly messages: number
  readonly requests: number
  /** Of a processor, of the busiest machine, while it lasted. */
  readonly busiest: number
}

/** No run takes longer, in ms of its own clock. */
const longest = 600_000

const atOnce = 3

export function digestOf(name: string): Digest {
  return `sha256:${createHash('sha256').update(name).digest('hex')}` as Digest
}

/** Plays a scenario once. @param seed another one is another run */
export function play(scenario: Scenario, seed: number, tuning?: Tuning): Outcome {
  const {
    line = 100,
    lan = 100,
    connection,
    quantum = 0,
    slowness = 1,
    odd = {},
    stagger,
    seeded = false,
    event,
  } = scenario
  const sizes = scenario.sizes ?? [128e6]
  const size = sizes.reduce((a, b) => a + b)
  const office = new Office({ seed, line, quantum, slowness, ...(connection && { connection }) })
  const { events } = office
  const common = { upload: lan, download: lan, ...(tuning && { tuning }) }
  const machines = Array.from({ length: scenario.machines }, (_, i) =>
    office.add(`${seed}-${i}`, { ...common, ...odd[i] }),
  )
  const digests = sizes.map((_, i) => digestOf(`${scenario.name} ${seed} ${i}`))
  if (seeded) {
    const seed = office.add('seed', common)
    for (const [i, each] of sizes.entries()) seed.hold(digests[i]!, each)
  }
  const images = machines.map((machine, i) => {
    const image = new Image(machine, digests, sizes)
    events.at(stagger === undefined ? (i === 0 ? 0 : 5) : i * stagger, () => image.begin(events.now))
    return image
  })
  const ideal = scenario.ideal ?? size / (Math.min(seeded ? lan : line, lan) * 125)
  if (event) events.at(event.at * ideal, () => event.happens(office, machines))
  const like = images.filter((_, i) => !odd[i])
  events.run(longest, () => like.every(({ whole, machine }) => whole || machine.dead))
  const living = like.filter(({ machine }) => !machine.dead)
  const times = living.map(image => image.time ?? longest).sort((a, b) => a - b)
  const median = times[times.length >>> 1]!
  return {
    slowest: times.at(-1)! / ideal,
    median: median / ideal,
    evenness: times[Math.ceil(times.length * 0.99) - 1]! / median,
    upstream: office.upstream / size,
    messages: office.messages / machines.length,
    requests: office.requests / machines.length,
    busiest: Math.max(...machines.map(({ busy }) => busy)) / events.now,
  }
}

/** The blobs that a machine gets, some at a time. */
class Image {
  readonly machine: Machine
  readonly #digests: readonly Digest[]
  readonly #sizes: readonly number[]
  readonly #downloads: Download[] = []
  #begunAt = 0
  #doneAt = 0

  constructor(machine: Machine, digests: readonly Digest[], sizes: readonly number[]) {
    this.machine = machine
    this.#digests = digests
    this.#sizes = sizes
  }

  get whole(): boolean {
    return this.#downloads.length === this.#sizes.length && this.#downloads.every(({ whole }) => whole)
  }

  /** What it took, in ms. */
  get time(): number | undefined {
    return this.whole ? this.#doneAt - this.#begunAt : undefined
  }

  begin(now: number): void {
    this.#begunAt = now
    for (let i = 0; i < atOnce; i++) this.#next()
  }

  #next(): void {
    const i = this.#downloads.length
    if (i >= this.#sizes.length || this.machine.dead) return
    this.#downloads.push(
      this.machine.want(this.#digests[i]!, this.#sizes[i]!, now => {
        this.#doneAt = now
        this.#next()
      }),
    )
  }
}

export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >>> 1] ?? Number.NaN
}
