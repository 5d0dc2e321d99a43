import { NetworkNamespace } from '../network-namespace.ts'
import { type Ended, plainEnvironment, run } from '../shoal-process.ts'
import { Agent } from './agent.ts'
import type { Get, Got, HostCalls } from './host-agent.ts'
import type { Lan } from './lan.ts'
import { LanShoal, type LanShoalOptions } from './lan-shoal.ts'
import { Link, type Shape } from './link.ts'

export type HostOptions = LinkOptions & {
  /** What it calls itself. */
  readonly name: string
}

export type LinkOptions = {
  /** @default one that is free */
  readonly address?: string
  /** Its way to everywhere else leads over it, if there is a router. @default true */
  readonly routed?: boolean
}

/** A host of a local network, or of several, in a network namespace. */
export class Host implements AsyncDisposable {
  readonly name: string
  readonly namespace: NetworkNamespace
  readonly links: Link[] = []
  readonly shoals: LanShoal[] = []
  readonly agent: Agent<HostCalls>
  readonly #opened = new AsyncDisposableStack()

  private constructor(name: string, namespace: NetworkNamespace) {
    this.name = name
    this.namespace = this.#opened.use(namespace)
    this.agent = this.#opened.use(new Agent<HostCalls>(namespace, 'host-agent.ts'))
  }

  /** One without any link. */
  static async open({ name }: Pick<HostOptions, 'name'>): Promise<Host> {
    const namespace = await NetworkNamespace.open()
    // An address is good at once: nobody else has it.
    await namespace.set('ipv6/conf/default/accept_dad', 0)
    return new Host(name, namespace)
  }

  /** Adds an interface: `lan0`, then `lan1`. */
  async addLink(lan: Lan, { address = lan.freeAddress(), routed = true }: LinkOptions = {}): Promise<Link> {
    const device = `lan${this.links.length}`
    const link = await Link.add(lan, this.namespace, { device, address, routed })
    this.links.push(link)
    return link
  }

  /** Its first link. */
  get link(): Link {
    const [link] = this.links
    if (!link) throw new Error(`${this.name} has no link`)
    return link
  }

  /** Of its first link. */
  get address(): string {
    return this.link.address
  }

  /** {@link Link.shape} of all links, and likewise {@link cut}, {@link unplug} and {@link heal}. */
  async shape(shape: Shape): Promise<void> {
    for (const link of this.links) await link.shape(shape)
  }

  async cut(): Promise<void> {
    for (const link of this.links) await link.cut()
  }

  async unplug(): Promise<void> {
    for (const link of this.links) await link.unplug()
  }

  async heal(): Promise<void> {
    for (const link of this.links) await link.heal()
  }

  /** Its way out of the local network is gone. */
  async loseRoute(): Promise<void> {
    await this.namespace.ip('route', 'delete', 'default')
  }

  /** Asks a URL from here. @throws if there is no answer at all */
  fetch(get: Get): Promise<Got> {
    return this.agent.call('get', get)
  }

  /** Runs a command here to its end. */
  run(command: string, args: readonly string[], env = plainEnvironment()): Promise<Ended> {
    return run('ip', this.namespace.inside(command, args), { env })
  }

  /** A daemon, started, with the usual ports; a second one on a host needs others. */
  async shoal(options: LanShoalOptions = {}): Promise<LanShoal> {
    const shoal = this.#opened.use(await LanShoal.prepare(this, options))
    this.shoals.push(shoal)
    await shoal.start()
    return shoal
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}
