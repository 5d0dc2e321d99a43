import { type Digest, digestOf } from '@shoal/oci/digest'
import { SpecError } from '@shoal/oci/spec-error'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MirrorWorld, name, never } from '../../../test/mirror-world.ts'
import { imageOf } from '../../../test/scripted-registry.ts'

const image = imageOf('app')
const layer = digestOf(image.layer)
const repository = name.repository
const peer = { kind: 'peer' }

async function blob(world: MirrorWorld, digest: Digest) {
  const found = await world.resolver.blob(name, digest, never)
  if ('transfer' in found) {
    await found.transfer.settled
    found.interest[Symbol.dispose]()
  } else found.held.close()
  return found
}

async function isMissing(found: Promise<unknown>): Promise<string> {
  const error = await found.then(
    () => undefined,
    (error: unknown) => error,
  )
  assert.instance(error, SpecError)
  assert.is((error as SpecError).status, 404)
  return (error as SpecError).message
}

test('peers are asked before the endpoints', async () => {
  await using world = await MirrorWorld.open()
  world.remote.put(repository, 'latest', image)
  world.peers.put(image.manifest, image.layer)
  assert.equal((await world.resolver.manifest(name, image.digest, never)).provenance, peer)
  assert.equal((await blob(world, layer)).provenance, peer)
  assert.equal(world.remote.asked, [])
  assert.equal(world.peers.heard, [`source ${image.digest}`, `source ${layer}`])
})

test('what peers lack comes from the endpoints, and what nobody has is asked of peers once more', async () => {
  await using world = await MirrorWorld.open()
  world.remote.put(repository, 'latest', image)
  assert.is((await blob(world, layer)).provenance.kind, 'upstream')
  assert.equal(world.peers.heard, [`source ${layer}`])
  await isMissing(blob(world, digestOf(Buffer.from('nothing'))))
  assert.is(world.peers.heard.at(-1), `lastResort ${digestOf(Buffer.from('nothing'))}`)
})

test('near the end of a limit, peers who were passed over come before a manifest that counts, and not before a blob', async () => {
  await using world = await MirrorWorld.open()
  const { remote, peers, resolver } = world
  const [first, second] = [imageOf('first'), imageOf('second')]
  remote.put(repository, 'first', first)
  remote.put(repository, 'second', second)
  remote.remaining = 12
  await resolver.manifest(name, first.digest, never)
  assert.equal(peers.heard, [`source ${first.digest}`])
  remote.remaining = 10
  await resolver.describeTag(name, 'second', never)
  peers.heard.length = 0
  await resolver.manifest(name, second.digest, never)
  assert.equal(peers.heard, [`source ${second.digest}`, `lastResort ${second.digest}`])
  peers.heard.length = 0
  await blob(world, digestOf(second.layer))
  assert.equal(peers.heard, [`source ${digestOf(second.layer)}`])
  // It was got from upstream, as nobody else had it.
  assert.is(remote.remaining, 9)
})

test('when nothing is left of a limit, an image that has moved is served anew if peers have it, and else as it was held', async () => {
  await using world = await MirrorWorld.open()
  const { remote, peers, resolver } = world
  remote.put(repository, 'latest', image)
  remote.remaining = 1
  await world.pull(name)
  const [second, third] = [imageOf('second'), imageOf('third')]
  for (const [moved, found, provenance] of [
    [second, image, { kind: 'stale' }],
    [third, third, { kind: 'local' }],
  ] as const) {
    remote.put(repository, 'latest', moved)
    if (moved === third) peers.put(third.manifest)
    world.time += 6000
    const head = await resolver.describeTag(name, 'latest', never)
    assert.equal([head.digest, head.provenance], [found.digest, provenance])
    assert.is((await resolver.taggedManifest(name, 'latest', never)).digest, found.digest)
  }
  assert.equal(remote.requests('GET', '/manifests/').length, 1)
})

test('when no endpoint answers, a HEAD by digest is answered with what peers have', async () => {
  await using world = await MirrorWorld.open()
  world.peers.put(image.manifest, image.layer)
  for (const status of [503, 404, 401]) {
    world.remote.status = status
    assert.equal(await world.resolver.blobSize(name, layer, never), { size: image.layer.length, provenance: peer })
  }
  const { size, digest, provenance } = await world.resolver.describe(name, image.digest, never)
  assert.equal([size, digest, provenance], [image.manifest.length, image.digest, peer])
  assert.equal((await world.resolver.describe(name, image.digest, never)).provenance, { kind: 'local' })
  await isMissing(world.resolver.describe(name, layer, never))
  await isMissing(world.resolver.blobSize(name, digestOf(image.config), never))
})

test('a size that is not what a manifest says is not told', async () => {
  await using world = await MirrorWorld.open()
  world.peers.put(image.manifest)
  await world.resolver.manifest(name, image.digest, never)
  world.peers.content.set(layer, Buffer.from('a liar'))
  world.remote.status = 503
  await isMissing(world.resolver.blobSize(name, layer, never))
})

test('cached_only: peers are asked, and no endpoint is', async () => {
  await using world = await MirrorWorld.open({ cachedOnly: true })
  world.remote.put(repository, 'latest', image)
  await isMissing(world.resolver.describeTag(name, 'latest', never))
  await isMissing(world.resolver.taggedManifest(name, 'latest', never))
  world.peers.put(image.manifest, image.layer)
  assert.equal((await world.resolver.describeTag(name, 'latest', never)).provenance, peer)
  assert.equal((await world.resolver.taggedManifest(name, 'latest', never)).provenance, { kind: 'local' })
  assert.is((await world.resolver.blobSize(name, layer, never)).provenance.kind, 'peer')
  assert.equal((await blob(world, layer)).provenance, peer)
  await isMissing(blob(world, digestOf(image.config)))
  // Tags are checked all the same.
  assert.equal(
    world.remote.asked.filter(asked => !/^HEAD \/v2\/team\/app\/manifests\/latest /.test(asked)),
    [],
  )
})

test('a registry that the settings do not have is none of this mirror', async () => {
  await using world = await MirrorWorld.open()
  assert.ok(world.resolver.mirrors('docker.io'))
  assert.not(world.resolver.mirrors('quay.io'))
})

test.run()
