import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { NetworkNamespace } from '../network-namespace.ts'
import type { Lan } from './lan.ts'

const execute = promisify(execFile)

/** How a link is; each direction by itself. */
export type Shape = {
  /** As `tc` has it: `100mbit`. @default no limit */
  readonly rate?: string
  /** In ms. @default 0 */
  readonly delay?: number
  /** The part of the frames that is lost, 0 to 1. @default 0 */
  readonly loss?: number
}

/** So long a queue at most, in ms, where frames wait for their turn. */
const longestQueue = '50ms'

const units: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9 }

/** The link between a host's interface and a port of the switch. */
export class Link {
  readonly lan: Lan
  /** The interface. */
  readonly device: string
  /** Its IPv4 address. */
  address: string
  /** The switch that its far end is at: not always the first one of a network that is split. */
  switch = 'lan'
  readonly #host: NetworkNamespace
  readonly #port: string
  readonly #number: number
  readonly #routed: boolean
  #long = false
  #cut = false

  private constructor(lan: Lan, host: NetworkNamespace, options: { device: string; address: string; routed: boolean }) {
    this.lan = lan
    this.#host = host
    this.device = options.device
    this.address = options.address
    this.#routed = options.routed
    this.#number = lan.links.length + 1
    this.#port = `port${this.#number}`
  }

  /** @param options.routed it leads to the router, if there is one */
  static async add(
    lan: Lan,
    host: NetworkNamespace,
    options: { readonly device: string; readonly address: string; readonly routed: boolean },
  ): Promise<Link> {
    const link = new Link(lan, host, options)
    lan.links.push(link)
    const { device } = options
    const peer = ['peer', 'name', device, 'netns', host.name]
    await lan.namespace.ip('link', 'add', 'dev', link.#port, 'type', 'veth', ...peer)
    await lan.namespace.ip('link', 'set', 'dev', link.#port, 'master', 'lan', 'up')
    await host.ip('link', 'set', 'dev', device, 'up')
    await link.#addAddress()
    return link
  }

  /** Takes another address in place of the one that it has. */
  async readdress(address: string): Promise<void> {
    await this.#host.ip('address', 'delete', `${this.address}/24`, 'dev', this.device)
    this.address = address
    await this.#addAddress()
  }

  /** The cable is pulled: the host sees that. */
  async unplug(): Promise<void> {
    await this.lan.namespace.ip('link', 'set', 'dev', this.#port, 'down')
  }

  /** Frames get lost, and nobody hears of it. */
  async cut(): Promise<void> {
    this.#cut = true
    await this.lan.namespace.ip('link', 'set', 'dev', this.#end, 'nomaster')
  }

  /** Undoes {@link unplug} and {@link cut}. */
  async heal(): Promise<void> {
    this.#cut = false
    await this.move(this.switch)
    await this.lan.namespace.ip('link', 'set', 'dev', this.#port, 'up')
  }

  /** Puts its far end to another switch. */
  async move(to: string): Promise<void> {
    this.switch = to
    if (!this.#cut) await this.lan.namespace.ip('link', 'set', 'dev', this.#end, 'master', to)
  }

  /** Makes it so, and no other way; a link that was long once stays a little slower than others. */
  async shape({ rate, delay = 0, loss = 0 }: Shape): Promise<void> {
    await setRate(this.#host, this.device, rate)
    await setRate(this.lan.namespace, this.#port, rate)
    if (delay === 0 && loss === 0 && !this.#long) return
    const port = 5000 + 2 * this.#number
    await (await this.lan.wires()).call('lay', { port, trouble: { delay, loss } })
    if (!this.#long) await this.#lengthen(port)
  }

  /** Bytes of frames, as the host sees it. */
  async traffic(): Promise<{ readonly sent: number; readonly received: number }> {
    const args = ['-n', this.lan.namespace.name, '-json', '-statistics', 'link', 'show', 'dev', this.#port]
    const { stdout } = await execute('ip', args)
    const [seen] = JSON.parse(stdout) as { stats64: Record<'rx' | 'tx', { bytes: number }> }[]
    if (!seen) throw new Error(`there is no ${this.#port}`)
    return { sent: seen.stats64.rx.bytes, received: seen.stats64.tx.bytes }
  }

  /** What is at the switch: the port, or the end of a long wire. */
  get #end(): string {
    return this.#long ? `far${this.#number}` : this.#port
  }

  /** Puts a long wire between the port and the switch. */
  async #lengthen(port: number): Promise<void> {
    const { namespace } = this.lan
    const near = `near${this.#number}`
    await namespace.ip('link', 'add', 'dev', near, 'type', 'bridge', 'mcast_snooping', '0', 'forward_delay', '0')
    await namespace.ip('link', 'set', 'dev', near, 'up')
    await this.lan.addWireEnd(`wire${this.#number}`, port, { to: near })
    await namespace.ip('link', 'set', 'dev', this.#port, 'master', near)
    this.#long = true
    await this.lan.addWireEnd(this.#end, port + 1, { to: this.switch })
    if (this.#cut) await this.cut()
  }

  async #addAddress(): Promise<void> {
    await this.#host.ip('address', 'add', `${this.address}/24`, 'brd', '+', 'dev', this.device)
    const { gateway } = this.lan
    if (gateway && this.#routed) await this.#host.ip('route', 'replace', 'default', 'via', gateway)
  }
}

/** Bounds what a device sends. @param rate such as `100mbit`; undefined: no bound */
export async function setRate(namespace: NetworkNamespace, device: string, rate: string | undefined): Promise<void> {
  if (rate === undefined) {
    // There may be none.
    await namespace.tc('qdisc', 'delete', 'dev', device, 'root').catch(() => {})
    return
  }
  const [, amount, unit = ''] = /^(\d+)([kmg]?)bit$/.exec(rate) ?? []
  if (amount === undefined) throw new Error(`expected a rate such as 100mbit, not ${rate}`)
  // What may go at once: a few frames, and what a tick of a slow kernel clock has to let go.
  const burst = Math.max(8000, Math.round((Number(amount) * (units[unit] ?? 1)) / 8 / 250))
  const queue = ['tbf', 'rate', rate, 'burst', String(burst), 'latency', longestQueue]
  await namespace.tc('qdisc', 'replace', 'dev', device, 'root', ...queue)
}
