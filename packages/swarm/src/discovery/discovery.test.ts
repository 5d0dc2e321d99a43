import { mock } from 'node:test'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Target } from '../dialer.ts'
import { openNetwork } from '../network.ts'
import { NetworkWatch } from '../network-watch.ts'
import type { Lookup } from './bootstrap.ts'
import { Discovery, type DiscoveryOptions } from './discovery.ts'
import type { SrvTarget } from './srv.ts'

const peerId = '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp'
const second = 1000
const minute = 60 * second

/** A machine that looks for peers, and timers that go on when a test says so. */
class World implements AsyncDisposable {
  /** Who was found, and how. */
  readonly found: string[] = []
  /** Hosts of the settings that were nowhere. */
  readonly nowhere: string[] = []
  /** Names that were resolved, in order. */
  readonly resolved: string[] = []
  readonly discovery: Discovery
  connected = 0
  /** How often the DNS was asked for services. */
  asked = 0

  constructor(
    bootstrap: readonly string[],
    {
      lookup = async () => ['10.0.0.1'],
      services = async () => [],
      ...options
    }: Partial<Pick<DiscoveryOptions, 'mdns' | 'lookup' | 'services'>> = {},
  ) {
    mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
    this.discovery = Discovery.open({
      self: peerId,
      port: 3476,
      network: openNetwork,
      watch: new NetworkWatch({ list: () => ({}) }),
      mdns: false,
      bootstrap,
      connected: () => this.connected,
      onFound: ({ peerId, host, port }: Target, via) =>
        void this.found.push(`${via} ${host} ${port}${peerId === undefined ? '' : ` ${peerId}`}`),
      onNowhere: host => void this.nowhere.push(host),
      lookup: (host, family) => {
        this.resolved.push(host)
        return lookup(host, family)
      },
      services: () => {
        this.asked++
        return services()
      },
      ...options,
    })
  }

  /** Has so many ms pass. */
  async pass(ms: number): Promise<void> {
    await settle()
    for (let left = ms; left > 0; left -= second) {
      mock.timers.tick(Math.min(left, second))
      await settle()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.discovery.close()
    mock.timers.reset()
  }
}

/** Lets all go on that waits for nothing but a turn. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise(resolve => setImmediate(resolve))
}

test('whom the settings name, and where the DNS says that peers are, is found at once', async () => {
  const services = async () => [{ host: '10.0.0.3', port: 4000 }]
  await using w = new World(['desk', `/ip4/10.0.0.2/tcp/1/p2p/${peerId}`], { services })
  await w.pass(0)
  assert.equal(w.found.toSorted(), ['bootstrap 10.0.0.1 3476', `bootstrap 10.0.0.2 1 ${peerId}`, 'srv 10.0.0.3 4000'])
})

test('while nobody is connected all is asked again every 15 s, otherwise every five minutes', async () => {
  await using w = new World(['desk'])
  await w.pass(14 * second)
  assert.equal([w.resolved.length, w.asked], [1, 1])
  await w.pass(second)
  assert.equal([w.resolved.length, w.asked], [2, 2])
  w.connected = 1
  await w.pass(15 * second)
  assert.equal([w.resolved.length, w.asked], [3, 3])
  await w.pass(5 * minute - second)
  assert.equal([w.resolved.length, w.asked], [3, 3])
  w.connected = 0
  await w.pass(second)
  assert.equal([w.resolved.length, w.asked], [4, 4])
  await w.pass(15 * second)
  assert.equal([w.resolved.length, w.asked], [5, 5])
})

test('a name is resolved anew each time, and found where it is by then', async () => {
  const answers = [['10.0.0.1'], [], ['10.0.0.2', 'fd00::2']]
  await using w = new World(['desk'], { lookup: async () => answers.shift() ?? [] })
  await w.pass(45 * second)
  assert.equal(w.found, ['bootstrap 10.0.0.1 3476', 'bootstrap 10.0.0.2 3476', 'bootstrap fd00::2 3476'])
})

test('a name, or a DNS, that does not answer hinders neither the others nor the next look', async () => {
  const services = () => Promise.reject(new Error('ETIMEOUT'))
  const lookup: Lookup = async host => (host === 'gone' ? Promise.reject(new Error('ENOTFOUND')) : ['10.0.0.1'])
  await using w = new World(['gone', 'desk'], { lookup, services })
  await w.pass(15 * second)
  assert.equal(w.found, ['bootstrap 10.0.0.1 3476', 'bootstrap 10.0.0.1 3476'])
  assert.equal(w.nowhere, ['gone', 'gone'])
})

test('nobody is waited for before the others are found, and no second question is asked of who has not answered', async () => {
  const late = Promise.withResolvers<readonly string[]>()
  const lookup: Lookup = async host => (host === 'late' ? late.promise : ['10.0.0.1'])
  await using w = new World(['late', 'desk'], { lookup })
  await w.pass(10 * minute)
  assert.equal(w.found, ['bootstrap 10.0.0.1 3476'])
  assert.equal(w.resolved, ['late', 'desk'])
  w.discovery.hurry()
  late.resolve(['10.0.0.9'])
  await w.pass(0)
  assert.equal(w.resolved, ['late', 'desk', 'desk'])
  assert.ok(w.found.includes('bootstrap 10.0.0.9 3476'))
  await w.pass(15 * second)
  assert.equal(w.resolved.slice(3), ['late', 'desk'])
})

test('only what the settings lead to is named, were it public', async () => {
  const services = async () => [{ host: '10.0.0.3', port: 4000 }]
  const addresses = [['203.0.113.7'], ['203.0.113.8']]
  await using w = new World(['desk', '198.51.100.1'], { services, lookup: async () => addresses.shift() ?? [] })
  assert.not(w.discovery.names('203.0.113.7'))
  await w.pass(0)
  const named = (...hosts: string[]) => hosts.map(host => w.discovery.names(host))
  assert.equal(named('203.0.113.7', '198.51.100.1', '203.0.113.8', '10.0.0.3', 'desk', ''), [
    true,
    true,
    false,
    false,
    false,
    false,
  ])
  await w.pass(15 * second)
  // Who came from where the name led before may still be connected.
  assert.equal(named('203.0.113.7', '203.0.113.8'), [true, true])
})

test('an address is named before it is found', async () => {
  const named: boolean[] = []
  const { promise, resolve } = Promise.withResolvers<Discovery>()
  const discovery = Discovery.open({
    self: peerId,
    port: 3476,
    network: openNetwork,
    watch: new NetworkWatch({ list: () => ({}) }),
    mdns: false,
    bootstrap: ['203.0.113.7'],
    connected: () => 0,
    onFound: ({ host }) => {
      named.push(discovery.names(host))
      resolve(discovery)
    },
    services: async () => [],
  })
  await (await promise).close()
  assert.equal(named, [true])
})

test('in a hurry all is asked at once, and the next time is as far away as ever', async () => {
  await using w = new World(['desk'])
  await w.pass(10 * second)
  w.discovery.hurry()
  await w.pass(0)
  assert.equal([w.resolved.length, w.asked], [2, 2])
  await w.pass(14 * second)
  assert.equal([w.resolved.length, w.asked], [2, 2])
  await w.pass(second)
  assert.equal([w.resolved.length, w.asked], [3, 3])
})

test('several hurries at once do not multiply what is asked later', async () => {
  await using w = new World(['desk'])
  for (let count = 0; count < 5; count++) w.discovery.hurry()
  await w.pass(0)
  const before = w.asked
  await w.pass(30 * second)
  assert.is(w.asked - before, 2)
})

test('once it is closed nobody is asked, and who is found late is not told of', async () => {
  const [names, services] = [Promise.withResolvers<readonly string[]>(), Promise.withResolvers<readonly SrvTarget[]>()]
  await using w = new World(['desk'], { lookup: () => names.promise, services: () => services.promise })
  await w.pass(0)
  await w.discovery.close()
  names.resolve(['10.0.0.1'])
  services.resolve([{ host: '10.0.0.3', port: 4000 }])
  await w.pass(10 * minute)
  assert.equal(w.found, [])
  assert.equal([w.resolved.length, w.asked], [1, 1])
})

test('multicast is used if it is wanted', async () => {
  await using without = new World([])
  assert.is(without.discovery.diagnosis, undefined)
  mock.timers.reset()
  await using w = new World([], { mdns: true })
  assert.is(w.discovery.diagnosis?.strangers, 0)
})

test('an entry of the settings that names no peer is refused', () => {
  assert.throws(
    () =>
      Discovery.open({
        self: peerId,
        port: 3476,
        network: openNetwork,
        watch: new NetworkWatch({ list: () => ({}) }),
        mdns: false,
        bootstrap: ['a b'],
        connected: () => 0,
        onFound: () => {},
      }),
    /names no peer/,
  )
})

test.run()
