import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDigest } from '@shoal/oci/digest'
import { SharedBlobs } from '@shoal/store/sharing'
import { Store } from '@shoal/store/store'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Image } from '../../scripts/internet/image.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { until } from '../shoal-process.ts'
import { fetchWhole, World } from '../world.ts'

const office = 'registry.office:5000'

/** A registry of the office's own, that asks for no password, with `team/tool` and a one-part `tool`. */
async function openOffice(): Promise<{ internet: Internet; tool: Image; short: Image }> {
  const internet = await Internet.open()
  const tool = await internet.add({ repository: 'team/tool', tag: 'latest', layers: [20_000] })
  const short = await internet.add({ repository: 'tool', tag: 'latest', layers: [1000] })
  for (const repository of ['team/tool', 'tool']) internet.gcr.repositories.add(repository)
  return { internet, tool, short }
}

/** Pulls as containerd does. */
async function pull(
  world: World,
  repository: string,
  { digest, config, layers }: Image,
  ns: string,
): Promise<string[]> {
  const paths = [
    `manifests/latest`,
    `manifests/${digest}`,
    ...[config, ...layers].map(({ digest }) => `blobs/${digest}`),
  ]
  const from: string[] = []
  for (const path of paths) {
    const { status, headers } = await world.get(`/v2/${repository}/${path}?ns=${ns}`)
    assert.is(status, 200, `${path}\n${world.log.join('')}`)
    from.push(String(headers['cache-status']))
  }
  return from
}

/** What of some images peers might have, as the data folder of a daemon that was stopped says. */
async function sharedOf(world: World, images: readonly Image[], registries: readonly string[]): Promise<boolean[]> {
  const fail = (message: string) => assert.unreachable(message)
  const store = await Store.open({ folder: world.data, onWarning: fail })
  using sharing = new SharedBlobs({ store, mayShare: registry => registries.includes(registry), onWarning: fail })
  await sharing.ready
  const shared = images.map(({ manifest, config, layers }) => {
    const states = [manifest, config, ...layers].map(({ digest }) => isDigest(digest) && sharing.has(digest))
    assert.is(new Set(states).size, 1, 'all or nothing')
    return states[0] === true
  })
  await store.close()
  return shared
}

test('a registry that has a section in the settings is served beside Docker Hub, by ns', async () => {
  const { internet, tool, short } = await openOffice()
  await using _office = internet
  const hub = internet.gcr.url
  await using world = await World.open({ settings: { 'upstreams-registry-office-5000-endpoints': hub } })
  const upstream = `shoal; fwd=miss; detail="${new URL(hub).host}"`
  assert.is((await pull(world, 'team/tool', tool, office))[0], upstream)
  assert.is((await pull(world, 'team/tool', tool, office.toUpperCase()))[0], 'shoal; hit; detail=local')
  // Its names are as they are.
  assert.is((await pull(world, 'tool', short, office))[0], upstream)
  assert.is((await world.get(`/v2/library/tool/manifests/latest?ns=${office}`)).status, 404)
  assert.is((await world.get('/v2/team/tool/manifests/latest')).status, 404)
  // Docker Hub's are as ever.
  assert.is((await world.get('/v2/forty/manifests/latest?ns=docker.io')).status, 200)
  assert.is((await world.get('/v2/library/forty/manifests/latest')).status, 200)
  const tags = await world.get(`/v2/team/tool/tags/list?ns=${office}`)
  assert.equal(JSON.parse(tags.body.toString()).tags, ['latest'])

  const status = JSON.parse((await fetchWhole('GET', `${world.admin}/api/v1/status`)).body.toString())
  assert.equal(
    status.upstreams.map(({ registry }: { registry: string }) => registry),
    ['docker.io', 'docker.io', office],
  )
  const images = async () => {
    const { body } = await fetchWhole('GET', `${world.admin}/api/v1/images`)
    return JSON.parse(body.toString()).images ?? JSON.parse(body.toString())
  }
  const names = (await images()).map(({ name }: { name: string }) => name)
  assert.equal(names, ['forty:latest', `${office}/team/tool:latest`, `${office}/tool:latest`])
  await world.restart()
  await internet.gcr.down()
  assert.is((await pull(world, 'team/tool', tool, office))[1], 'shoal; hit; detail=local')
  assert.equal(
    (await images()).map(({ name }: { name: string }) => name),
    names,
  )
})

test('a registry without a section is not served, and it is said how to change that', async () => {
  await using world = await World.open()
  const { internet } = world
  for (const ns of ['quay.io', office, '127.0.0.1', '..', 'x/../docker.io']) {
    const { status, body } = await world.get(`/v2/team/tool/manifests/latest?ns=${encodeURIComponent(ns)}`)
    assert.is(status, 404)
    assert.is(JSON.parse(body.toString()).errors[0].code, 'NAME_UNKNOWN')
  }
  const { body } = await world.get('/v2/team/tool/manifests/latest?ns=quay.io')
  assert.match(JSON.parse(body.toString()).errors[0].message, '[upstreams."quay.io"]')
  assert.is(internet.log.entries.length, 0)
})

test("content of the office's own registry may be shared if that is marked so, and not else", async () => {
  const { internet, tool } = await openOffice()
  await using _office = internet
  const settings = { 'upstreams-registry-office-5000-endpoints': internet.gcr.url }
  await using world = await World.open({ settings })
  await pull(world, 'team/tool', tool, office)
  await world.daemon.close()
  assert.equal(await sharedOf(world, [tool], ['docker.io']), [false])
  assert.equal(await sharedOf(world, [tool], ['docker.io', office]), [true])
  await world.start()
})

test('with an account at Docker Hub, what is public there is still shared, and what is private is not', async () => {
  await using world = await World.open()
  const { hub, log, images } = world.internet
  const account = {
    'upstreams-docker-io-username': 'alice',
    'upstreams-docker-io-password-file': join(world.folder, 'password'),
    'tags-ttl': '1ms',
  }
  await writeFile(account['upstreams-docker-io-password-file'], 'secret\n')
  await world.restart(account)
  const [zstd, secret] = [images.image('library/zstd'), images.image('team/private')]
  const limits = { ...hub.rateLimit }
  await pull(world, 'library/zstd', zstd, 'docker.io')
  await pull(world, 'team/private', secret, 'docker.io')
  const asked = (repository: string, status: number) =>
    until(
      () => log.requests({ server: 'hub', path: `/${repository}/manifests/sha256:`, method: 'HEAD', status })[0],
      () => `the hub was not asked about ${repository}:\n${world.log.join('')}`,
    )
  assert.is((await asked('library/zstd', 200)).user, 'anonymous')
  assert.is((await asked('team/private', 401)).user, 'anonymous')
  await log.idle()
  // Nothing else was asked for without the account, and none of it was counted.
  const nameless = log.requests({ server: 'hub', user: 'anonymous', status: 200 })
  assert.equal(
    nameless.map(({ method }) => method),
    ['HEAD'],
  )
  assert.equal(hub.rateLimit, limits)
  assert.is(hub.accountRateLimit.remaining, hub.accountRateLimit.limit - 2)
  const visibilities = async () => {
    const { manifests } = JSON.parse(await readFile(join(world.data, 'index.json'), 'utf8'))
    return manifests.map((entry: { annotations: Record<string, string> }) => entry.annotations['dev.shoal.visibility'])
  }
  await until(
    async () => (String(await visibilities()) === 'public,private' ? true : undefined),
    () => 'the tag does not become public',
  )
  await world.daemon.close()
  assert.equal(await sharedOf(world, [zstd, secret], ['docker.io']), [true, false])

  // A restart keeps it, with nothing to ask.
  log.clear()
  await world.start(account)
  await pull(world, 'library/zstd', zstd, 'docker.io')
  await pull(world, 'team/private', secret, 'docker.io')
  await asked('team/private', 401)
  assert.equal(log.requests({ server: 'hub', path: '/library/zstd/manifests/sha256:' }), [])
  await world.daemon.close()
  assert.equal(await visibilities(), ['public', 'private'])
  assert.equal(await sharedOf(world, [zstd, secret], ['docker.io']), [true, false])
  await world.start()
})

test.run()
