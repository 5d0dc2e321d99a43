import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Address, Dialer, type DialerOptions } from './dialer.ts'

type Dialled = { peerId?: string; addresses: readonly Address[] }

/** A dialer whose clock is the test's, and what it did. */
function dialerWith(options: Partial<DialerOptions> = {}) {
  const dialled: Dialled[] = []
  const failures: unknown[] = []
  const clock = { now: 0 }
  const dialer = new Dialer({
    self: 'm',
    dial: async target => {
      dialled.push(target)
      return target.peerId ?? 'someone'
    },
    isConnected: () => false,
    isBanned: () => false,
    now: () => clock.now,
    random: () => 0.5,
    onFailure: (_target, _via, error) => void failures.push(error),
    ...options,
  })
  return { dialer, dialled, failures, clock, [Symbol.dispose]: () => dialer.close() }
}

const at = (last: number) => ({ host: `10.0.0.${last}`, port: 3476 })

test('who is found is dialled at once by the lower id, and given time to dial by the higher', () => {
  using world = dialerWith()
  world.dialer.found({ peerId: 'z', ...at(1) }, 'mdns')
  world.dialer.found({ peerId: 'a', ...at(2) }, 'mdns')
  assert.equal(world.dialled, [{ peerId: 'z', addresses: [at(1)] }])
})

test('it dials neither itself, nor the banned, nor who is connected', () => {
  using world = dialerWith({ isBanned: id => id === 'x', isConnected: ({ peerId }) => peerId === 'y' })
  for (const peerId of ['m', 'x', 'y']) world.dialer.found({ peerId, ...at(1) }, 'mdns')
  assert.equal(world.dialled, [])
})

test('the newest address comes first, and there are never more than eight', async () => {
  using world = dialerWith({ dial: async () => Promise.reject(new Error('no')) })
  const tried: Dialled[] = []
  using other = dialerWith({
    dial: async target => {
      tried.push(target)
      throw new Error('no')
    },
  })
  for (let last = 1; last <= 12; last++) other.dialer.found({ peerId: 'z', ...at(last) }, 'mdns')
  await sleep(5)
  other.clock.now += 60_000
  other.dialer.found({ peerId: 'z', ...at(13) }, 'mdns')
  const addresses = tried.at(-1)?.addresses ?? []
  assert.equal(addresses[0], at(13))
  assert.is(addresses.length, 8)
  void world
})

test('one that does not answer is told of once, and tried at growing intervals', async () => {
  let count = 0
  using world = dialerWith({
    dial: async () => {
      count++
      throw new Error('ECONNREFUSED')
    },
  })
  world.dialer.found({ ...at(1) }, 'bootstrap')
  await sleep(5)
  const again = async (ms: number) => {
    world.clock.now += ms
    world.dialer.found({ peerId: 'm', ...at(9) }, 'peers')
    world.dialer.found({ ...at(1) }, 'bootstrap')
    await sleep(5)
    return count
  }
  assert.is(count, 1)
  assert.is(await again(500), 1)
  assert.is(await again(600), 2)
  assert.is(await again(1100), 2)
  assert.is(await again(1100), 3)
  assert.is(world.failures.length, 1)
})

test('a connection that was lost is dialled again soon', async () => {
  let connected = false
  using world = dialerWith({ isConnected: () => connected })
  world.dialer.found({ peerId: 'z', ...at(1) }, 'mdns')
  await sleep(5)
  connected = true
  world.clock.now += 100_000
  connected = false
  world.dialer.lost('z')
  world.clock.now += 200
  world.dialer.found({ peerId: 'z', ...at(1) }, 'mdns')
  assert.is(world.dialled.length, 2)
})

test('an address behind which a peer was met is not dialled while that one is connected, wherever it says it is', async () => {
  let connected = true
  using world = dialerWith({ isConnected: ({ peerId }) => connected && peerId === 'someone' })
  for (let time = 0; time < 3; time++) {
    world.dialer.found(at(1), 'bootstrap')
    await sleep(5)
    world.clock.now += 20_000
  }
  assert.is(world.dialled.length, 1)
  connected = false
  world.dialer.found(at(1), 'bootstrap')
  assert.equal(world.dialled.at(-1), { addresses: [at(1)] })
  assert.is(world.dialled.length, 2)
})

test('peers that are only told of, and are nowhere, leave room for who is seen', async () => {
  const dialled: string[] = []
  using world = dialerWith({
    dial: ({ peerId = '' }) => {
      dialled.push(peerId)
      return new Promise(() => {})
    },
  })
  for (let count = 0; count < 5000; count++)
    world.dialer.found({ peerId: `n${count}`, host: `10.1.${count >> 8}.${count & 255}`, port: 1 }, 'peers')
  world.dialer.found({ peerId: 'z', ...at(1) }, 'mdns')
  assert.is(dialled.at(-1), 'z')
})

test('who has failed is dialled after those who have not', async () => {
  const dialled: string[] = []
  const ends: (() => void)[] = []
  using world = dialerWith({
    dial: ({ peerId = '' }) => {
      dialled.push(peerId)
      return new Promise((_, reject) => ends.push(() => reject(new Error('nobody'))))
    },
  })
  for (let count = 0; count < 8; count++) world.dialer.found({ peerId: `n${count}`, ...at(count) }, 'mdns')
  world.dialer.found({ peerId: 'z', ...at(9) }, 'mdns')
  assert.is(dialled.length, 8)
  // By now all of them are due.
  for (const end of ends.splice(0, 1)) end()
  world.clock.now += 60_000
  await sleep(5)
  assert.is(dialled.at(-1), 'z')
})

test('strangers cannot have it remember without bound', () => {
  using world = dialerWith({ dial: () => new Promise(() => {}) })
  for (let count = 0; count < 5000; count++)
    world.dialer.found({ peerId: `n${count}`, host: `10.1.${count >> 8}.${count & 255}`, port: 1 }, 'peers')
  assert.ok(world.dialled.length <= 16)
})

test.run()
