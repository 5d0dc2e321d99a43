import { EventEmitter } from 'node:events'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { isLanAddress } from './lan-address.ts'

/** Between two looks, in ms. */
const lookEvery = 2000

/** So late a look, in ms, and the machine has slept: no load delays one as much. */
const sleepAfter = 10_000

/**
 * Names of the ends of containers' and virtual machines' cables, of tunnels, and of Apple's own radio links. All of them
 * have a link-local IPv6 address, and they come and go with every container; with no other they are no LAN's.
 */
const virtual = /^(?:veth|vnet|tap|tun|cali|lxc|utun|awdl|llw|anpi)/

/** One LAN address of this machine. */
export type LanInterface = {
  readonly name: string
  /** Without scope. */
  readonly address: string
  readonly family: 4 | 6
  readonly netmask: string
  readonly internal: boolean
  /** The interface's number, of an IPv6 link-local address. */
  readonly scopeid: number | undefined
}

export type InterfaceList = NodeJS.Dict<readonly NetworkInterfaceInfo[]>

export type NetworkWatchOptions = {
  /** The address that is listened at; no other is of use to peers. @default all */
  readonly host?: string
  /** @default those of the system */
  readonly list?: () => InterfaceList
  /**
   * In ms since the epoch: clocks that never go back may stand still while the machine sleeps. A clock set forward counts
   * as sleep, which does no harm. @default Date.now
   */
  readonly clock?: () => number
  /** Calls `look` every so many ms until disposed of. @default setInterval */
  readonly every?: (ms: number, look: () => void) => Disposable
}

/** Looks at the LAN's interfaces. Tells `changed` if an address has come or gone, `woke` after the machine has slept. */
export class NetworkWatch extends EventEmitter<{ changed: []; woke: [] }> {
  readonly #host: string | undefined
  readonly #list: () => InterfaceList
  readonly #clock: () => number
  readonly #every: (ms: number, look: () => void) => Disposable
  #interfaces: readonly LanInterface[]
  #signature: string
  #lookedAt = 0
  #timer: Disposable | undefined

  constructor({ host, list = networkInterfaces, clock = Date.now, every = everyInterval }: NetworkWatchOptions = {}) {
    super()
    this.#host = host === '0.0.0.0' || host === '::' ? undefined : host
    this.#list = list
    this.#clock = clock
    this.#every = every
    this.#interfaces = this.#usable(this.#read() ?? {})
    this.#signature = signatureOf(this.#interfaces)
  }

  /** The LAN addresses of this machine, those of loopback among them. */
  get interfaces(): readonly LanInterface[] {
    return this.#interfaces
  }

  start(): void {
    this.#lookedAt = this.#clock()
    this.#timer ??= this.#every(lookEvery, () => this.#look())
  }

  stop(): void {
    this.#timer?.[Symbol.dispose]()
    this.#timer = undefined
  }

  #look(): void {
    const now = this.#clock()
    const slept = now - this.#lookedAt > lookEvery + sleepAfter
    this.#lookedAt = now
    const list = this.#read()
    if (list) {
      const interfaces = this.#usable(list)
      const signature = signatureOf(interfaces)
      this.#interfaces = interfaces
      if (signature !== this.#signature) {
        this.#signature = signature
        this.emit('changed')
      }
    }
    if (slept) this.emit('woke')
  }

  #usable(list: InterfaceList): LanInterface[] {
    return lanInterfaces(list).filter(({ address }) => this.#host === undefined || address === this.#host)
  }

  /** Undefined if the system can't tell now; some refuse while interfaces change. */
  #read(): InterfaceList | undefined {
    try {
      return this.#list()
    } catch {
      return undefined
    }
  }
}

function everyInterval(ms: number, look: () => void): Disposable {
  return setInterval(look, ms).unref()
}

function lanInterfaces(list: InterfaceList): LanInterface[] {
  const found: LanInterface[] = []
  for (const [name, infos = []] of Object.entries(list)) {
    const addresses = infos.map(info => lanInterface(name, info)).filter(({ address }) => isLanAddress(address))
    const linkLocalOnly = addresses.every(({ scopeid }) => scopeid !== undefined)
    if (!(linkLocalOnly && virtual.test(name))) found.push(...addresses)
  }
  return found
}

function lanInterface(name: string, info: NetworkInterfaceInfo): LanInterface {
  const [address = ''] = info.address.split('%', 1)
  const scopeid = info.family === 'IPv6' && info.scopeid > 0 ? info.scopeid : undefined
  return {
    name,
    address,
    family: info.family === 'IPv6' ? 6 : 4,
    netmask: info.netmask,
    internal: info.internal,
    scopeid,
  }
}

function signatureOf(interfaces: readonly LanInterface[]): string {
  return interfaces
    .map(({ name, address, family, netmask }) => `${name} ${family} ${address} ${netmask}`)
    .sort()
    .join('\n')
}
