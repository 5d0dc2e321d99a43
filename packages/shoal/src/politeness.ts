import { execFile } from 'node:child_process'
import { access, readdir, readFile } from 'node:fs/promises'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** How often it is looked at what the system has at hand, and how often another program is asked, in ms. */
const lookEvery = 10_000
const askEvery = 60_000

/** How long such a program may take, in ms. */
const patience = 3000

/** Interfaces of VPNs, as they are usually called, also where the system tells no more of them. */
const tunnelName = /^(?:u?tun|tap|wg|ppp|ipsec|tailscale|zt|nordlynx|wireguard|openvpn)/i

/** Types of interfaces that carry another network's packets (Linux, if_arp.h): PPP, IP in IP, IPv6 in IP, GRE, none. */
const tunnelTypes = new Set(['512', '768', '769', '776', '778', '823', '65534'])

export type PolitenessOptions = {
  /** The folder that has `sys` and `run`. @default '/' */
  readonly root?: string
  /** @default this system's, as `process.platform` */
  readonly platform?: NodeJS.Platform
  /** The interfaces by name, with their addresses. @default this system's */
  readonly interfaces?: () => NodeJS.Dict<readonly Pick<NetworkInterfaceInfo, 'address'>[]>
  /** Runs a program, and gives what it prints. @throws if there is none, or it fails */
  readonly run?: (program: string, args: readonly string[]) => Promise<string>
  /** Whether a battery gives the power, for systems other than Linux. @default what `systeminformation` finds out */
  readonly discharges?: () => Promise<boolean>
  /** In ms, never going back. */
  readonly now: () => number
}

/**
 * When peers are given nothing: on battery, on a metered line, over a VPN. What is known is a few seconds old, for
 * nobody who asks shall wait. Where the system does not tell, peers are given.
 */
export class Politeness implements Disposable {
  readonly #options: Required<PolitenessOptions>
  readonly #timer: NodeJS.Timeout
  #onBattery = false
  #metered = false
  /** The interface of each address of this machine that is a VPN's. */
  #tunnels: ReadonlyMap<string, string> = new Map()
  #askedAt = Number.NEGATIVE_INFINITY
  #looking: Promise<void> | undefined

  constructor(options: PolitenessOptions) {
    const usual = { root: '/', platform: process.platform, interfaces: networkInterfaces, run: runProgram }
    this.#options = { ...usual, discharges: dischargesElsewhere, ...options }
    this.#timer = setInterval(() => void this.look(), lookEvery).unref()
  }

  /** Why nothing is given now, at all or from one address of this machine; undefined if it is. */
  resting(localAddress?: string): string | undefined {
    if (this.#onBattery) return 'on battery'
    if (this.#metered) return 'on a metered line'
    const tunnel = localAddress === undefined ? undefined : this.#tunnels.get(plain(localAddress))
    return tunnel === undefined ? undefined : `over a VPN (${tunnel})`
  }

  /** Is due every now and then; resolves once it is known how things are. Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined))
    return this.#looking
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  async #look(): Promise<void> {
    const { platform, discharges, now } = this.#options
    const ask = now() - this.#askedAt >= askEvery
    if (ask) this.#askedAt = now()
    this.#tunnels = await this.#findTunnels()
    if (platform === 'linux') {
      this.#onBattery = await this.#discharges()
      if (ask) this.#metered = await this.#isMetered()
    } else if (ask) this.#onBattery = await discharges()
  }

  /** Whether a battery of the machine itself gives the power (Linux, sysfs-class-power). */
  async #discharges(): Promise<boolean> {
    const folder = join(this.#options.root, 'sys/class/power_supply')
    let discharges = false
    for (const name of await readdir(folder).catch(() => [])) {
      const read = (file: string) => text(join(folder, name, file))
      const type = await read('type')
      if ((type === 'Mains' || type === 'USB') && (await read('online')) === '1') return false
      // A mouse has a battery, too.
      if ((type === 'Battery' || type === 'UPS') && (await read('scope')) !== 'Device')
        discharges ||= (await read('status')) === 'Discharging'
    }
    return discharges
  }

  /** What NetworkManager knows, or guesses (org.freedesktop.NetworkManager, NMMetered): 1 and 3 are yes. */
  async #isMetered(): Promise<boolean> {
    const { root, run } = this.#options
    try {
      await access(join(root, 'run/NetworkManager'))
    } catch {
      return false
    }
    const bus = 'org.freedesktop.NetworkManager'
    const property = ['get-property', bus, '/org/freedesktop/NetworkManager', bus, 'Metered']
    try {
      return /^u [13]\b/.test(await run('busctl', ['--system', '--auto-start=no', ...property]))
    } catch {
      // Not every system with NetworkManager has systemd. Each device is told of by a line.
      const lines = await run('nmcli', ['-g', 'GENERAL.METERED', 'device', 'show']).catch(() => '')
      return /^yes\b/m.test(lines)
    }
  }

  async #findTunnels(): Promise<ReadonlyMap<string, string>> {
    const tunnels = new Map<string, string>()
    for (const [name, addresses = []] of Object.entries(this.#options.interfaces()))
      if (await this.#isTunnel(name)) for (const { address } of addresses) tunnels.set(plain(address), name)
    return tunnels
  }

  async #isTunnel(name: string): Promise<boolean> {
    if (tunnelName.test(name)) return true
    const { root, platform } = this.#options
    if (platform !== 'linux') return false
    const folder = join(root, 'sys/class/net', name)
    const [type, events, flags] = await Promise.all(
      ['type', 'uevent', 'tun_flags'].map(file => text(join(folder, file))),
    )
    return flags !== '' || tunnelTypes.has(type ?? '') || /^DEVTYPE=wireguard$/m.test(events ?? '')
  }
}

/** macOS and Windows have programs that tell, each in its own way; what is metered, none tells simply. */
async function dischargesElsewhere(): Promise<boolean> {
  try {
    const { battery } = await import('systeminformation')
    const { hasBattery, acConnected, isCharging, percent } = await battery()
    // Windows: a full one counts as not connected there.
    return hasBattery && !acConnected && !isCharging && percent < 100
  } catch {
    return false
  }
}

/** What a small file says; empty if it says nothing. */
async function text(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).trim()
  } catch {
    return ''
  }
}

/** An address as the system lists it: IPv4 as such, IPv6 without its scope. */
function plain(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '')
}

async function runProgram(program: string, args: readonly string[]): Promise<string> {
  const env = { ...process.env, LC_ALL: 'C' }
  return (await promisify(execFile)(program, args, { timeout: patience, env })).stdout
}
