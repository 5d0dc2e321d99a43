import { setImmediate as turn } from 'node:timers/promises'
import { digestOf } from '@shoal/oci/digest'
import { formatName, type Name, parseName } from '@shoal/oci/name'
import { NoRoomError } from '@shoal/store/room'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MirrorWorld, type MirrorWorldOptions, name, never } from '../../../test/mirror-world.ts'
import { imageOf, indexOf, type ScriptedImage } from '../../../test/scripted-registry.ts'
import { Refresher, type RefresherOptions } from './refresher.ts'

const [first, second, third] = [imageOf('first'), imageOf('second'), imageOf('third')]
const repository = name.repository
const image = `${formatName(name)}:latest`
const partsOf = ({ digest, config, layer }: ScriptedImage) => [digest, digestOf(config), digestOf(layer)]

/** A mirror that has pulled an image an hour ago, which the office pulls much, and what it refreshes. */
class Office implements AsyncDisposable {
  readonly world: MirrorWorld
  popular = [{ image, count: 5 }]
  resting: string | undefined
  readonly refreshed: string[] = []
  readonly failures: string[] = []
  readonly asked: string[] = []
  /** How long was waited, in ms, but for the next round. */
  readonly waits: number[] = []
  readonly rounds: { readonly ms: number; readonly begin: () => void }[] = []
  /** Ends a wait. */
  onWait: (end: () => void) => void = end => end()
  readonly refresher: Refresher

  private constructor(world: MirrorWorld, options: Partial<RefresherOptions>) {
    this.world = world
    this.refresher = new Refresher({
      store: world.store,
      resolver: world.resolver,
      popular: () => this.popular,
      responsible: (name, digest) => {
        this.asked.push(`${name} ${digest}`)
        return true
      },
      resting: () => this.resting,
      now: () => world.time,
      random: () => 0.5,
      sleep: (ms, signal) => this.#sleep(ms, signal),
      events: {
        refreshed: ({ image, digest }) => void this.refreshed.push(`${image} ${digest}`),
        failed: (what, error) => void this.failures.push(`${what}: ${error}`),
      },
      ...options,
    })
  }

  static async open(options: MirrorWorldOptions & Partial<RefresherOptions> = {}): Promise<Office> {
    const world = await MirrorWorld.open(options)
    const office = new Office(world, options)
    world.remote.put(repository, 'latest', first)
    if (!options.cachedOnly) await world.pull(name)
    office.passes(60)
    return office
  }

  passes(minutes: number): void {
    this.world.time += minutes * 60_000
    this.world.remote.asked.length = 0
  }

  holds(image: ScriptedImage): boolean[] {
    return partsOf(image).map(digest => this.world.store.sizeOf(digest) !== undefined)
  }

  #sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      if (ms >= 5 * 60_000) return void this.rounds.push({ ms, begin: resolve })
      this.waits.push(ms)
      this.onWait(() => {
        this.world.time += ms
        resolve()
      })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.refresher[Symbol.asyncDispose]()
    await this.world[Symbol.asyncDispose]()
  }
}

test('what a much-pulled tag has moved to is fetched before the next pull, which then asks upstream for nothing', async () => {
  await using office = await Office.open()
  const { world, refresher } = office
  world.remote.put(repository, 'latest', second)
  await refresher.round()
  assert.equal(office.holds(second), [true, true, true])
  assert.equal(office.refreshed, [`${image} ${second.digest}`])
  assert.is(world.remote.requests('HEAD').length, 1)
  assert.is(world.store.refs.held(name, 'latest')?.descriptor.digest, second.digest)
  const found = await world.resolver.taggedManifest(name, 'latest', never)
  assert.equal([found.digest, found.provenance], [second.digest, { kind: 'local' }])
  assert.is(world.remote.requests('GET').length, 3)
  await world.sharesOf(second, ['manifest', 'config', 'layer'])
  assert.equal(office.failures, [])
})

test('of a tag that has not moved nothing but one HEAD is asked', async () => {
  await using office = await Office.open()
  await office.refresher.round()
  assert.equal(
    office.world.remote.asked.map(asked => asked.slice(0, 4)),
    ['HEAD'],
  )
  assert.equal(office.refreshed, [])
})

test('nothing is asked of what is seldom pulled, not held, seen lately, no tag, or for another machine to see to', async () => {
  for (const spoil of [
    (office: Office) => (office.popular = [{ image, count: 1.9 }]),
    (office: Office) => (office.popular = [{ image: `${formatName(name)}:other`, count: 5 }]),
    (office: Office) => (office.popular = [{ image: `${formatName(name)}@${first.digest}`, count: 5 }]),
    (office: Office) => (office.popular = [{ image: 'no image', count: 5 }]),
    (office: Office) => (office.world.time -= 51 * 60_000),
  ]) {
    await using office = await Office.open()
    spoil(office)
    office.world.remote.put(repository, 'latest', second)
    await office.refresher.round()
    assert.equal([office.world.remote.asked, office.asked], [[], []])
  }
  await using office = await Office.open({ responsible: () => false })
  await office.refresher.round()
  assert.equal(office.world.remote.asked, [])
})

test('who is responsible is asked with what is held', async () => {
  await using office = await Office.open()
  await office.refresher.round()
  assert.equal(office.asked, [`${formatName(name)} ${first.digest}`])
})

test('at most 50 tags are asked for in a round, the most pulled first', async () => {
  await using office = await Office.open()
  const { world } = office
  const tags = Array.from({ length: 60 }, (_, i) => `v${i}`)
  for (const tag of tags) {
    world.remote.put(repository, tag, first)
    await world.resolver.taggedManifest(name, tag, never)
  }
  office.passes(60)
  office.popular = tags.map((tag, i) => ({ image: `${formatName(name)}:${tag}`, count: 100 - i }))
  await office.refresher.round()
  const heads = world.remote.requests('HEAD')
  assert.is(heads.length, 50)
  assert.match(heads[49]!, '/manifests/v49 ')
})

test('of an index only the platforms are fetched that are used, each in its place', async () => {
  await using office = await Office.open()
  const { world, refresher } = office
  const [other, windows, note] = [imageOf('other'), imageOf('windows'), imageOf('note')]
  const before = indexOf(
    ['linux/amd64', first],
    ['linux/arm64', other],
    ['windows/amd64', windows],
    ['unknown/unknown', third],
  )
  world.remote.putIndex(repository, 'latest', before)
  world.time += 60_000
  await world.resolver.taggedManifest(name, 'latest', never)
  // One of it was pulled, with its attestation, and one looked at.
  for (const digest of [other.digest, third.digest]) await world.resolver.manifest(name, digest, never)
  await world.pullBlob(name, digestOf(third.layer))
  const [otherSecond, windowsSecond] = [imageOf('other second'), imageOf('windows second')]
  const secondOther = imageOf('second of two')
  const after = indexOf(
    ['unknown/unknown', note],
    ['linux/arm64', otherSecond],
    ['linux/amd64', second],
    ['linux/amd64', secondOther],
    ['windows/amd64', windowsSecond],
  )
  world.remote.putIndex(repository, 'latest', after)
  office.passes(60)
  await refresher.round()
  assert.equal(office.holds(second), [true, true, true])
  for (const image of [otherSecond, windowsSecond, secondOther, note])
    assert.equal(office.holds(image), [false, false, false])
  assert.equal(office.refreshed, [`${image} ${after.digest}`])
})

test('of an image that is only looked at, no layers are fetched', async () => {
  await using office = await Office.open()
  const { world } = office
  await world.store.evict([digestOf(first.layer)])
  world.remote.put(repository, 'latest', second)
  await office.refresher.round()
  assert.equal(office.holds(second), [true, false, false])
})

test('layers are not got together with others, who would have to wait, and their rate tells nothing', async () => {
  await using office = await Office.open()
  const { world } = office
  const large = imageOf('x'.repeat(2_000_000))
  world.remote.put(repository, 'latest', large)
  world.peers.joined.length = 0
  await office.refresher.round()
  assert.equal(office.holds(large), [true, true, true])
  assert.equal([...new Set(world.peers.joined)], [large.digest])
  assert.is(world.resolver.rateOf(name), undefined)
})

test('it comes from peers if they have it', async () => {
  await using office = await Office.open()
  const { world } = office
  world.remote.put(repository, 'latest', second)
  world.peers.put(second.manifest, second.config, second.layer)
  await office.refresher.round()
  assert.equal(office.holds(second), [true, true, true])
  assert.equal(world.remote.requests('GET'), [])
})

test('nothing is fetched while this machine rests, or where the registry is silent, or limits pulls, or is about to', async () => {
  const stops: Record<string, (office: Office) => unknown> = {
    battery: office => (office.resting = 'on battery'),
    silent: async ({ world }) => {
      world.remote.status = 'hang'
      await world.resolver.describeTag(name, 'latest', never)
      await world.resolver.look(name, 'latest')
      world.remote.status = 0
    },
    limited: async ({ world }) => {
      world.remote.status = 429
      await world.resolver.manifest(name, third.digest, never).catch(() => {})
      world.remote.status = 0
    },
    'nearly limited': async ({ world }) => {
      world.remote.remaining = 10
      await world.resolver.look(name, 'latest')
    },
  }
  for (const stop of Object.values(stops)) {
    await using office = await Office.open()
    const { world } = office
    await stop(office)
    office.passes(60)
    world.remote.put(repository, 'latest', second)
    await office.refresher.round()
    assert.equal(world.remote.asked, [])
  }
})

test('cached_only: nothing is asked for', async () => {
  await using office = await Office.open({ cachedOnly: true })
  const { world } = office
  world.peers.put(first.manifest, first.config, first.layer)
  await world.pull(name)
  office.passes(60)
  world.remote.put(repository, 'latest', second)
  await office.refresher.round()
  assert.equal(world.remote.asked, [])
})

test('what is cut short by a limit or a battery goes on later, also if the manifest is held by then', async () => {
  const stops = [
    ({ world: { remote } }: Office) => (remote.remaining = 11),
    (office: Office) => office.world.store.onChange(() => (office.resting = 'on battery')),
  ]
  for (const stop of stops) {
    await using office = await Office.open()
    const { world, refresher } = office
    world.remote.put(repository, 'latest', second)
    stop(office)
    await refresher.round()
    assert.equal(office.holds(second), [true, false, false])
    assert.equal(office.refreshed, [])
    world.remote.remaining = 90
    await world.resolver.look(name, 'latest')
    for (let round = 0; round < 2; round++) {
      office.resting = undefined
      await refresher.round()
    }
    assert.equal(office.holds(second), [true, true, true])
    assert.equal(office.refreshed, [`${image} ${second.digest}`])
    office.passes(60)
    await refresher.round()
    assert.equal(world.remote.requests('GET'), [])
  }
})

test('the rate of a registry is measured by what clients get', async () => {
  await using office = await Office.open()
  const { world } = office
  const large = imageOf('x'.repeat(2_000_000))
  world.remote.put(repository, 'latest', large)
  await world.pull(name)
  assert.ok((world.resolver.rateOf(name) ?? 0) > 1e6)
})

test('it takes no more than its part of the line, and 8 Mbit/s if that was not measured', async () => {
  for (const [measured, most] of [
    [undefined, 1e6],
    [2e6, 500_000],
  ] as const) {
    await using office = await Office.open()
    const { world } = office
    const large = imageOf('x'.repeat(2_000_000))
    world.remote.put(repository, 'latest', large)
    world.resolver.rateOf = () => measured
    const begin = world.time
    await office.refresher.round()
    assert.equal(office.holds(large), [true, true, true])
    const bytes = large.config.length + large.layer.length
    const time = world.time - begin
    assert.ok(time >= (bytes / most) * 1000 - 250, `${bytes} bytes came within ${time} ms`)
    assert.ok(time < (bytes / most) * 1000 + 250, `${bytes} bytes took ${time} ms`)
  }
})

test('a client who comes to want the same does not wait for that', async () => {
  await using office = await Office.open()
  const { world } = office
  const large = imageOf('x'.repeat(2_000_000))
  world.remote.put(repository, 'latest', large)
  const ends: (() => void)[] = []
  const waits = Promise.withResolvers<void>()
  office.onWait = end => {
    ends.push(end)
    waits.resolve()
  }
  const round = office.refresher.round()
  await waits.promise
  const pulled = world.pullBlob(name, digestOf(large.config))
  await turn()
  for (const end of ends) end()
  await pulled
  assert.is(office.waits.length, 1)
  office.onWait = end => end()
  await round
})

test('what is larger than what is left of the day waits', async () => {
  await using office = await Office.open()
  const { world } = office
  const document: { layers: { size: number }[] } = JSON.parse(second.manifest.toString())
  for (const layer of document.layers) layer.size = 5e9
  const manifest = Buffer.from(JSON.stringify(document))
  world.remote.put(repository, 'latest', { ...second, manifest, digest: digestOf(manifest) })
  await office.refresher.round()
  assert.ok(world.store.sizeOf(digestOf(second.config)))
  assert.equal(world.remote.requests('GET', digestOf(second.layer)), [])
  assert.equal(office.refreshed, [])
})

test('it waits until nothing arrives for clients', async () => {
  await using office = await Office.open()
  const { world } = office
  world.remote.put(repository, 'latest', second)
  const transfer = world.store.begin(third.digest)
  office.onWait = end => {
    if (office.waits.length === 3) void transfer.park(new Error('it was given up')).then(end)
    else end()
  }
  await office.refresher.round()
  assert.equal(office.waits, [1000, 1000, 1000])
  assert.equal(office.holds(second), [true, true, true])
})

test('what needs credentials is fetched with them, and stays private', async () => {
  await using office = await Office.open({ credentialed: true })
  const { world } = office
  const secret: Name = parseName('docker.io', 'team/secret')
  world.remote.privates.add(secret.repository)
  world.remote.put(secret.repository, 'latest', third)
  await world.pull(secret)
  office.passes(60)
  office.popular = [{ image: `${formatName(secret)}:latest`, count: 5 }]
  world.remote.put(secret.repository, 'latest', second)
  world.peers.heard.length = 0
  await office.refresher.round()
  assert.equal(office.holds(second), [true, true, true])
  await world.store.visibilities.settled()
  assert.equal(world.shared(second), [])
  assert.is(world.store.visibilities.of(secret, second.digest), 'private')
  assert.equal(
    world.peers.heard.filter(heard => heard.includes('secret')),
    [],
  )
})

test('a tag that is gone is forgotten, and nothing is fetched', async () => {
  await using office = await Office.open()
  const { world } = office
  world.remote.status = 404
  await office.refresher.round()
  assert.is(world.store.refs.held(name, 'latest'), undefined)
  assert.equal([office.refreshed, office.failures], [[], []])
})

test('the authority is not asked if it never is', async () => {
  await using office = await Office.open({ tags: { ttl: 5000, authority: 'never' } })
  const { world } = office
  world.remote.put(repository, 'latest', second)
  world.peers.fresh.set(image, {
    ...world.store.refs.seen(name, 'latest')!,
    at: world.time - 1000,
    from: 'desk',
  })
  await office.refresher.round()
  assert.equal(world.remote.asked, [])
})

test('what fails is tried three times', async () => {
  await using office = await Office.open()
  const { world } = office
  const broken = { ...second, layer: Buffer.from('not the layer') }
  world.remote.put(repository, 'latest', broken)
  for (let round = 0; round < 5; round++) {
    await office.refresher.round()
    world.time += 60_000
  }
  assert.is(world.remote.requests('GET', digestOf(second.layer)).length, 3)
  assert.equal(office.refreshed, [])
})

test('what there is no room for is not fetched, and what is not kept is not fetched again', async () => {
  for (const [lacks, gets] of [
    [true, 0],
    [false, 1],
  ] as const) {
    await using office = await Office.open()
    const { world } = office
    const layer = digestOf(second.layer)
    world.remote.put(repository, 'latest', second)
    let begun = 0
    world.store.keepRoom({
      make: async digest => {
        if (digest === layer) begun++
        if (digest === layer && lacks) throw new NoRoomError('blob', 'it is too large')
      },
      admits: async digest => digest !== layer,
    })
    for (let round = 0; round < 3; round++) {
      await office.refresher.round()
      world.time += 20 * 60_000
    }
    assert.equal(office.holds(second), [true, true, false])
    assert.is(world.remote.requests('GET', layer).length, gets)
    assert.is(begun, 1)
    assert.equal([world.failures, office.failures], [[], []])
  }
})

test('a round is due every 5 to 10 minutes, and none after the end', async () => {
  const office = await Office.open()
  const { world } = office
  world.remote.put(repository, 'latest', second)
  assert.equal(
    office.rounds.map(({ ms }) => ms),
    [450_000],
  )
  office.rounds[0]!.begin()
  while (office.rounds.length < 2) await turn()
  assert.equal(office.holds(second), [true, true, true])
  await office[Symbol.asyncDispose]()
  assert.is(office.rounds.length, 2)
})

test('the end does not wait for what is on its way', async () => {
  const office = await Office.open()
  const { world } = office
  world.remote.put(repository, 'latest', imageOf('x'.repeat(2_000_000)))
  const waits = Promise.withResolvers<void>()
  office.onWait = () => waits.resolve()
  const round = office.refresher.round()
  await waits.promise
  await office[Symbol.asyncDispose]()
  await round
  assert.equal(office.failures, [])
})

test.run()
