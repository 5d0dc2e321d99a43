import type { NetworkInterfaceInfo } from 'node:os'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type InterfaceList, NetworkWatch } from './network-watch.ts'

const v4 = (address: string, internal = false): NetworkInterfaceInfo => ({
  address,
  netmask: '255.255.255.0',
  family: 'IPv4',
  mac: '00:00:00:00:00:00',
  internal,
  cidr: null,
})

const v6 = (address: string, scopeid: number): NetworkInterfaceInfo => ({
  ...v4(address),
  netmask: 'ffff:ffff:ffff:ffff::',
  family: 'IPv6',
  scopeid,
})

/** A machine whose interfaces and time a test sets. */
class World {
  list: InterfaceList = { lo: [v4('127.0.0.1', true)], eth0: [v4('10.0.0.5'), v6('fe80::5', 2)] }
  fails = false
  now = 1_000_000
  readonly told: string[] = []
  stopped = false
  look: () => void = () => {}
  readonly watch = new NetworkWatch({
    list: () => {
      if (this.fails) throw new Error('ENOBUFS')
      return this.list
    },
    clock: () => this.now,
    every: (_, look) => {
      this.look = look
      return { [Symbol.dispose]: () => void (this.stopped = true) }
    },
  })

  constructor() {
    for (const event of ['changed', 'woke'] as const) this.watch.on(event, () => this.told.push(event))
    this.watch.start()
  }

  pass(ms = 2000): void {
    this.now += ms
    this.look()
  }

  get addresses(): string[] {
    return this.watch.interfaces.map(({ name, address, scopeid }) => `${name} ${address} ${scopeid ?? ''}`.trim())
  }
}

test('it gives the addresses of the LAN, and no others', () => {
  const world = new World()
  world.list = { ...world.list, eth1: [v4('203.0.113.7'), v6('2001:db8::7', 0)], wg0: [v4('100.64.0.7')] }
  world.pass()
  assert.equal(world.addresses, ['lo 127.0.0.1', 'eth0 10.0.0.5', 'eth0 fe80::5 2'])
  assert.equal(world.told, [])
})

test('it tells when an address comes, changes or goes', () => {
  const world = new World()
  world.pass()
  world.list = { ...world.list, wlan0: [v4('192.168.1.9')] }
  world.pass()
  world.pass()
  assert.equal(world.told.splice(0), ['changed'])
  world.list = { ...world.list, wlan0: [v4('192.168.1.10')] }
  world.pass()
  assert.equal(world.told.splice(0), ['changed'])
  world.list = { lo: world.list['lo'] }
  world.pass()
  assert.equal(world.told, ['changed'])
  assert.equal(world.addresses, ['lo 127.0.0.1'])
})

test('containers come and go without a word', () => {
  const world = new World()
  world.list = { ...world.list, veth1a2b3c4: [v6('fe80::9', 9)] }
  world.pass()
  assert.equal(world.told, [])
  world.list = { ...world.list, veth1a2b3c4: [v6('fe80::9', 9), v4('10.9.0.1')] }
  world.pass()
  assert.equal(world.told, ['changed'])
})

test('it tells when the machine has slept', () => {
  const world = new World()
  world.pass(9000)
  assert.equal(world.told, [])
  world.pass(3_600_000)
  assert.equal(world.told, ['woke'])
  world.pass()
  assert.equal(world.told, ['woke'])
})

test('a clock set back is no sleep, and a list that fails is no change', () => {
  const world = new World()
  world.pass(-3_600_000)
  world.fails = true
  world.pass()
  assert.equal(world.told, [])
  assert.is(world.addresses.length, 3)
})

test('it stops', () => {
  const world = new World()
  world.watch.stop()
  assert.ok(world.stopped)
})

test.run()
