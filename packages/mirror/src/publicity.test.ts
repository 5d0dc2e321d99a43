import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MirrorWorld, name, never } from '../../../test/mirror-world.ts'
import { imageOf } from '../../../test/scripted-registry.ts'
import { until } from '../../../test/shoal-process.ts'

const image = imageOf('app')
const all = ['manifest', 'config', 'layer']
const repository = name.repository

/** How often a registry was asked whether everybody may have the image: nothing else asks for it by HEAD and digest. */
function questions({ remote }: MirrorWorld): number {
  return remote.requests('HEAD', image.digest, 'nobody').length
}

/** Resolves once that was so often. */
async function asked(world: MirrorWorld, times: number): Promise<void> {
  await until(
    () => (questions(world) >= times ? true : undefined),
    () => `it was asked ${world.remote.asked.join(', ')}`,
  )
}

/** Resolves once somebody sleeps. */
async function asleep(world: MirrorWorld, times: number): Promise<number> {
  await until(
    () => (world.sleeping.length >= times ? true : undefined),
    () => 'nobody sleeps',
  )
  return world.sleeping[times - 1]?.ms ?? 0
}

test('what came without credentials is shared', async () => {
  await using world = await MirrorWorld.open()
  world.remote.put(repository, 'latest', image)
  await world.pull(name)
  await world.sharesOf(image, all)
  assert.equal(world.failures, [])
})

test('what came with credentials is shared once its registry gives it to the nameless, too', async () => {
  await using world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  await world.pull(name)
  await world.sharesOf(image, all)
  assert.is(questions(world), 1)
  assert.is(world.store.refs.seen(name, 'latest')?.visibility, 'public')
  await world.restart()
  await world.sharesOf(image, all)
  assert.is(world.store.refs.held(name, 'latest')?.visibility, 'public')
  world.time += 60_000
  await world.pull(name)
  assert.is(world.store.refs.seen(name, 'latest')?.visibility, 'public')
  assert.is(questions(world), 1)
})

test('what its registry denies to the nameless is never shared, and not asked for at every pull', async () => {
  await using world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  world.remote.privates.add(repository)
  await world.pull(name)
  await asked(world, 1)
  for (let pulls = 0; pulls < 5; pulls++) {
    world.time += 60_000
    await world.pull(name)
  }
  assert.is(questions(world), 1)
  assert.equal(world.shared(image), [])
  assert.is(world.store.refs.seen(name, 'latest')?.visibility, 'private')
  // It may have become public since.
  world.remote.privates.clear()
  world.time += 3_600_000
  await world.pull(name)
  await world.sharesOf(image, all)
})

test('a registry that could not say is asked again, at growing intervals, and then when the tag is checked', async () => {
  await using world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  world.remote.privates.add(repository)
  const { authority } = world.remote.registry
  const isPublic = authority.isPublic.bind(authority)
  let silent = true
  let asked = 0
  authority.isPublic = async (...question) => {
    asked++
    if (silent) world.remote.status = 503
    const answer = isPublic(...question)
    await answer.catch(() => {})
    world.remote.status = 0
    return answer
  }
  await world.pull(name)
  for (const [times, ms] of [10_000, 60_000, 600_000].entries()) {
    assert.is(await asleep(world, times + 1), ms)
    assert.is(asked, times + 1)
    world.sleeping[times]?.wake()
  }
  await until(
    () => (asked === 4 ? true : undefined),
    () => `it was asked ${asked} times`,
  )
  assert.equal(world.shared(image), [])
  silent = false
  world.remote.privates.clear()
  // Who was asked last is no longer waited for.
  await until(
    async () => {
      world.time += 60_000
      await world.pull(name)
      return asked > 4 ? true : undefined
    },
    () => `it was asked ${asked} times`,
  )
  await world.sharesOf(image, all)
  assert.is(world.sleeping.length, 3)
  assert.is(authority.state.state, 'closed')
})

test('many pulls at once ask once', async () => {
  await using world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  await Promise.all(Array.from({ length: 10 }, () => world.pull(name)))
  await world.sharesOf(image, all)
  assert.is(questions(world), 1)
})

test('a registry that may not be shared is asked nothing, and none of it is shared', async () => {
  for (const credentialed of [false, true]) {
    await using world = await MirrorWorld.open({ host: 'registry.office:5000', shared: false, credentialed })
    const office = parseName('registry.office:5000', 'team/app')
    world.remote.put(repository, 'latest', image)
    await world.pull(office)
    assert.is(world.store.visibilities.of(office, image.digest), credentialed ? 'private' : 'public')
    assert.equal(world.shared(image), [])
    assert.is(questions(world), 0)
    assert.equal(world.peers.heard, [])
  }
})

test('what a peer gave is shared with all that it points to, if this machine has no credentials', async () => {
  await using world = await MirrorWorld.open()
  world.remote.put(repository, 'latest', image)
  world.peers.put(image.manifest, image.layer)
  await world.pull(name)
  await world.sharesOf(image, all)
})

test('a manifest of a peer does not make a machine share what only its credentials let it have', async () => {
  await using world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  world.remote.privates.add(repository)
  world.peers.put(image.manifest)
  await world.pull(name)
  await asked(world, 1)
  await world.sharesOf(image, ['manifest'])
  await world.restart()
  await world.sharesOf(image, ['manifest'])
})

test('a peer that offers a manifest and gives nothing of it does not make it public', async () => {
  await using world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  world.remote.privates.add(repository)
  world.peers.put(image.manifest)
  world.peers.empty.add(image.digest)
  await world.pull(name)
  await asked(world, 1)
  assert.equal(world.shared(image), [])
  assert.is(world.store.visibilities.of(name, image.digest), 'private')
})

test('layers that are private here stay so when the credentials are gone and a peer gives their manifest', async () => {
  await using world = await MirrorWorld.open()
  for (const part of [image.config, image.layer]) {
    await world.store.visibilities.note(name, digestOf(part), 'private')
    world.peers.put(part)
  }
  world.peers.put(image.manifest)
  await world.resolver.manifest(name, image.digest, never)
  for (const part of [image.config, image.layer]) await world.pullBlob(name, digestOf(part))
  await world.sharesOf(image, ['manifest'])
  // Until the registry itself gives it to a machine that has none.
  world.remote.put(repository, 'latest', image)
  await world.pull(name)
  await world.sharesOf(image, all)
})

test('a tag that is found without credentials makes public what is held of it', async () => {
  await using world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  world.remote.privates.add(repository)
  await world.pull(name)
  await asked(world, 1)
  assert.equal(world.shared(image), [])
  // As mirror.gcr.io would, which is asked without.
  await world.store.visibilities.note(name, image.digest, 'public')
  await world.sharesOf(image, all)
})

test('it ends at once, also while it is asleep', async () => {
  const world = await MirrorWorld.open({ credentialed: true })
  world.remote.put(repository, 'latest', image)
  await world.resolver.taggedManifest(name, 'latest', never)
  await world[Symbol.asyncDispose]()
  assert.equal(world.failures, [])
})

test.run()
