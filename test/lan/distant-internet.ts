import type { Filter } from '../../scripts/internet/log.ts'
import { NetworkNamespace } from '../network-namespace.ts'
import { Agent } from './agent.ts'
import type { Asked, InternetCalls, Tally } from './internet-program.ts'
import { setRate } from './link.ts'
import type { Router } from './router.ts'

/** Outside of all local networks (RFC 5737, TEST-NET-3). */
const address = '203.0.113.10'
const gateway = '203.0.113.1'

/** Docker Hub and mirror.gcr.io on a host behind the router. */
export class DistantInternet implements AsyncDisposable {
  /** Of the endpoints: `http://203.0.113.10:40001`. */
  readonly gcr: string
  readonly hub: string
  /** For what has no method here. */
  readonly agent: Agent<InternetCalls>
  readonly #router: Router
  readonly #namespace: NetworkNamespace
  readonly #opened: AsyncDisposableStack

  private constructor(
    parts: {
      gcr: string
      hub: string
      agent: Agent<InternetCalls>
      router: Router
      namespace: NetworkNamespace
    },
    opened: AsyncDisposableStack,
  ) {
    this.gcr = parts.gcr
    this.hub = parts.hub
    this.agent = parts.agent
    this.#router = parts.router
    this.#namespace = parts.namespace
    this.#opened = opened
  }

  static async open(router: Router): Promise<DistantInternet> {
    await using opened = new AsyncDisposableStack()
    const namespace = opened.use(await NetworkNamespace.open())
    const peer = ['peer', 'name', 'uplink', 'netns', router.namespace.name]
    await namespace.ip('link', 'add', 'dev', 'uplink', 'type', 'veth', ...peer)
    await namespace.ip('address', 'add', `${address}/24`, 'dev', 'uplink')
    await router.namespace.ip('address', 'add', `${gateway}/24`, 'dev', 'uplink')
    for (const end of [namespace, router.namespace]) await end.ip('link', 'set', 'dev', 'uplink', 'up')
    await namespace.ip('route', 'add', 'default', 'via', gateway)
    // What it has handed to a connection has nearly left: else it counts megabytes that nobody was sent.
    await namespace.set('ipv4/tcp_wmem', '4096 16384 262144')
    const agent = opened.use(new Agent<InternetCalls>(namespace, 'internet-program.ts', [address]))
    const urls = await agent.call('urls', undefined)
    return new DistantInternet({ ...urls, agent, router, namespace }, opened.move())
  }

  /** What was asked for, by whom, how many bytes of a body went out. */
  async asked(filter: Omit<Filter, 'path'> & { path?: string } = {}): Promise<readonly Asked[]> {
    return this.agent.call('log', filter)
  }

  /** What went out since the log was cleared. */
  tally(): Promise<Tally> {
    return this.agent.call('tally', undefined)
  }

  /** Bytes of blobs that went out to an address, or all. */
  async blobBytes(client?: string): Promise<number> {
    const asked = await this.asked({ method: 'GET', ...(client !== undefined && { client }) })
    const blobs = asked.filter(
      ({ server, path, status }) =>
        status < 300 && (server === 'cdn' || (server === 'gcr' && path.includes('/blobs/'))),
    )
    return blobs.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** From here on no more comes over the line. @param rate such as `10mbit` */
  async narrow(rate: string): Promise<void> {
    await setRate(this.#namespace, 'uplink', rate)
  }

  /** The line is cut: nothing comes through, and nobody is told. */
  async cut(): Promise<void> {
    await this.#router.drop(address, true)
  }

  async heal(): Promise<void> {
    await this.#router.drop(address, false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}
