import { whyNot } from '../prerequisites.ts'
import { DistantInternet } from './distant-internet.ts'
import type { Host, HostOptions } from './host.ts'
import { Lan } from './lan.ts'
import type { LanShoal, LanShoalOptions } from './lan-shoal.ts'
import { Router } from './router.ts'

/** Why there can be no hosts with networks of their own here; undefined: there can. */
export function whyNoLan(): string | undefined {
  return whyNot(['ip', 'tc', 'iptables', 'unshare'], 'iproute2, iptables, util-linux')
}

/** How much of what a daemon has said is told when a test fails, in characters. */
const toldOfLog = 4000

/** A local network, and a router that leads to the stand-in internet. */
export class LanWorld implements AsyncDisposable {
  readonly lan: Lan
  readonly router: Router
  readonly internet: DistantInternet
  readonly #hosts: Host[] = []
  readonly #opened: AsyncDisposableStack

  private constructor(parts: Pick<LanWorld, 'lan' | 'router' | 'internet'>, opened: AsyncDisposableStack) {
    this.lan = parts.lan
    this.router = parts.router
    this.internet = parts.internet
    this.#opened = opened
  }

  /** Has it, and tells what the daemons have said if something goes wrong. */
  static async use(test: (world: LanWorld) => Promise<void>): Promise<void> {
    await using world = await LanWorld.open()
    try {
      await test(world)
    } catch (error) {
      for (const { name, shoals } of world.#hosts)
        for (const { log } of shoals) console.log(`--- ${name}:\n${log.slice(-toldOfLog)}`)
      throw error
    }
  }

  static async open(): Promise<LanWorld> {
    await using opened = new AsyncDisposableStack()
    const router = opened.use(await Router.open())
    const lan = opened.use(await Lan.open())
    await router.join(lan)
    const internet = opened.use(await DistantInternet.open(router))
    return new LanWorld({ lan, router, internet }, opened.move())
  }

  /** One more local network behind the router. */
  async anotherLan(subnet: string): Promise<Lan> {
    const lan = this.#opened.use(await Lan.open({ subnet }))
    await this.router.join(lan)
    return lan
  }

  /** A host with a daemon that asks the stand-in internet. @param options.lan @default the first */
  async shoal({
    name,
    lan = this.lan,
    settings = {},
    ...link
  }: HostOptions & Omit<LanShoalOptions, 'internet'> & { readonly lan?: Lan }): Promise<LanShoal> {
    const host = await lan.host({ name, ...link })
    this.#hosts.push(host)
    return host.shoal({ internet: this.internet, settings })
  }

  /** A host of this name each, started all at once. */
  shoals(names: readonly string[], settings: Readonly<Record<string, string>> = {}): Promise<LanShoal[]> {
    return Promise.all(names.map(name => this.shoal({ name, settings })))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}
