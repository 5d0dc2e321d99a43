import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Outline } from '../lan/internet-program.ts'
import { check, type LanShoal, sourceOf } from '../lan/lan-shoal.ts'
import { LanWorld, whyNoLan } from '../lan/lan-world.ts'
import { testUnless } from '../prerequisites.ts'
import { until } from '../shoal-process.ts'

const lanTest = testUnless(whyNoLan())

const small = [200_000, 5000, 20]
const big = [6_000_000]

/** Manifest, config and layers. */
const countOf = ({ layers }: Outline) => layers.length + 2

/** Has Docker Hub, and it alone, have an image. */
function addImage({ internet }: LanWorld, layers: number[], repository = 'library/four'): Promise<Outline> {
  return internet.agent.call('add', { repository, tag: 'latest', layers })
}

/** The first has pulled an image, and all others know that it has it. */
async function spread(image: Outline, holder: LanShoal, others: readonly LanShoal[]): Promise<void> {
  await holder.pull(image, { tag: 'latest' })
  await Promise.all(others.map(other => other.hearsOf(countOf(image), holder)))
}

/** Pulls by digest, with each byte of it from peers. */
async function pullFromPeers(image: Outline, shoal: LanShoal): Promise<void> {
  const { manifest, blobs } = await shoal.pull(image)
  assert.equal([manifest, ...blobs].map(sourceOf), Array(countOf(image)).fill('peer'))
}

/** Waits until a host has sent so many bytes since `before`. */
async function hasSent({ host }: LanShoal, bytes: number): Promise<void> {
  const before = (await host.link.traffic()).sent
  await until(
    async () => ((await host.link.traffic()).sent - before > bytes ? true : undefined),
    () => `${host.name} has not sent ${bytes} bytes`,
  )
}

/** Has the line be slower than peers are, and a machine know that it is. @returns what it then had from upstream, in bytes */
async function slowLine(world: LanWorld, shoal: LanShoal): Promise<number> {
  const image = await addImage(world, [1_200_000], 'library/line')
  await world.internet.narrow('10mbit')
  await shoal.blob(image, image.layers[0]!)
  return world.internet.blobBytes(shoal.host.address)
}

lanTest('what one machine has pulled, the next has from it, and upstream gives it once', async () => {
  await LanWorld.use(async world => {
    const { internet } = world
    const image = await addImage(world, small)
    const [ada, bob] = await world.shoals(['ada', 'bob'])
    assert.ok(ada && bob)
    await Promise.all([ada.meets([bob]), bob.meets([ada])])
    await spread(image, ada, [bob])
    await pullFromPeers(image, bob)
    assert.is(await internet.blobBytes(bob.host.address), 0)
    const gets = await internet.asked({ client: bob.host.address, method: 'GET', path: '/v2/', status: 200 })
    assert.equal(gets, [])
    const again = await bob.pull(image)
    assert.is(sourceOf(again.blobs[0]!), 'local')
    const { served } = await bob.status()
    assert.is(served.peer.requests, countOf(image))
  })
})

lanTest('with the line cut, what a peer has is there by its digest', async () => {
  await LanWorld.use(async world => {
    const image = await addImage(world, small)
    const [ada, bob] = await world.shoals(['ada', 'bob'])
    assert.ok(ada && bob)
    await Promise.all([ada.meets([bob]), bob.meets([ada])])
    await spread(image, ada, [bob])
    await world.internet.cut()
    await pullFromPeers(image, bob)
  })
})

lanTest('a peer that is killed amid a blob: another goes on at the same byte', async () => {
  await LanWorld.use(async world => {
    const image = await addImage(world, big)
    const [layer] = image.layers
    const [ada, bob, eve] = await world.shoals(['ada', 'bob', 'eve'])
    assert.ok(ada && bob && eve && layer)
    await bob.meets([ada, eve])
    await eve.meets([ada, bob])
    await spread(image, ada, [bob, eve])
    await eve.pull(image)
    await bob.hearsOf(countOf(image), eve)
    const had = await slowLine(world, bob)
    for (const { host } of [ada, eve]) await host.shape({ rate: '20mbit' })
    const before = (await bob.host.link.traffic()).received
    const pulled = bob.blob(image, layer)
    const giver = await Promise.race([ada, eve].map(async shoal => hasSent(shoal, 1_000_000).then(() => shoal)))
    await giver.kill()
    check(await pulled, layer)
    assert.is(await world.internet.blobBytes(bob.host.address), had)
    // Two thirds of it would have come twice if it had begun anew.
    const received = (await bob.host.link.traffic()).received - before
    assert.ok(received < layer.size * 1.4, `${received} of ${layer.size} bytes`)
  })
})

for (const [how, end] of Object.entries({
  'is killed': (shoal: LanShoal) => shoal.kill(),
  'is cut off': (shoal: LanShoal) => shoal.host.cut(),
  'stands still': async (shoal: LanShoal) => shoal.signal('SIGSTOP'),
}))
  lanTest(`the only holder ${how} amid a blob: upstream gives the rest, and no more`, async () => {
    await LanWorld.use(async world => {
      const image = await addImage(world, big)
      const [layer] = image.layers
      const [ada, bob] = await world.shoals(['ada', 'bob'])
      assert.ok(ada && bob && layer)
      await bob.meets([ada])
      await spread(image, ada, [bob])
      const had = await slowLine(world, bob)
      await ada.host.shape({ rate: '20mbit' })
      const pulled = bob.blob(image, layer)
      await hasSent(ada, 2_000_000)
      await end(ada)
      check(await pulled, layer)
      const bytes = (await world.internet.blobBytes(bob.host.address)) - had
      assert.ok(bytes > 0 && bytes < layer.size * 0.8, `${bytes} of ${layer.size} bytes`)
    })
  })

lanTest('after a cut is healed, peers give again', async () => {
  await LanWorld.use(async world => {
    const [first, second] = [await addImage(world, small), await addImage(world, small, 'library/five')]
    const [ada, bob] = await world.shoals(['ada', 'bob'])
    assert.ok(ada && bob)
    await bob.meets([ada])
    await spread(first, ada, [bob])
    await bob.host.cut()
    await ada.pull(second, { tag: 'latest' })
    await bob.meets([], 30_000)
    await bob.host.heal()
    await bob.meets([ada], 15_000)
    await bob.hearsOf(countOf(first) + countOf(second), ada)
    for (const image of [first, second]) await pullFromPeers(image, bob)
  })
})

lanTest('over links that lose 1 % and take 20 ms, peers meet and give', async () => {
  await LanWorld.use(async world => {
    const images = [await addImage(world, [2_000_000, 1000]), await addImage(world, [3_000_000], 'library/five')]
    const hosts = await Promise.all(['ada', 'bob'].map(name => world.lan.host({ name })))
    // From one to the other frames pass two links.
    for (const host of hosts) await host.shape({ rate: '100mbit', delay: 10, loss: 0.005 })
    const [ada, bob] = await Promise.all(hosts.map(host => host.shoal({ internet: world.internet })))
    assert.ok(ada && bob)
    await Promise.all([ada.meets([bob]), bob.meets([ada])])
    for (const image of images) await ada.pull(image, { tag: 'latest' })
    await bob.hearsOf(
      images.reduce((sum, image) => sum + countOf(image), 0),
      ada,
    )
    // A frame that is lost while two meet may have one blob or the other come from upstream, as that is sooner.
    for (const image of images) await bob.pull(image)
    const { served } = await bob.status()
    assert.ok(served.peer.bytes > served.upstream.bytes, JSON.stringify(served))
  })
})

lanTest('who shares nothing takes, and gives nothing', async () => {
  await LanWorld.use(async world => {
    const [first, second] = [await addImage(world, small), await addImage(world, small, 'library/five')]
    const [miser, bob] = await Promise.all([
      world.shoal({ name: 'miser', settings: { 'swarm-share': 'none' } }),
      world.shoal({ name: 'bob' }),
    ])
    await Promise.all([miser.meets([bob]), bob.meets([miser])])
    await spread(first, bob, [miser])
    await pullFromPeers(first, miser)
    await miser.pull(second, { tag: 'latest' })
    const { blobs } = await bob.pull(second)
    for (const got of blobs) assert.is.not(sourceOf(got), 'peer')
    const [seen] = await bob.connected()
    assert.is(seen?.blobs, 0)
  })
})

lanTest('one that gives to as many as it may says so, and the others have it elsewhere', async () => {
  await LanWorld.use(async world => {
    const image = await addImage(world, [1_500_000])
    const [layer] = image.layers
    const takers = ['bob', 'eve', 'joe', 'kim']
    const [ada, ...others] = await Promise.all([
      world.shoal({ name: 'ada', settings: { 'swarm-max-uploads': '1' } }),
      ...takers.map(name => world.shoal({ name })),
    ])
    assert.ok(ada && layer)
    await ada.meets(others, 15_000)
    await spread(image, ada, others)
    await ada.host.shape({ rate: '10mbit' })
    const begin = (await ada.host.link.traffic()).sent
    for (const got of await Promise.all(others.map(other => other.blob(image, layer)))) check(got, layer)
    const sent = (await ada.host.link.traffic()).sent - begin
    assert.ok(sent < layer.size * 2.5, `ada has sent ${sent} bytes`)
  })
})

lanTest('on both sides of a split, upstream is asked once, and nothing is wrong after', async () => {
  await LanWorld.use(async world => {
    const image = await addImage(world, small)
    const [ada, bob, eve] = await world.shoals(['ada', 'bob', 'eve'])
    assert.ok(ada && bob && eve)
    await bob.meets([ada, eve])
    await world.lan.partition([ada.host], [bob.host, eve.host])
    await ada.pull(image, { tag: 'latest' })
    await spread(image, bob, [eve])
    await pullFromPeers(image, eve)
    assert.is(await world.internet.blobBytes(eve.host.address), 0)
    await world.lan.heal()
    await ada.meets([bob, eve], 40_000)
  })
})

test.run()
