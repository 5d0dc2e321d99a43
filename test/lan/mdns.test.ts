import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { NetworkNamespace } from '../network-namespace.ts'
import { testUnless } from '../prerequisites.ts'
import { until } from '../shoal-process.ts'
import { Agent } from './agent.ts'
import { Host } from './host.ts'
import { Lan } from './lan.ts'
import { whyNoLan } from './lan-world.ts'
import type { MdnsCalls } from './mdns-agent.ts'

const lanTest = testUnless(whyNoLan())

/** How long it takes to be found, in ms, and what a busy machine adds: 2 s, 2 s after which a change is seen. */
const soon = 3500
const soonAfterChange = 5500

/** Somebody who looks for others by multicast alone. */
class Seeker {
  readonly peerId: string
  readonly port: number
  readonly #agent: Agent<MdnsCalls>

  constructor(agent: Agent<MdnsCalls>, letter: string, port: number) {
    this.#agent = agent
    this.peerId = `12D3KooW${letter.repeat(44)}`
    this.port = port
  }

  async open(network = 'a'): Promise<void> {
    await this.#agent.call('open', { peerId: this.peerId, port: this.port, network })
  }

  /** Addresses at which it has found another one. */
  async addressesOf({ peerId, port }: Seeker): Promise<string[]> {
    const found = await this.#agent.call('found', { peerId: this.peerId })
    return found.filter(other => other.peerId === peerId && other.port === port).map(({ host }) => host)
  }

  async finds(other: Seeker, host: string | RegExp, ms = soon): Promise<void> {
    let seen: readonly string[] = []
    const isIt = (address: string) => (typeof host === 'string' ? address === host : host.test(address))
    await until(
      async () => {
        seen = await this.addressesOf(other)
        return seen.some(isIt) ? seen : undefined
      },
      () => `not found at ${host}, but at ${[...new Set(seen)].join() || 'nothing'}`,
      ms,
    )
  }

  async forget(): Promise<void> {
    await this.#agent.call('found', { peerId: this.peerId, forget: true })
  }

  diagnosis() {
    return this.#agent.call('diagnosis', { peerId: this.peerId })
  }

  close(): Promise<void> {
    return this.#agent.call('close', { peerId: this.peerId })
  }
}

/** Hosts of a network, and a seeker on each, not open yet. */
class Street implements AsyncDisposable {
  readonly lan: Lan
  readonly #opened = new AsyncDisposableStack()
  #letters = 'abcdefgh'

  private constructor(lan: Lan) {
    this.lan = this.#opened.use(lan)
  }

  static async open(): Promise<Street> {
    return new Street(await Lan.open())
  }

  async house(): Promise<{ host: Host; seeker: Seeker }> {
    const host = await this.lan.host({ name: 'house' })
    return { host, seeker: this.seeker(host.namespace) }
  }

  seeker(namespace: NetworkNamespace): Seeker {
    const [letter = ''] = this.#letters
    this.#letters = this.#letters.slice(1)
    const agent = this.#opened.use(new Agent<MdnsCalls>(namespace, 'mdns-agent.ts'))
    return new Seeker(agent, letter, 3000 + letter.charCodeAt(0))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}

lanTest('hosts of a LAN find each other within 2 s, over IPv4 and IPv6', async () => {
  await using street = await Street.open()
  const [ada, bob, eve] = [await street.house(), await street.house(), await street.house()]
  await ada.seeker.open()
  await bob.seeker.open()
  await ada.seeker.finds(bob.seeker, bob.host.address)
  await bob.seeker.finds(ada.seeker, ada.host.address)
  await bob.seeker.finds(ada.seeker, /^fe80::.*%lan0$/)
  await eve.seeker.open()
  await eve.seeker.finds(ada.seeker, ada.host.address)
  await eve.seeker.finds(bob.seeker, bob.host.address)
  await ada.seeker.finds(eve.seeker, eve.host.address)
  assert.equal(await ada.seeker.diagnosis(), {
    interfaces: [{ name: 'lan0', hearsItself: true }],
    heard: 2,
    strangers: 0,
  })
})

lanTest('a LAN that is the second interface is looked into, and what is on one is not told on the other', async () => {
  await using street = await Street.open()
  await using lonely = await Lan.open({ subnet: '10.99.0' })
  const [ada, bob] = [await Host.open({ name: 'ada' }), await Host.open({ name: 'bob' })]
  await using hosts = new AsyncDisposableStack()
  for (const host of [ada, bob]) hosts.use(host)
  // Only ada is at the first one; bob's first one has nobody else.
  await ada.addLink(lonely)
  await ada.addLink(street.lan)
  await bob.addLink(street.lan)
  const [first, second] = [street.seeker(ada.namespace), street.seeker(bob.namespace)]
  await first.open()
  await second.open()
  await first.finds(second, bob.address)
  await second.finds(first, ada.links[1]?.address ?? '')
  assert.not((await second.addressesOf(first)).includes(ada.address))
  assert.not((await first.addressesOf(second)).some(host => host.endsWith('%lan0')))
})

lanTest('a host with a new address is found there', async () => {
  await using street = await Street.open()
  const [ada, bob] = [await street.house(), await street.house()]
  await ada.seeker.open()
  await bob.seeker.open()
  await ada.seeker.finds(bob.seeker, bob.host.address)
  await ada.seeker.forget()
  const before = bob.host.address
  await bob.host.link.readdress('10.77.0.200')
  await ada.seeker.finds(bob.seeker, '10.77.0.200', soonAfterChange)
  await ada.seeker.forget()
  await bob.seeker.forget()
  await ada.host.link.readdress('10.77.0.201')
  await bob.seeker.finds(ada.seeker, '10.77.0.201', soonAfterChange)
  await ada.seeker.finds(bob.seeker, '10.77.0.200', soonAfterChange)
  assert.not((await ada.seeker.addressesOf(bob.seeker)).includes(before))
})

lanTest('a host whose cable was pulled is found once it is back, and so are the others by it', async () => {
  await using street = await Street.open()
  const [ada, bob] = [await street.house(), await street.house()]
  await ada.seeker.open()
  await bob.seeker.open()
  await ada.seeker.finds(bob.seeker, bob.host.address)
  await bob.host.unplug()
  await until(
    async () => ((await bob.seeker.diagnosis()).interfaces.length === 0 ? true : undefined),
    () => 'the interface is still there',
  )
  await ada.seeker.forget()
  await bob.seeker.forget()
  await bob.host.heal()
  await ada.seeker.finds(bob.seeker, bob.host.address, soonAfterChange)
  await bob.seeker.finds(ada.seeker, ada.host.address, soonAfterChange)
})

lanTest('an interface that comes later is looked into', async () => {
  await using street = await Street.open()
  const bob = await street.house()
  await bob.seeker.open()
  await using ada = await Host.open({ name: 'ada' })
  const seeker = street.seeker(ada.namespace)
  await seeker.open()
  await ada.addLink(street.lan)
  await seeker.finds(bob.seeker, bob.host.address, soonAfterChange)
  await bob.seeker.finds(seeker, ada.address, soonAfterChange)
})

lanTest('who leaves says so', async () => {
  await using street = await Street.open()
  const [ada, bob] = [await street.house(), await street.house()]
  await ada.seeker.open()
  await bob.seeker.open()
  await ada.seeker.finds(bob.seeker, bob.host.address)
  await bob.seeker.close()
  await until(
    async () => ((await ada.seeker.diagnosis()).heard === 0 ? true : undefined),
    () => 'it is still there',
    soon,
  )
})

lanTest('two networks on one LAN do not meet, but know that there is another', async () => {
  await using street = await Street.open()
  const [ada, bob] = [await street.house(), await street.house()]
  await ada.seeker.open('a')
  await bob.seeker.open('b')
  await until(
    async () => ((await ada.seeker.diagnosis()).strangers === 1 ? true : undefined),
    () => 'nobody has been heard',
    soon,
  )
  assert.equal(await ada.seeker.addressesOf(bob.seeker), [])
})

lanTest('two on one host find each other, without any network, too', async () => {
  await using street = await Street.open()
  await using alone = await NetworkNamespace.open()
  const [one, two] = [street.seeker(alone), street.seeker(alone)]
  await one.open()
  await two.open()
  await one.finds(two, '127.0.0.1')
  await two.finds(one, '127.0.0.1')
  const { host, seeker } = await street.house()
  const other = street.seeker(host.namespace)
  await seeker.open()
  await other.open()
  await seeker.finds(other, host.address)
  await other.finds(seeker, '127.0.0.1')
})

test.run()
