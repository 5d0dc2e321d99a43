import { availableParallelism } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import { until } from '../shoal-process.ts'
import type { Pulled, PullOptions } from './container-tool.ts'
import type { Host } from './host.ts'
import type { Outline, Tally } from './internet-program.ts'
import type { LanShoal } from './lan-shoal.ts'
import { LanWorld } from './lan-world.ts'

/** In bits a second. */
export type Rates = {
  /** Of the office's line, towards it. */
  readonly line: number
  /** Of the link of each host, in each direction. */
  readonly link: number
}

export type Rush = {
  readonly image: Outline
  /** @default all */
  readonly hosts?: readonly Host[]
  /** Layers at a time. @default 3 */
  readonly parallel?: number
  /** They begin one after another, the last so much later than the first, in s. @default 0 */
  readonly within?: number
  /** @default the daemon of each */
  readonly mirror?: string
  /** As of {@link PullOptions}. */
  readonly patience?: number
}

/** How the pull of one of them went. */
export type HostPulled = Pulled & { readonly host: Host }

/** How many daemons are started at once: more only wait for each other. */
const startedAtOnce = availableParallelism()

/** For what has to happen before anything begins, in ms. */
const patience = 120_000

/** For a part of a pull, in ms. */
const longestPull = 280_000

/** The hosts of an office, each behind a link of its own, and all behind one line. */
export class Office implements AsyncDisposable {
  readonly world: LanWorld
  readonly hosts: Host[] = []
  #rates: Rates

  private constructor(world: LanWorld, rates: Rates) {
    this.world = world
    this.#rates = rates
  }

  static async open(count: number, rates: Rates): Promise<Office> {
    await using opened = new AsyncDisposableStack()
    const office = new Office(opened.use(await LanWorld.open()), rates)
    // What Docker Hub lets one address have is another matter.
    await office.world.internet.agent.call('limit', 1_000_000)
    await office.add(count)
    await office.shape(rates)
    opened.move()
    return office
  }

  /** Hosts move in, without daemons. */
  async add(count: number): Promise<void> {
    for (let added = 0; added < count; added++) {
      const host = await this.world.lan.host({ name: `host${this.hosts.length + 1}` })
      await host.shape({ rate: `${this.#rates.link}bit` })
      this.hosts.push(host)
    }
  }

  /** Makes all links, and the line, so. */
  async shape(rates: Rates): Promise<void> {
    this.#rates = rates
    for (const host of this.hosts) await host.shape({ rate: `${rates.link}bit` })
    await this.world.internet.narrow(`${rates.line}bit`)
  }

  get shoals(): readonly LanShoal[] {
    return this.hosts.flatMap(({ shoals }) => shoals)
  }

  /** Starts a daemon on each host that has none. */
  async start(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    const waiting = this.hosts.filter(({ shoals }) => shoals.length === 0)
    const { internet } = this.world
    const lanes = Array.from({ length: startedAtOnce }, async () => {
      for (let host: Host | undefined; (host = waiting.shift()); ) await host.shoal({ internet, settings })
    })
    await Promise.all(lanes)
  }

  /** Waits until each is connected to all others but one at most: of many who dial at once, a pair may take longer. */
  async meet(): Promise<void> {
    const { shoals } = this
    const count = async (shoal: LanShoal) => (await shoal.connected()).length
    let counts: number[] = []
    await until(
      async () => {
        counts = await Promise.all(shoals.map(count))
        return counts.every(seen => seen >= shoals.length - (shoals.length > 8 ? 2 : 1)) || undefined
      },
      () => `of ${shoals.length} daemons, each sees so many others: ${counts}`,
      patience,
    )
  }

  /** Has Docker Hub, and it alone, have an image that nobody has seen before. @param layers sizes in bytes */
  addImage(name: string, layers: readonly number[]): Promise<Outline> {
    const recipe = { repository: `library/${name}`, tag: 'latest', layers: [...layers] }
    return this.world.internet.agent.call('add', recipe)
  }

  /** Waits until all have heard of everything that a host holds. */
  async hearOf(holder: LanShoal): Promise<void> {
    const { blobs } = (await holder.status()).store
    for (const shoal of this.shoals) if (shoal !== holder) await shoal.hearsOf(blobs, holder, patience)
  }

  /** All pull, and what goes over the line is counted from now on. Waits for the last. */
  async rush({
    hosts = this.hosts,
    within = 0,
    mirror = 'http://127.0.0.1:3474',
    ...pull
  }: Rush): Promise<HostPulled[]> {
    await this.world.internet.agent.call('clear', undefined)
    return Promise.all(
      hosts.map(async (host, index) => {
        const after = hosts.length === 1 ? 0 : Math.round((1000 * within * index) / (hosts.length - 1))
        return { host, ...(await pullOn(host, { ...pull, mirror, after })) }
      }),
    )
  }

  /** Waits until so many bytes have come over the line. @returns whom most of them have come to */
  fetcherAt(bytes: number): Promise<Host> {
    let all = 0
    return until(
      async () => {
        const { byClient } = await this.world.internet.tally()
        const ofHost = ({ address }: Host) => byClient[address] ?? 0
        all = this.hosts.reduce((sum, host) => sum + ofHost(host), 0)
        if (all < bytes) return undefined
        return this.hosts.reduce((most, host) => (ofHost(host) > ofHost(most) ? host : most))
      },
      () => `${all} of ${bytes} bytes have come over the line`,
      longestPull,
    )
  }

  /** What has gone over the line, with what is still under way for nobody. */
  async tally(): Promise<Tally> {
    const { internet } = this.world
    await Promise.race([internet.agent.call('idle', undefined), setTimeout(10_000, undefined, { ref: false })])
    return internet.tally()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]()
  }
}

/** In bytes. */
export function bytesOf({ byBlob }: Tally): number {
  return Object.values(byBlob).reduce((sum, bytes) => sum + bytes, 0)
}

async function pullOn(host: Host, options: PullOptions): Promise<Pulled> {
  try {
    return await host.agent.call('pull', options)
  } catch (error) {
    const now = Date.now()
    return { began: now, ended: now, failed: error instanceof Error ? error.message : String(error) }
  }
}
