import { NetworkNamespace } from '../network-namespace.ts'
import { Agent } from './agent.ts'
import { Host, type HostOptions } from './host.ts'
import type { Link } from './link.ts'
import type { WireCalls } from './wire.ts'

export type LanOptions = {
  /** The first three numbers of its IPv4 addresses. @default '10.77.0' */
  readonly subnet?: string
}

/** Where the long wires begin and end (RFC 5737, TEST-NET-1). */
const wireAddresses = { lan: '192.0.2.1', wire: '192.0.2.2' }

/** Ethernet's, which those of the wires are above by more than VXLAN adds. */
const mtu = { lan: '1500', wire: '1600' }

/**
 * A local network: a switch in a network namespace, which passes multicast on to everybody, and the hosts at it. With
 * IPv6 each host has a link-local address only.
 */
export class Lan implements AsyncDisposable {
  readonly subnet: string
  readonly namespace: NetworkNamespace
  /** Of all hosts. */
  readonly links: Link[] = []
  /** Of the router, once there is one. */
  gateway: string | undefined
  readonly #opened = new AsyncDisposableStack()
  #wires: Agent<WireCalls> | undefined
  #groups: string[] = []
  #addresses = 0

  private constructor(namespace: NetworkNamespace, { subnet = '10.77.0' }: LanOptions) {
    this.namespace = this.#opened.use(namespace)
    this.subnet = subnet
  }

  static async open(options: LanOptions = {}): Promise<Lan> {
    const lan = new Lan(await NetworkNamespace.open(), options)
    try {
      // The switch itself says nothing.
      await lan.namespace.set('ipv6/conf/default/disable_ipv6', 1)
      await lan.#addSwitch('lan')
    } catch (error) {
      await lan[Symbol.asyncDispose]()
      throw error
    }
    return lan
  }

  /** A host with one link, to this network. */
  async host(options: HostOptions): Promise<Host> {
    const host = this.#opened.use(await Host.open(options))
    await host.addLink(this, options)
    return host
  }

  /** An address that nobody has. */
  freeAddress(): string {
    return `${this.subnet}.${10 + ++this.#addresses}`
  }

  /**
   * Splits it: who is in a group reaches its own group, and those that are in none, such as the router. A second
   * partition takes the place of the first.
   */
  async partition(...groups: readonly (readonly Host[])[]): Promise<void> {
    await this.heal()
    for (const [index, group] of groups.entries()) {
      const name = `group${index}`
      await this.#addSwitch(name)
      this.#groups.push(name)
      await this.namespace.ip('link', 'add', 'dev', `${name}up`, 'type', 'veth', 'peer', 'name', `${name}down`)
      await this.namespace.ip('link', 'set', 'dev', `${name}up`, 'master', name, 'up')
      await this.namespace.ip('link', 'set', 'dev', `${name}down`, 'master', 'lan', 'up')
      // Isolated ports reach the others only.
      await this.namespace.ip('link', 'set', 'dev', `${name}down`, 'type', 'bridge_slave', 'isolated', 'on')
      for (const host of group) await this.#linkOf(host).move(name)
    }
  }

  /** Makes one network of it again. */
  async heal(): Promise<void> {
    for (const link of this.links) if (this.#groups.includes(link.switch)) await link.move('lan')
    for (const name of this.#groups) {
      await this.namespace.ip('link', 'delete', 'dev', `${name}up`)
      await this.namespace.ip('link', 'delete', 'dev', name)
    }
    this.#groups = []
  }

  /** The long wires, whose other ends are elsewhere; {@link WireCalls}. */
  async wires(): Promise<Agent<WireCalls>> {
    this.#wires ??= await this.#openWires()
    return this.#wires
  }

  /** Adds a port that is one end of a long wire. @param port of UDP */
  async addWireEnd(name: string, port: number, { to }: { readonly to: string }): Promise<void> {
    const remote = ['remote', wireAddresses.wire, 'dstport', String(port)]
    await this.namespace.ip('link', 'add', 'dev', name, 'type', 'vxlan', 'id', '1', ...remote, 'nolearning')
    // What the kernel would cut into frames later must come as frames.
    await this.namespace.ip('link', 'set', 'dev', name, 'mtu', mtu.lan, 'gso_max_segs', '1', 'master', to, 'up')
  }

  async #openWires(): Promise<Agent<WireCalls>> {
    const place = this.#opened.use(await NetworkNamespace.open())
    const peer = ['peer', 'name', 'wire', 'netns', place.name]
    await this.namespace.ip('link', 'add', 'dev', 'wire', 'type', 'veth', ...peer)
    await this.namespace.ip('address', 'add', `${wireAddresses.lan}/24`, 'dev', 'wire')
    await place.ip('address', 'add', `${wireAddresses.wire}/24`, 'dev', 'wire')
    for (const end of [this.namespace, place]) await end.ip('link', 'set', 'dev', 'wire', 'mtu', mtu.wire, 'up')
    // The kernel leaves the checksum of a frame to the last device; the program is none.
    const rule = ['-A', 'POSTROUTING', '-o', 'wire', '-p', 'udp', '-j', 'CHECKSUM', '--checksum-fill']
    await this.namespace.execute('iptables', ['-t', 'mangle', ...rule])
    return this.#opened.use(new Agent<WireCalls>(place, 'wire.ts', [wireAddresses.lan]))
  }

  async #addSwitch(name: string): Promise<void> {
    const options = ['mcast_snooping', '0', 'stp_state', '0', 'forward_delay', '0']
    await this.namespace.ip('link', 'add', 'dev', name, 'type', 'bridge', ...options)
    await this.namespace.ip('link', 'set', 'dev', name, 'up')
  }

  #linkOf(host: Host): Link {
    const link = host.links.find(({ lan }) => lan === this)
    if (!link) throw new Error(`${host.name} is not here`)
    return link
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}
