import { EventEmitter } from 'node:events'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { LanInterface } from '../network-watch.ts'
import { announcementsIn, instanceName, markOf, recordsOf, serviceName, timeToLive } from './announcement.ts'
import { type DnsMessage, decodeDns, encodeDns, recordTypes } from './dns-message.ts'
import { Mdns } from './mdns.ts'
import { pauseAfter } from './mdns-link.ts'
import type { LinkAddress, SocketEvents } from './multicast-socket.ts'

const key = Buffer.alloc(32, 7)
const minute = 60_000

/** Ids as libp2p prints them. */
const idOf = (letter: string) => `12D3KooW${letter.repeat(44)}`

const v4 = (name: string, address: string): LanInterface => ({
  name,
  address,
  family: 4,
  netmask: '255.255.255.0',
  internal: name === 'lo',
  scopeid: undefined,
})

const v6 = (name: string, address: string): LanInterface => ({
  ...v4(name, address),
  family: 6,
  netmask: 'ffff:ffff:ffff:ffff::',
  scopeid: 2,
})

type Socket = { readonly link: LinkAddress; readonly events: SocketEvents; open: boolean }

type Packet = { readonly at: number; readonly link: string; readonly message: DnsMessage }

/** A machine on a network, whose packets and time a test sees and sets. */
class Machine {
  readonly #world: World
  readonly watch: EventEmitter<{ changed: []; woke: [] }> & { interfaces: readonly LanInterface[] }
  readonly mdns: Mdns
  readonly peerId: string
  readonly found: string[] = []
  readonly sockets: Socket[] = []
  readonly sent: Packet[] = []
  knownPeers = 0
  /** Whether what it sends leaves it. */
  sends = true
  opens = true

  constructor(world: World, letter: string, interfaces: readonly LanInterface[], markKey: Buffer) {
    this.#world = world
    this.peerId = idOf(letter)
    this.watch = Object.assign(new EventEmitter<{ changed: []; woke: [] }>(), { interfaces })
    this.mdns = Mdns.open({
      watch: this.watch,
      peerId: this.peerId,
      port: 3476,
      markKey,
      knownPeers: () => this.knownPeers,
      onFound: ({ peerId, host, port }) => void this.found.push(`${peerId.at(-1)} ${host} ${port}`),
      openSocket: (link, events) => this.#open(link, events),
      now: () => world.now,
      random: () => 0.5,
      after: world.after,
    })
  }

  #open(link: LinkAddress, events: SocketEvents) {
    const socket: Socket = { link, events, open: true }
    this.sockets.push(socket)
    queueMicrotask(() => {
      if (this.opens) events.opened()
      else this.fail(socket)
    })
    return {
      send: async (bytes: Buffer) => {
        if (!this.sends || !socket.open) return false
        const message = decodeDns(bytes)
        assert.ok(message)
        this.sent.push({ at: this.#world.now, link: `${link.scope} ${link.family}`, message })
        this.#world.deliver(this, link, bytes)
        return true
      },
      close: () => void (socket.open = false),
    }
  }

  fail(socket: Socket): void {
    socket.open = false
    socket.events.failed(new Error('ENETDOWN'))
  }

  set interfaces(interfaces: readonly LanInterface[]) {
    this.watch.interfaces = interfaces
    this.watch.emit('changed')
  }

  /** A packet comes, as from a neighbour. */
  receive(bytes: Buffer, from = '10.0.0.99'): void {
    for (const { open, events, link } of this.sockets) if (open && link.family === 4) events.received(bytes, from)
  }

  questions(): Packet[] {
    return this.sent.filter(({ message }) => !message.response)
  }

  announcements(): Packet[] {
    return this.sent.filter(({ message }) => message.response)
  }

  /** Whom it has found since it was last asked. */
  takeFound(): string[] {
    return [...new Set(this.found.splice(0))].sort()
  }
}

/** One network for each number of interface, and a clock that goes on when a test says so. */
class World {
  now = 0
  readonly machines: Machine[] = []
  #timers: { at: number; then: () => void }[] = []

  machine(
    letter: string,
    { interfaces = [v4('eth0', `10.0.0.${letter.charCodeAt(0)}`)], markKey = key } = {},
  ): Machine {
    const machine = new Machine(this, letter, interfaces, markKey)
    this.machines.push(machine)
    return machine
  }

  after = (ms: number, then: () => void): Disposable => {
    const timer = { at: this.now + ms, then }
    this.#timers.push(timer)
    return { [Symbol.dispose]: () => void (this.#timers = this.#timers.filter(other => other !== timer)) }
  }

  get timers(): number {
    return this.#timers.length
  }

  /** To all sockets of the family, on all networks: which are theirs they tell by where a packet is from. */
  deliver(from: Machine, { family, address, scope }: LinkAddress, bytes: Buffer): void {
    for (const machine of this.machines)
      for (const { open, link, events } of machine.sockets)
        if (
          open &&
          link.family === family &&
          (link.scope === 'lo' ? scope === 'lo' && machine === from : scope !== 'lo')
        )
          events.received(bytes, family === 4 ? address : `${address}%${link.scope}`)
  }

  async pass(ms: number): Promise<void> {
    const end = this.now + ms
    await settle()
    for (;;) {
      const [next] = this.#timers.sort((a, b) => a.at - b.at)
      if (!next || next.at > end) break
      this.#timers.shift()
      this.now = Math.max(this.now, next.at)
      next.then()
      await settle()
    }
    this.now = end
  }
}

async function settle(): Promise<void> {
  for (let turns = 0; turns < 3; turns++) await new Promise(resolve => setImmediate(resolve))
}

function announced(letter: string, { markKey = key, hosts = ['10.0.0.99'], ttl = timeToLive, port = 1 } = {}): Buffer {
  const peerId = idOf(letter)
  const mark = markOf(markKey, peerId, Buffer.alloc(8))
  return encodeDns({ response: true, answers: recordsOf({ peerId, port, mark, hosts }, ttl) })
}

function question(known: readonly string[] = []): Buffer {
  return encodeDns({
    questions: [{ name: serviceName, type: recordTypes.PTR }],
    answers: known.map(peerId => ({
      name: serviceName,
      ttl: timeToLive,
      flush: false,
      type: 'PTR',
      target: instanceName(peerId),
    })),
  })
}

const secondsOf = (packets: readonly Packet[]) => packets.map(({ at }) => Math.round(at / 1000))

test('machines find each other within 2 s', async () => {
  const world = new World()
  const [a, b] = [world.machine('a'), world.machine('b')]
  await world.pass(2000)
  assert.equal(a.takeFound(), ['b 10.0.0.98 3476'])
  assert.equal(b.takeFound(), ['a 10.0.0.97 3476'])
  const late = world.machine('c')
  await world.pass(2000)
  assert.equal(late.takeFound(), ['a 10.0.0.97 3476', 'b 10.0.0.98 3476'])
  assert.equal(
    a.takeFound().filter(found => found.startsWith('c')),
    ['c 10.0.0.99 3476'],
  )
})

test('it announces twice at the beginning, and asks ever less', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(5 * minute)
  assert.equal(secondsOf(a.announcements()), [0, 1])
  assert.equal(secondsOf(a.questions()), [0, 1, 4, 13, 40, 100, 160, 220, 280])
})

test('the more peers are known, the less it asks, and it asks again once they are gone', async () => {
  const world = new World()
  const a = world.machine('a')
  a.knownPeers = 100
  await world.pass(4 * 3_600_000)
  assert.ok(a.questions().length < 14, `${a.questions().length} questions`)
  const before = a.questions().length
  a.knownPeers = 0
  await world.pass(minute)
  assert.is(a.questions().length, before + 1)
  assert.equal(
    [1, 2, 3, 9, 2000].map(asked => pauseAfter(asked, 0)),
    [1000, 3000, 9000, minute, minute],
  )
  assert.equal(
    [0, 1, 9, 59, 1000].map(peers => pauseAfter(99, peers)),
    [1, 2, 10, 60, 60].map(m => m * minute),
  )
})

test('what it announces on an interface are the addresses of that alone', async () => {
  const world = new World()
  const a = world.machine('a', {
    interfaces: [v4('lo', '127.0.0.1'), v4('eth0', '10.0.0.1'), v6('eth0', 'fe80::1'), v4('wlan0', '10.1.0.1')],
  })
  await world.pass(100)
  const hosts = a.announcements().map(({ link, message }) => `${link}: ${announcementsIn(message)[0]?.hosts}`)
  assert.equal(hosts.sort(), [
    'eth0 4: 10.0.0.1,fe80::1',
    'eth0 6: 10.0.0.1,fe80::1',
    'lo 4: 127.0.0.1',
    'wlan0 4: 10.1.0.1',
  ])
})

test('names and the mark tell no more than the peer id, and the mark is a fresh one at each opening', async () => {
  const world = new World()
  const a = world.machine('a')
  const again = world.machine('a')
  await world.pass(100)
  const [one, two] = [a, again].map(machine => announcementsIn(machine.announcements()[0]!.message)[0]!.mark)
  assert.not.equal(one, two)
})

test('an address that is link-local comes with the interface that it was heard on', async () => {
  const world = new World()
  const a = world.machine('a', { interfaces: [v6('eth0', 'fe80::1')] })
  world.machine('b', { interfaces: [v6('eth0', 'fe80::2')] })
  await world.pass(2000)
  assert.equal(a.takeFound(), ['b fe80::2%eth0 3476'])
})

test('addresses that are not of the LAN, or of loopback, are not dialled', async () => {
  const world = new World()
  const a = world.machine('a', { interfaces: [v4('eth0', '10.0.0.1')] })
  await world.pass(100)
  a.receive(
    announced('b', { hosts: ['8.8.8.8', '127.0.0.1', '100.64.0.1', '::1', '2001:db8::1', '10.9.9.9', '0.0.0.0'] }),
  )
  assert.equal(a.takeFound(), ['b 10.9.9.9 1'])
})

test('what is not from this link is not looked at', async () => {
  const world = new World()
  const a = world.machine('a', { interfaces: [v4('eth0', '10.0.0.1')] })
  await world.pass(100)
  for (const from of ['10.0.1.1', '8.8.8.8', '', 'x', 'fe80::1%eth0', 'fe80::1%eth1']) a.receive(announced('b'), from)
  assert.equal(a.takeFound(), ['b 10.0.0.99 1'])
  assert.is(a.mdns.diagnosis.heard, 1)
  a.receive(announced('b'), '10.0.0.2')
  assert.is(a.takeFound().length, 1)
})

test('daemons of one machine find each other over loopback', async () => {
  const world = new World()
  const interfaces = [v4('lo', '127.0.0.1')]
  const a = world.machine('a', { interfaces })
  await world.pass(100)
  const [socket] = a.sockets
  socket?.events.received(announced('b', { hosts: ['127.0.0.1'] }), '127.0.0.1')
  assert.equal(a.takeFound(), ['b 127.0.0.1 1'])
  assert.equal(a.mdns.diagnosis, { interfaces: [], heard: 0, strangers: 0 })
})

test('members of other networks are counted, and not found', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(100)
  for (const letter of 'bcdb') a.receive(announced(letter, { markKey: Buffer.alloc(32, 9) }))
  assert.equal(a.takeFound(), [])
  assert.is(a.mdns.diagnosis.strangers, 3)
  assert.is(a.mdns.diagnosis.heard, 0)
  await world.pass(11 * minute)
  assert.is(a.mdns.diagnosis.strangers, 0)
})

test('it can tell that its own announcements come back', async () => {
  const world = new World()
  const a = world.machine('a')
  assert.equal(a.mdns.diagnosis.interfaces, [{ name: 'eth0', hearsItself: false }])
  await world.pass(100)
  assert.equal(a.mdns.diagnosis, { interfaces: [{ name: 'eth0', hearsItself: true }], heard: 0, strangers: 0 })
  assert.equal(a.takeFound(), [])
})

test('a question is answered soon, and not more than once a second', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(10_000)
  const before = a.announcements().length
  for (let asked = 0; asked < 10; asked++) a.receive(question())
  assert.is(a.announcements().length, before)
  await world.pass(120)
  assert.is(a.announcements().length, before + 1)
  a.receive(question())
  await world.pass(800)
  assert.is(a.announcements().length, before + 1)
  await world.pass(200)
  assert.is(a.announcements().length, before + 2)
})

test('who knows it already gets no answer', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(10_000)
  const before = a.announcements().length
  a.receive(question([idOf('b'), a.peerId]))
  await world.pass(2000)
  assert.is(a.announcements().length, before)
})

test('its own questions are not answered by itself, and name whom it has just heard', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(500)
  a.receive(announced('b'))
  a.receive(announced('c'))
  a.receive(announced('c', { ttl: 0 }))
  await world.pass(2000)
  assert.is(a.announcements().length, 2)
  const known = a
    .questions()
    .at(-1)!
    .message.answers.map(record => record.type === 'PTR' && record.target)
  assert.equal(
    known,
    [idOf('b'), a.peerId].map(peerId => instanceName(peerId).toLowerCase()),
  )
  await world.pass(2 * minute)
  assert.is(a.questions().at(-1)!.message.answers.length, 1)
})

test('an interface that comes is used at once; one that stays is left in peace', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(10_000)
  a.sent.length = 0
  a.interfaces = [...a.watch.interfaces, v4('wlan0', '10.1.0.5')]
  await world.pass(500)
  assert.equal([...new Set(a.sent.map(({ link }) => link))], ['wlan0 4'])
  a.interfaces = [v4('wlan0', '10.1.0.6')]
  await world.pass(500)
  assert.equal(
    a.sockets.filter(({ open }) => open).map(({ link }) => link.address),
    ['10.1.0.6'],
  )
  assert.equal(announcementsIn(a.announcements().at(-1)!.message)[0]?.hosts, ['10.1.0.6'])
})

test('after sleep all sockets are opened anew, and everybody is asked', async () => {
  const world = new World()
  const [a, b] = [world.machine('a'), world.machine('b')]
  await world.pass(10_000)
  a.takeFound()
  b.takeFound()
  a.watch.emit('woke')
  a.mdns.hurry()
  await world.pass(2000)
  assert.is(a.sockets.length, 2)
  assert.is(a.sockets[0]?.open, false)
  assert.equal(a.takeFound(), ['b 10.0.0.98 3476'])
  assert.equal(b.takeFound(), ['a 10.0.0.97 3476'])
})

test('whom it has heard is asked for anew when there is a hurry', async () => {
  const world = new World()
  const [a] = [world.machine('a'), world.machine('b')]
  await world.pass(10_000)
  a.takeFound()
  for (let times = 0; times < 5; times++) a.mdns.hurry()
  await world.pass(1500)
  assert.equal(a.takeFound(), ['b 10.0.0.98 3476'])
  assert.is(a.questions().filter(({ at }) => at >= 10_000).length, 2)
})

test('a socket that fails is opened again, ever less often', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(100)
  a.opens = false
  a.fail(a.sockets[0]!)
  await world.pass(5 * minute)
  assert.ok(a.sockets.length > 6 && a.sockets.length < 14, `${a.sockets.length} sockets`)
  assert.is(a.sockets.filter(({ open }) => open).length, 0)
  assert.equal(a.mdns.diagnosis.interfaces, [{ name: 'eth0', hearsItself: false }])
  a.opens = true
  await world.pass(minute)
  assert.is(a.sockets.filter(({ open }) => open).length, 1)
  assert.is(a.mdns.diagnosis.interfaces[0]?.hearsItself, true)
})

test('an announcement that cannot leave is repeated until it can', async () => {
  const world = new World()
  const a = world.machine('a')
  a.sends = false
  await world.pass(5000)
  a.sends = true
  await world.pass(10_000)
  assert.is(a.announcements().length, 2)
})

test('it says goodbye, and is silent then', async () => {
  const world = new World()
  const [a, b] = [world.machine('a'), world.machine('b')]
  await world.pass(2000)
  assert.is(b.mdns.diagnosis.heard, 1)
  b.takeFound()
  await a.mdns.close()
  await a.mdns.close()
  assert.ok(
    a
      .announcements()
      .at(-1)
      ?.message.answers.every(({ ttl }) => ttl === 0),
  )
  assert.is(b.mdns.diagnosis.heard, 0)
  assert.equal(b.takeFound(), [])
  const sent = a.sent.length
  b.mdns.hurry()
  a.watch.emit('changed')
  a.watch.emit('woke')
  a.receive(question())
  await world.pass(10 * minute)
  assert.is(a.sent.length, sent)
  assert.is(a.sockets.filter(({ open }) => open).length, 0)
  await b.mdns.close()
  await world.pass(1000)
  assert.is(world.timers, 0)
})

test('one who floods is heard in part, and the others meanwhile', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(100)
  for (let packets = 0; packets < 5000; packets++) a.receive(announced('b', { port: 1 + packets }), '10.0.0.50')
  assert.is(a.found.length, 20)
  a.receive(announced('c'))
  assert.is(a.found.length, 21)
  const asked = question()
  for (let packets = 0; packets < 5000; packets++) a.receive(asked, `10.0.0.${packets % 250}`)
  await world.pass(1000)
  assert.ok(a.announcements().length <= 3)
})

test('strangers without number are counted in part', async () => {
  const world = new World()
  const a = world.machine('a')
  const letters = 'ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789'
  for (let index = 0; index < 2000; index++) {
    const peerId = `12D3KooW${'a'.repeat(42)}${letters[index % 58]}${letters[Math.floor(index / 58) % 58]}`
    const answers = recordsOf({ peerId, port: 1, mark: Buffer.alloc(24), hosts: [] })
    a.receive(encodeDns({ response: true, answers }), `10.0.0.${index % 250}`)
    if (index % 100 === 0) await world.pass(1000)
  }
  assert.is(a.mdns.diagnosis.strangers, 1024)
})

test('no packet makes it throw', async () => {
  const world = new World()
  const a = world.machine('a')
  await world.pass(100)
  const sound = fc.constantFrom(announced('b'), announced('b', { ttl: 0 }), question(), question([a.peerId]))
  const changed = fc
    .tuple(sound, fc.array(fc.tuple(fc.nat(1000), fc.nat(255)), { maxLength: 5 }), fc.nat(1000))
    .map(([bytes, changes, length]) => {
      const copy = Buffer.from(bytes)
      for (const [at, value] of changes) copy[at % copy.length] = value
      return copy.subarray(0, length)
    })
  const garbage = fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.concat([bytes, Buffer.from('_shoal')]))
  await fc.assert(
    fc.asyncProperty(fc.oneof(changed, garbage), async bytes => {
      world.now += 100
      a.receive(bytes)
    }),
    { numRuns: 2000 },
  )
  a.takeFound()
  a.receive(announced('c'))
  assert.equal(a.takeFound(), ['c 10.0.0.99 1'])
})

test.run()
