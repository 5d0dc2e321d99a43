import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { testUnless } from '../prerequisites.ts'
import { until } from '../shoal-process.ts'
import { Lan } from './lan.ts'
import type { LanShoal, PeerRow } from './lan-shoal.ts'
import { LanWorld, whyNoLan } from './lan-world.ts'

const lanTest = testUnless(whyNoLan())

/** How long one may be taken for a member after its host has vanished without a word, in ms. */
const longestGhost = 30_000

/** A second daemon on a host. */
const secondPorts = {
  'mirror-listen': '127.0.0.1:4474',
  'admin-listen': '127.0.0.1:4475',
  'swarm-listen': '0.0.0.0:4476',
  'swarm-transfer-listen': '0.0.0.0:4477',
}

async function allMeet(shoals: readonly LanShoal[], ms?: number): Promise<void> {
  await Promise.all(
    shoals.map(shoal =>
      shoal.meets(
        shoals.filter(other => other !== shoal),
        ms,
      ),
    ),
  )
}

lanTest('machines of a LAN find each other within 10 s, by multicast alone', async () => {
  await LanWorld.use(async world => {
    const [ada, bob, eve] = await world.shoals(['ada', 'bob', 'eve'])
    assert.ok(ada && bob && eve)
    await allMeet([ada, bob, eve])
    const { status, stdout } = await ada.shoal(['peers', '--json'])
    assert.is(status, 0)
    const rows = JSON.parse(stdout) as readonly PeerRow[]
    assert.equal(rows.map(({ name, state }) => `${name} ${state}`).sort(), ['bob connected', 'eve connected'])
    for (const { name, addresses } of rows) {
      const { address } = name === 'bob' ? bob.host : eve.host
      assert.ok(
        addresses.some(known => known.includes(address)),
        `${name}: ${addresses}`,
      )
    }
  })
})

lanTest('a LAN that is the second interface is looked into, too', async () => {
  await LanWorld.use(async world => {
    await using lonely = await Lan.open({ subnet: '10.99.0' })
    const [ada, bob] = await Promise.all(
      ['ada', 'bob'].map(async name => {
        const host = await lonely.host({ name })
        await host.addLink(world.lan)
        return host
      }),
    )
    assert.ok(ada && bob)
    await lonely.partition([ada], [bob])
    const [first, second] = await Promise.all([ada, bob].map(host => host.shoal({ internet: world.internet })))
    assert.ok(first && second)
    await allMeet([first, second])
  })
})

lanTest('an interface that comes later is looked into', async () => {
  await LanWorld.use(async world => {
    await using lonely = await Lan.open({ subnet: '10.99.0' })
    const bob = await world.shoal({ name: 'bob' })
    const ada = await world.shoal({ name: 'ada', lan: lonely })
    await ada.host.addLink(world.lan, { routed: false })
    await allMeet([ada, bob], 15_000)
  })
})

lanTest('one with a new address is found again', async () => {
  await LanWorld.use(async world => {
    const [ada, bob] = await world.shoals(['ada', 'bob'])
    assert.ok(ada && bob)
    await allMeet([ada, bob])
    await ada.host.link.readdress('10.77.0.99')
    await until(
      async () => (await bob.connected()).find(({ addresses }) => addresses.some(at => at.includes('10.77.0.99'))),
      () => 'bob does not meet ada at her new address',
      30_000,
    )
    await allMeet([ada, bob])
  })
})

lanTest('one that was restarted is found again, the same as before', async () => {
  await LanWorld.use(async world => {
    const [ada, bob] = await world.shoals(['ada', 'bob'])
    assert.ok(ada && bob)
    await allMeet([ada, bob])
    const { peer_id } = await ada.status()
    await ada.stop()
    await bob.meets([], 2000)
    await ada.start()
    assert.is((await ada.status()).peer_id, peer_id)
    await allMeet([ada, bob])
  })
})

lanTest(
  'one that is killed is forgotten at once, one that vanishes after a while, and both are found again',
  async () => {
    await LanWorld.use(async world => {
      const [ada, bob] = await world.shoals(['ada', 'bob'])
      assert.ok(ada && bob)
      await allMeet([ada, bob])
      await ada.kill()
      await bob.meets([], 2000)
      await ada.start()
      await allMeet([ada, bob])
      for (const how of ['cut', 'unplug'] as const) {
        await ada.host[how]()
        await Promise.all([ada, bob].map(shoal => shoal.meets([], longestGhost)))
        await ada.host.heal()
        await allMeet([ada, bob], 15_000)
      }
    })
  },
)

lanTest('parts of a split network are one again when it is healed', async () => {
  await LanWorld.use(async world => {
    const [ada, bob, eve] = await world.shoals(['ada', 'bob', 'eve'])
    assert.ok(ada && bob && eve)
    await allMeet([ada, bob, eve])
    await world.lan.partition([ada.host], [bob.host, eve.host])
    await Promise.all([ada.meets([], longestGhost), bob.meets([eve], longestGhost), eve.meets([bob], longestGhost)])
    await world.lan.heal()
    await allMeet([ada, bob, eve], 15_000)
  })
})

lanTest('one peer of another subnet is enough to find all there', async () => {
  await LanWorld.use(async world => {
    const far = await world.anotherLan('10.78.0')
    const ada = await world.shoal({ name: 'ada' })
    const bob = await world.shoal({ name: 'bob' })
    await allMeet([ada, bob])
    const eve = await world.shoal({ name: 'eve', lan: far, settings: { 'swarm-bootstrap': ada.host.address } })
    const joe = await world.shoal({ name: 'joe', lan: far })
    await allMeet([ada, bob, eve, joe], 15_000)
  })
})

lanTest('two daemons on one host find each other, and others find both', async () => {
  await LanWorld.use(async world => {
    const ada = await world.shoal({ name: 'ada' })
    const second = await ada.host.shoal({ internet: world.internet, settings: secondPorts })
    await allMeet([ada, second])
    const bob = await world.shoal({ name: 'bob' })
    await allMeet([ada, second, bob])
  })
})

lanTest('one that looks for nobody by multicast is found by nobody', async () => {
  await LanWorld.use(async world => {
    const quiet = await world.shoal({ name: 'quiet', settings: { 'swarm-mdns': 'false' } })
    const [ada, bob] = await world.shoals(['ada', 'bob'])
    assert.ok(ada && bob)
    await allMeet([ada, bob])
    await quiet.meets([], 1000)
    await quiet.restart({ 'swarm-bootstrap': `${ada.host.address}:3476` })
    await allMeet([ada, bob, quiet], 15_000)
  })
})

test.run()
