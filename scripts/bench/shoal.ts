import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort, Program } from './program.ts'

const bin = fileURLToPath(new URL('../../node_modules/.bin/shoal', import.meta.url))

export type ShoalOptions = {
  /** Of docker.io. */
  readonly endpoints: readonly string[]
  /** A PEM file to trust for them. */
  readonly ca?: string
  /** Of its data, in the folder. @default shoal */
  readonly name?: string
  /** Addresses of peers, with none of whom it is alone. @default the swarm is off */
  readonly bootstrap?: readonly string[]
  /** More settings, by environment variable. */
  readonly env?: Readonly<Record<string, string>>
}

export type RunningShoal = {
  readonly program: Program
  readonly mirror: string
  readonly admin: string
  /** Where peers dial it. */
  readonly swarm: string
}

/** A daemon in a process of its own, as users run it, with its data in `folder`. */
export async function startShoal(
  folder: string,
  { endpoints, ca, name = 'shoal', bootstrap, env = {} }: ShoalOptions,
): Promise<RunningShoal> {
  const [mirror, admin, swarm, transfer] = [await freePort(), await freePort(), await freePort(), await freePort()]
  const program = await Program.start(name, [bin, 'start'], {
    url: `http://127.0.0.1:${admin}/readyz`,
    log: join(folder, `${name}.log`),
    env: {
      SHOAL_DATA_DIR: join(folder, name),
      SHOAL_MIRROR_LISTEN: `127.0.0.1:${mirror}`,
      SHOAL_ADMIN_LISTEN: `127.0.0.1:${admin}`,
      SHOAL_SWARM_ENABLED: String(bootstrap !== undefined),
      SHOAL_SWARM_LISTEN: `127.0.0.1:${swarm}`,
      SHOAL_SWARM_TRANSFER_LISTEN: `127.0.0.1:${transfer}`,
      SHOAL_SWARM_MDNS: 'false',
      SHOAL_SWARM_BOOTSTRAP: bootstrap?.join() ?? '',
      SHOAL_UPSTREAMS_DOCKER_IO_ENDPOINTS: endpoints.join(),
      ...(ca !== undefined && { SHOAL_UPSTREAMS_DOCKER_IO_CA: ca }),
      ...env,
    },
  })
  return {
    program,
    mirror: `http://127.0.0.1:${mirror}`,
    admin: `http://127.0.0.1:${admin}`,
    swarm: `127.0.0.1:${swarm}`,
  }
}

/** What the daemon says of its peers and of what it has served. */
export type ShoalStatus = {
  readonly peers: readonly { readonly state: string; readonly blobs: number }[]
  readonly served: Readonly<Record<'peer' | 'upstream', { readonly requests: number; readonly bytes: number }>>
}

export async function statusOf({ admin }: RunningShoal): Promise<ShoalStatus> {
  return (await (await fetch(`${admin}/api/v1/status`)).json()) as ShoalStatus
}

/** Waits until it has so many peers, who have announced so many blobs in all. */
export async function meets(shoal: RunningShoal, peers: number, blobs = 0): Promise<void> {
  for (let tries = 0; ; tries++) {
    const connected = (await statusOf(shoal)).peers.filter(({ state }) => state === 'connected')
    const announced = connected.reduce((sum, peer) => sum + peer.blobs, 0)
    if (connected.length >= peers && announced >= blobs) return
    if (tries > 600) throw new Error(`${connected.length} of ${peers} peers, ${announced} of ${blobs} blobs`)
    await sleep(50)
  }
}
