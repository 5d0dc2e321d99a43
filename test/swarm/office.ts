import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { UpstreamStatus } from '../../packages/shoal/src/admin/status.ts'
import { Internet, type InternetOptions } from '../../scripts/internet/internet.ts'
import { freePorts, until } from '../shoal-process.ts'
import { fetchWhole, World } from '../world.ts'
import type { FakePeer } from './fake-peer.ts'

export type PeerRow = {
  readonly id: string
  readonly name: string | null
  readonly blobs: number
  readonly state: string
  readonly received_bytes: number
  readonly sent_bytes: number
  readonly ban: { readonly reason: string; readonly until: number | null } | null
}

export type OfficeStatus = {
  readonly peer_id: string
  readonly network: string
  readonly peers: readonly PeerRow[]
  readonly upstreams: readonly UpstreamStatus[]
  readonly served: { readonly peer: { readonly requests: number; readonly bytes: number } }
}

export type OfficeOptions = {
  /** Settings of all machines, by flag without dashes in front. */
  readonly settings?: Readonly<Record<string, string>>
  readonly internet?: InternetOptions
}

/** Machines of one LAN, all on loopback in this process, and the internet that they share. */
export class Office implements AsyncDisposable {
  readonly internet: Internet
  /** For files of a test. */
  readonly folder: string
  readonly machines: World[] = []
  readonly #settings: Readonly<Record<string, string>>
  readonly #ports = new Map<World, { swarm: number; transfer: number }>()

  private constructor(internet: Internet, folder: string, settings: Readonly<Record<string, string>>) {
    this.internet = internet
    this.folder = folder
    this.#settings = settings
  }

  static async open({ settings = {}, internet = {} }: OfficeOptions = {}): Promise<Office> {
    return new Office(await Internet.open(internet), await mkdtemp(join(tmpdir(), 'shoal-office-')), settings)
  }

  /** Starts one more machine, which is told where the others are. */
  async machine({
    settings = {},
    peers = [],
  }: {
    readonly settings?: Readonly<Record<string, string>>
    readonly peers?: readonly FakePeer[]
  } = {}): Promise<World> {
    const [swarm = 0, transfer = 0] = await freePorts(2)
    const others = this.machines.map(machine => `127.0.0.1:${this.#ports.get(machine)?.swarm}`)
    const bootstrap = [...others, ...peers.map(({ address }) => address)].join()
    const machine = await World.open({
      shared: this.internet,
      settings: {
        'swarm-enabled': 'true',
        'swarm-listen': `127.0.0.1:${swarm}`,
        'swarm-transfer-listen': `127.0.0.1:${transfer}`,
        'swarm-mdns': 'false',
        ...(bootstrap !== '' && { 'swarm-bootstrap': bootstrap }),
        ...this.#settings,
        ...settings,
      },
    })
    this.#ports.set(machine, { swarm, transfer })
    this.machines.push(machine)
    return machine
  }

  /** Where a machine is dialled, and where it gives bytes. */
  portsOf(machine: World): { swarm: number; transfer: number } {
    return this.#ports.get(machine) ?? { swarm: 0, transfer: 0 }
  }

  /** So many machines that know each other. */
  async machinesTogether(count: number): Promise<World[]> {
    const machines: World[] = []
    for (let made = 0; made < count; made++) machines.push(await this.machine())
    for (const machine of machines) await connected(machine, count - 1)
    return machines
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.machines) await machine[Symbol.asyncDispose]()
    await this.internet.close()
    await rm(this.folder, { recursive: true })
  }
}

export async function statusOf(machine: World): Promise<OfficeStatus> {
  return JSON.parse((await fetchWhole('GET', `${machine.admin}/api/v1/status`)).body.toString()) as OfficeStatus
}

/** Waits until a machine sees so many peers. */
export async function connected(machine: World, count: number): Promise<readonly PeerRow[]> {
  let seen: readonly PeerRow[] = []
  return until(
    async () => {
      seen = (await statusOf(machine)).peers.filter(({ state }) => state === 'connected')
      return seen.length >= count ? seen : undefined
    },
    () => `it sees ${seen.length} of ${count} peers:\n${machine.log.join('')}`,
  )
}

/** Waits until the peers of a machine have announced so many blobs in all. */
export async function announced(machine: World, blobs: number): Promise<void> {
  let seen = 0
  await until(
    async () => {
      const { peers } = await statusOf(machine)
      seen = peers.reduce((sum, peer) => sum + peer.blobs, 0)
      return seen >= blobs ? true : undefined
    },
    () => `its peers have announced ${seen} of ${blobs} blobs:\n${machine.log.join('')}`,
  )
}
