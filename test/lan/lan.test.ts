import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { testUnless } from '../prerequisites.ts'
import { until } from '../shoal-process.ts'
import type { Host } from './host.ts'
import { Lan } from './lan.ts'
import { sourceOf } from './lan-shoal.ts'
import { LanWorld, whyNoLan } from './lan-world.ts'

const lanTest = testUnless(whyNoLan())

const group = '239.255.77.77'

/** Seconds that some bytes take from one host to another. */
async function transfer(from: Host, to: Host, bytes: number): Promise<number> {
  const { length, seconds } = await to.fetch({ url: `http://${from.address}:8000/${bytes}` })
  assert.is(length, bytes)
  return seconds
}

async function reaches(from: Host, to: Host, patience = 10_000): Promise<boolean> {
  const got = await from.fetch({ url: `http://${to.address}:8000/1`, patience }).catch(() => undefined)
  return got?.length === 1
}

async function isCutOff(from: Host, to: Host): Promise<boolean> {
  return !(await reaches(from, to, 300))
}

async function hostsOf(lan: Lan, ...names: string[]): Promise<Host[]> {
  const hosts = await Promise.all(names.map(name => lan.host({ name })))
  await Promise.all(hosts.map(host => host.agent.call('serve', { port: 8000 })))
  return hosts
}

lanTest('hosts reach each other, and multicast reaches all, also after they were cut off and healed', async () => {
  await using lan = await Lan.open()
  const [ada, bob, eve] = await hostsOf(lan, 'ada', 'bob', 'eve')
  assert.ok(ada && bob && eve)
  for (const host of [bob, eve]) await host.agent.call('hear', { group, port: 5000, on: host.address })
  const say = (text: string) => ada.agent.call('say', { group, port: 5000, on: ada.address, text })
  const heardBy = (host: Host, count: number) =>
    until(
      async () => {
        const heard = await host.agent.call('heard', { group })
        return heard.length >= count ? heard : undefined
      },
      () => `${host.name} hears nothing`,
      3000,
    )
  await say('one')
  assert.equal(await heardBy(bob, 1), [`${ada.address} one`])
  assert.equal(await heardBy(eve, 1), [`${ada.address} one`])
  assert.ok(await reaches(ada, bob))

  await bob.cut()
  assert.ok(await isCutOff(ada, bob))
  await say('two')
  assert.equal((await heardBy(eve, 2)).length, 2)
  await bob.heal()
  assert.ok(await reaches(ada, bob))
  await bob.unplug()
  assert.ok(await isCutOff(ada, bob))
  await bob.heal()
  await say('three')
  assert.equal(await heardBy(bob, 2), [`${ada.address} one`, `${ada.address} three`])
})

lanTest('a network that is split is one in each part, and one again when it is healed', async () => {
  await LanWorld.use(async ({ lan, internet }) => {
    const [ada, bob, eve] = await hostsOf(lan, 'ada', 'bob', 'eve')
    assert.ok(ada && bob && eve)
    await lan.partition([ada], [bob, eve])
    assert.ok(await reaches(bob, eve))
    assert.ok(await isCutOff(ada, bob))
    assert.ok(await isCutOff(eve, ada))
    for (const host of [ada, bob, eve]) assert.is((await host.fetch({ url: `${internet.gcr}/v2/` })).status, 200)
    await lan.heal()
    for (const host of [bob, eve]) assert.ok(await reaches(ada, host))
  })
})

lanTest('a rate, a delay and losses are as they were asked for', async () => {
  await using lan = await Lan.open()
  const [ada, bob] = await hostsOf(lan, 'ada', 'bob')
  assert.ok(ada && bob)
  await ada.shape({ rate: '40mbit' })
  const size = 2_500_000
  for (const [from, to] of [
    [ada, bob],
    [bob, ada],
  ] as const) {
    const { sent, received } = await from.link.traffic()
    const seconds = await transfer(from, to, size)
    assert.ok(seconds > 0.45, `${seconds} s, not 0.5`)
    const traffic = await from.link.traffic()
    assert.ok(traffic.sent - sent > size && traffic.received - received < size / 2)
  }
  await ada.shape({ delay: 20 })
  // Of the connection, and of the request.
  assert.ok((await transfer(ada, bob, 1)) >= 0.08)
  await ada.shape({ loss: 1 })
  assert.ok(await isCutOff(ada, bob))
  await ada.shape({ loss: 0.01, delay: 5, rate: '100mbit' })
  await transfer(ada, bob, size)
  await transfer(bob, ada, size)
  await ada.shape({})
  await transfer(ada, bob, size)
})

lanTest('a host of two networks is in both, and a router lets no multicast through', async () => {
  await LanWorld.use(async world => {
    const [ada] = await hostsOf(world.lan, 'ada')
    const other = await world.anotherLan('10.78.0')
    const [bob, eve] = await hostsOf(other, 'bob', 'eve')
    assert.ok(ada && bob && eve)
    assert.ok(await reaches(ada, bob))
    for (const host of [ada, eve]) await host.agent.call('hear', { group, port: 5000, on: host.address })
    await bob.agent.call('say', { group, port: 5000, on: bob.address, text: 'hello' })
    await until(
      async () => ((await eve.agent.call('heard', { group })).length > 0 ? true : undefined),
      () => 'eve hears nothing',
      3000,
    )
    assert.equal(await ada.agent.call('heard', { group }), [])

    const link = await ada.addLink(other, { routed: false })
    assert.is(link.device, 'lan1')
    assert.ok((await bob.fetch({ url: `http://${link.address}:8000/1` })).status)
    await ada.link.readdress('10.77.0.99')
    assert.ok(await reaches(eve, ada))
  })
})

lanTest('the internet is there, counts by host, fails as it is told to, and can be cut off', async () => {
  await LanWorld.use(async ({ lan, internet }) => {
    const [ada, bob] = await hostsOf(lan, 'ada', 'bob')
    assert.ok(ada && bob)
    const image = await internet.agent.call('add', { repository: 'library/busybox', layers: [100_000] })
    const [layer] = image.layers
    assert.ok(layer)
    const url = `${internet.gcr}/v2/library/busybox/blobs/${layer.digest}`
    const { status, digest, length } = await ada.fetch({ url })
    assert.equal({ status, digest, length }, { status: 200, digest: layer.digest, length: layer.size })
    assert.is(await internet.blobBytes(ada.address), layer.size)
    assert.is(await internet.blobBytes(bob.address), 0)
    await internet.agent.call('fault', [{ server: 'gcr', times: 1, fault: { kind: 'cut', at: 1000 } }])
    const cut = await bob.fetch({ url })
    assert.is(cut.length, 1000)
    assert.ok(cut.broken)
    await internet.cut()
    assert.is(await bob.fetch({ url, patience: 400 }).catch(() => undefined), undefined)
    await internet.heal()
    assert.is((await bob.fetch({ url })).length, layer.size)
  })
})

lanTest('daemons run on hosts of their own, under their names', async () => {
  await LanWorld.use(async world => {
    const { internet } = world
    const image = await internet.agent.call('image', { repository: 'library/forty' })
    const [ada, bob] = await world.shoals(['ada', 'bob'], { 'swarm-enabled': 'false' })
    assert.ok(ada && bob)
    const pulled = await ada.pull(image, { tag: 'latest' })
    assert.is(sourceOf(pulled.manifest), 'local')
    assert.is(sourceOf(pulled.blobs[0]!), new URL(internet.gcr).host)
    const total = [image.config, ...image.layers].reduce((sum, { size }) => sum + size, 0)
    assert.is(await internet.blobBytes(ada.host.address), total)
    assert.is(await internet.blobBytes(bob.host.address), 0)
    const status = await ada.status()
    assert.equal([status.node, status.store.blobs], ['ada', 42])
    await ada.kill()
    await ada.start()
    assert.is(sourceOf((await ada.pull(image)).blobs[0]!), 'local')
    const { stdout } = await bob.shoal(['status', '--json'])
    assert.is((JSON.parse(stdout) as { node: string }).node, 'bob')
    await bob.stop()
  })
})

test.run()
