import { NetworkNamespace } from '../network-namespace.ts'
import type { Lan } from './lan.ts'

/** A router between local networks, and to what is outside of them. Multicast ends there. */
export class Router implements AsyncDisposable {
  readonly namespace: NetworkNamespace
  #joined = 0

  private constructor(namespace: NetworkNamespace) {
    this.namespace = namespace
  }

  static async open(): Promise<Router> {
    const namespace = await NetworkNamespace.open()
    await namespace.set('ipv4/ip_forward', 1)
    return new Router(namespace)
  }

  /** Hosts that come there from now on have it as their way to everywhere else. */
  async join(lan: Lan): Promise<void> {
    const device = `lan${this.#joined++}`
    const gateway = `${lan.subnet}.1`
    const peer = ['peer', 'name', device, 'netns', this.namespace.name]
    await lan.namespace.ip('link', 'add', 'dev', 'router', 'type', 'veth', ...peer)
    await lan.namespace.ip('link', 'set', 'dev', 'router', 'master', 'lan', 'up')
    await this.namespace.ip('address', 'add', `${gateway}/24`, 'brd', '+', 'dev', device)
    await this.namespace.ip('link', 'set', 'dev', device, 'up')
    lan.gateway = gateway
  }

  /** Drops what is for an address in silence, or no longer. */
  async drop(address: string, dropped: boolean): Promise<void> {
    await this.namespace.ip('route', dropped ? 'add' : 'delete', 'blackhole', address)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.namespace[Symbol.asyncDispose]()
  }
}
