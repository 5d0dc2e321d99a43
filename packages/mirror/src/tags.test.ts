import { digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import type { Sighting } from '@shoal/store/refs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MirrorWorld, type MirrorWorldOptions, name, never } from '../../../test/mirror-world.ts'
import { imageOf, type ScriptedImage } from '../../../test/scripted-registry.ts'

const old = imageOf('old')
const image = imageOf('app')
const repository = name.repository
const key = `docker.io/${repository}:latest`

function sightingOf({ digest, manifest }: ScriptedImage, at: number): Sighting {
  const descriptor = { mediaType: mediaTypes.ociManifest, digest, size: manifest.length }
  return { descriptor, at, from: 'desk', visibility: 'public' }
}

/** With an image at the registry, and a newer one at peers. */
async function openWorld(options: MirrorWorldOptions = {}): Promise<MirrorWorld> {
  const world = await MirrorWorld.open(options)
  world.remote.put(repository, 'latest', old)
  world.peers.put(image.manifest, image.config, image.layer)
  return world
}

const ofTags = ({ peers }: MirrorWorld) => peers.heard.filter(heard => !/^(source|lastResort) /.test(heard))

test('what a peer has checked within the time of a tag is believed, without a question to upstream', async () => {
  await using world = await openWorld()
  world.peers.fresh.set(key, sightingOf(image, world.time - 1000))
  const found = await world.resolver.describeTag(name, 'latest', never)
  assert.is(found.digest, image.digest)
  assert.equal(found.provenance, { kind: 'peer' })
  const got = await world.resolver.taggedManifest(name, 'latest', never)
  assert.is(got.digest, image.digest)
  assert.equal(got.provenance, { kind: 'peer' })
  assert.equal(world.remote.asked, [])
  // It counts as seen when the peer has seen it.
  assert.is(world.store.refs.seen(name, 'latest')?.at, world.time - 1000)
  assert.is(world.store.refs.held(name, 'latest')?.from, 'peer desk')
  world.time += 4500
  world.peers.fresh.clear()
  assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, old.digest)
})

test('what a peer has checked longer ago, or before this machine has, is not', async () => {
  await using world = await openWorld()
  world.peers.fresh.set(key, sightingOf(image, world.time - 6000))
  assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, old.digest)
  world.time += 6000
  world.peers.fresh.set(key, sightingOf(image, world.time - 6000))
  assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, old.digest)
})

test('a peer does not overrule what the authority has said', async () => {
  await using world = await openWorld()
  await world.pull(name)
  world.time += 6000
  world.peers.fresh.set(key, sightingOf(image, world.time - 100))
  assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, old.digest)
  assert.is(world.remote.requests('HEAD').length, 2)
})

test('peers who do not answer, or fail, cost 50 ms and no more', async () => {
  await using world = await openWorld()
  world.peers.tags.fresh = () => new Promise(() => {})
  assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, old.digest)
  world.peers.tags.fresh = () => Promise.reject(new Error('gone'))
  world.time += 6000
  assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, old.digest)
  assert.equal(world.failures, [])
})

for (const status of [500, 503, 429, 401, 403] as const)
  test(`when upstream answers ${status}, the newest that a peer knows is served, as stale`, async () => {
    await using world = await openWorld()
    world.remote.status = status
    world.peers.last.set(key, sightingOf(image, world.time - 60_000))
    const got = await world.resolver.taggedManifest(name, 'latest', never)
    assert.is(got.digest, image.digest)
    assert.equal(got.provenance, { kind: 'stale' })
    const found = await world.resolver.describeTag(name, 'latest', never)
    assert.equal([found.digest, found.provenance], [image.digest, { kind: 'stale' }])
    await world.pull(name)
    // It is known from here on, also without the peer.
    world.peers.last.clear()
    world.peers.content.clear()
    await world.restart()
    assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, image.digest)
  })

test('when upstream is silent, what a peer has checked lately is not stale', async () => {
  await using world = await openWorld()
  world.remote.status = 'hang'
  world.peers.last.set(key, sightingOf(image, world.time - 1000))
  const before = world.resolver.answersFor(name)
  const got = await world.resolver.taggedManifest(name, 'latest', never)
  assert.equal(got.provenance, { kind: 'peer' })
  // Who waits for an answer is told that there is somebody.
  assert.ok(world.resolver.answersFor(name) > before)
})

test('what is held stays if it is newer than what peers know, and is replaced if it is older', async () => {
  await using world = await openWorld()
  await world.pull(name)
  const seenAt = world.time
  world.remote.status = 503
  world.time += 60_000
  world.peers.last.set(key, sightingOf(image, seenAt - 1))
  assert.is((await world.resolver.taggedManifest(name, 'latest', never)).digest, old.digest)
  world.peers.last.set(key, sightingOf(image, seenAt + 1))
  const got = await world.resolver.taggedManifest(name, 'latest', never)
  assert.equal([got.digest, got.provenance], [image.digest, { kind: 'stale' }])
})

test('when what a peer knows cannot be had from anybody, what is held is served', async () => {
  await using world = await openWorld()
  await world.pull(name)
  world.remote.status = 503
  world.time += 60_000
  world.peers.content.clear()
  world.peers.last.set(key, sightingOf(image, world.time - 1))
  const got = await world.resolver.taggedManifest(name, 'latest', never)
  assert.equal([got.digest, got.provenance], [old.digest, { kind: 'stale' }])
})

test('a tag that the authority says is gone is gone, whatever peers know', async () => {
  await using world = await openWorld()
  const other = parseName('docker.io', 'team/gone')
  world.peers.last.set('docker.io/team/gone:latest', sightingOf(image, world.time - 1))
  const error = await world.resolver.taggedManifest(other, 'latest', never).catch((error: Error) => error)
  assert.match(String(error), 'does not have it')
  assert.equal(ofTags(world), ['fresh docker.io/team/gone:latest'])
})

test('a time that is still to come counts as now', async () => {
  await using world = await openWorld()
  world.peers.fresh.set(key, sightingOf(image, world.time + 100_000))
  await world.resolver.describeTag(name, 'latest', never)
  assert.is(world.store.refs.seen(name, 'latest')?.at, world.time)
})

/** With a tag that was pulled here, whose image is gone again, and which peers hold. */
async function openEvicted(options: MirrorWorldOptions = {}): Promise<MirrorWorld> {
  const world = await openWorld(options)
  world.remote.put(repository, 'latest', image)
  await world.pull(name)
  const gone = [image.digest, digestOf(image.config), digestOf(image.layer)]
  assert.equal(await world.store.evict(gone), gone)
  world.time += 60_000
  return world
}

for (const status of [503, 429, 401, 'hang'] as const)
  test(`when upstream answers ${status}, a tag whose image is no longer held is what this machine saw, if peers have that`, async () => {
    await using world = await openEvicted()
    world.remote.status = status
    await world.restart()
    const head = await world.resolver.describeTag(name, 'latest', never)
    assert.equal([head.digest, head.provenance], [image.digest, { kind: 'stale' }])
    const got = await world.resolver.taggedManifest(name, 'latest', never)
    assert.equal([got.digest, got.provenance], [image.digest, { kind: 'stale' }])
    await world.pull(name)
    assert.ok(world.store.sizeOf(digestOf(image.layer)))
  })

test('while upstream is silent, what this machine saw is served without waiting for the answer', async () => {
  await using world = await openEvicted()
  const { authority } = world.remote.registry
  world.remote.status = 'hang'
  await world.resolver.look(name, 'latest')
  const { errors } = authority.state
  const head = await world.resolver.describeTag(name, 'latest', never)
  assert.equal([head.digest, authority.state.errors], [image.digest, errors])
})

test('what nobody has is not promised', async () => {
  await using world = await openEvicted()
  world.remote.status = 503
  world.peers.content.clear()
  const error = await world.resolver.describeTag(name, 'latest', never).catch((error: Error) => error)
  assert.match(String(error), '503')
})

test('what this machine saw is no answer to a tag that the authority says is gone, or can be asked about', async () => {
  await using world = await openEvicted()
  world.remote.put(repository, 'latest', old)
  world.peers.heard.length = 0
  const moved = await world.resolver.describeTag(name, 'latest', never)
  assert.equal([moved.digest, moved.provenance.kind], [old.digest, 'upstream'])
  assert.equal(world.peers.heard, [`fresh ${key}`])
  world.time += 60_000
  world.remote.status = 404
  const error = await world.resolver.describeTag(name, 'latest', never).catch((error: Error) => error)
  assert.match(String(error), 'does not have it')
  assert.is(world.store.refs.seen(name, 'latest'), undefined)
})

test('of what this machine saw and what a peer knows, the newer is served, and else what can be had', async () => {
  await using world = await openEvicted()
  world.remote.status = 503
  world.peers.put(old.manifest)
  world.peers.last.set(key, sightingOf(old, world.time - 70_000))
  assert.is((await world.resolver.describeTag(name, 'latest', never)).digest, image.digest)
  await world.store.evict([image.digest])
  world.peers.content.delete(image.digest)
  assert.is((await world.resolver.describeTag(name, 'latest', never)).digest, old.digest)
  world.peers.last.set(key, sightingOf(old, world.time - 50_000))
  world.peers.put(image.manifest)
  assert.is((await world.resolver.describeTag(name, 'latest', never)).digest, old.digest)
})

test('peers hear no name of a registry that may not be shared, and no digest', async () => {
  await using world = await openWorld({ host: 'registry.office:5000', shared: false })
  const office = parseName('registry.office:5000', repository)
  await world.pull(office)
  world.time += 60_000
  world.remote.status = 503
  await world.pull(office)
  await world.resolver.taggedManifest(office, 'other', never).catch(() => {})
  await world.resolver.describe(office, image.digest, never).catch(() => {})
  await world.resolver.manifest(office, image.digest, never).catch(() => {})
  await world.resolver.blobSize(office, image.digest, never).catch(() => {})
  await world.resolver.blob(office, image.digest, never).catch(() => {})
  assert.equal(world.peers.heard, [])
})

test('with credentials, peers hear the name of a repository only once it is known to be public', async () => {
  await using world = await openWorld({ credentialed: true })
  const secret = parseName('docker.io', 'team/secret')
  world.remote.put(secret.repository, 'latest', imageOf('secret'))
  world.remote.privates.add(secret.repository)
  for (const each of [secret, name]) await world.pull(each)
  await world.sharesOf(old, ['manifest', 'config', 'layer'])
  world.time += 60_000
  for (const each of [secret, name]) await world.pull(each)
  world.remote.status = 503
  world.time += 60_000
  for (const each of [secret, name]) await world.pull(each)
  await world.resolver.taggedManifest(secret, 'other', never).catch(() => {})
  const heard = ofTags(world)
  assert.equal(
    heard.filter(text => text.includes('secret')),
    [],
  )
  assert.equal(heard, [`fresh ${key}`, `fresh ${key}`, `last ${key}`])
})

test('without peers nothing is missed', async () => {
  await using world = await openWorld({ peers: false })
  await world.pull(name)
  world.remote.status = 503
  world.time += 60_000
  assert.equal((await world.resolver.taggedManifest(name, 'latest', never)).provenance, { kind: 'stale' })
  assert.equal(world.peers.heard, [])
})

test.run()
