import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Image } from '../../scripts/internet/image.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { ShoalProcess } from '../shoal-process.ts'

/** A daemon that has pulled some images, and the commands that a user has for them. */
class World implements AsyncDisposable {
  readonly internet: Internet
  readonly shoal: ShoalProcess

  private constructor(internet: Internet, shoal: ShoalProcess) {
    this.internet = internet
    this.shoal = shoal
  }

  static async open(): Promise<World> {
    const internet = await Internet.open()
    return new World(internet, await ShoalProcess.start({ internet, env: { SHOAL_STORE_MAX_SIZE: '10MB' } }))
  }

  async pull(name: string, layers: readonly (number | Image['layers'][number])[]): Promise<Image> {
    const repository = `library/${name}`
    const image = await this.internet.add({ repository, tag: 'latest', layers: [...layers] })
    assert.is((await this.shoal.get(`/v2/${repository}/manifests/latest`)).status, 200)
    for (const { digest } of [image.config, ...image.layers])
      assert.is((await this.shoal.get(`/v2/${repository}/blobs/${digest}`)).status, 200)
    return image
  }

  async run(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.shoal.run(args)
    assert.is(status, 0, stderr)
    return stdout
  }

  /** The one line that a command which fails says. */
  async refusal(...args: string[]): Promise<string> {
    const { status, stderr } = await this.shoal.run(args)
    assert.is(status, 1)
    assert.is(stderr.trim().split('\n').length, 1)
    return stderr
  }

  async held(): Promise<Set<string>> {
    return new Set((await readdir(join(this.shoal.folder, 'data', 'blobs', 'sha256'))).map(hex => `sha256:${hex}`))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shoal[Symbol.asyncDispose]()
    await this.internet.close()
  }
}

test('shoal rm removes an image and what no other needs, and says what stays', async () => {
  await using world = await World.open()
  const one = await world.pull('one', [100_000, 2000])
  const two = await world.pull('two', [one.layers[0]!, 3000])
  assert.match(await world.run('rm', 'one'), /^one:latest is gone: 3 blobs, \d/)
  const held = await world.held()
  for (const { digest } of [two.manifest, two.config, ...two.layers]) assert.ok(held.has(digest))
  for (const digest of [one.digest, one.config.digest, one.layers[1]!.digest]) assert.not(held.has(digest))
  assert.match(await world.refusal('rm', 'one'), 'one:latest is not held here: "shoal ls" lists what is')
  const { blobs, kept_for } = JSON.parse(await world.run('rm', `two@${two.digest}`, '--json'))
  assert.equal([blobs, kept_for], [4, []])
  assert.is(await world.run('ls'), 'No images yet: they come with the first pull.\n')
})

test('shoal rm leaves what has another name', async () => {
  await using world = await World.open()
  const image = await world.pull('app', [1000])
  const { repositories } = world.internet.images
  repositories.get('library/app')!.tags.set('stable', image.digest)
  assert.is((await world.shoal.get('/v2/library/app/manifests/stable')).status, 200)
  assert.match(await world.run('rm', 'app'), 'app:latest is gone; what it was stays, as docker.io/library/app:stable.')
  assert.ok((await world.held()).has(image.layers[0]!.digest))
  assert.match(await world.run('ls'), 'app:stable')
})

test('what is pinned is shown as such, and not removed', async () => {
  await using world = await World.open()
  await world.pull('app', [1000])
  assert.match(await world.refusal('pin', 'other'), 'other:latest is not held here')
  assert.match(await world.refusal('pin', 'a b'), 'no repository name')
  assert.match(await world.run('pin', 'app'), /^app:latest is pinned: sha256:/)
  assert.match(await world.run('pin', 'app'), 'was pinned already')
  assert.match(await world.run('ls'), /yes *\n$/)
  assert.match(await world.refusal('rm', 'app'), '"shoal unpin docker.io/library/app:latest" lets it go')
  await world.shoal.stop()
  await world.shoal.start()
  assert.ok(JSON.parse(await world.run('ls', '--json'))[0].pinned)
  assert.match(await world.run('unpin', 'app'), 'app:latest is no longer pinned')
  assert.match(await world.refusal('unpin', 'app'), 'app:latest is not pinned')
  await world.run('rm', 'app')
  assert.equal(await world.held(), new Set())
})

test('shoal gc says what would go, and why, before it goes', async () => {
  await using world = await World.open()
  await world.pull('often', [5_000_000])
  await world.pull('seldom', [4_900_000])
  const before = await world.held()
  const dry = await world.run('gc', '--dry-run')
  assert.match(dry, /docker\.io\/library\/\w+:latest +1 pull lately, 1 here/)
  assert.match(dry, /Would remove 3 blobs, (?:4.9|5) MB/)
  assert.equal(await world.held(), before)
  const { dry_run, blobs, freed_bytes, bytes, max_bytes } = JSON.parse(await world.run('gc', '--json'))
  assert.equal([dry_run, blobs.length, max_bytes], [false, 3, 10_000_000])
  assert.is((await world.held()).size, before.size - 3)
  assert.ok(freed_bytes > 4_900_000 && bytes < 5_100_000)
  assert.match(await world.run('gc'), 'Nothing has to go: the store has')
})

test('shoal top shows what was pulled, most pulled first', async () => {
  await using world = await World.open()
  assert.is(await world.run('top'), 'Nothing was pulled yet, here or by a peer.\n')
  await world.pull('app', [1000])
  const [head, row] = (await world.run('top')).split('\n')
  assert.match(head!, /IMAGE +PULLS +HERE +MACHINES +HELD/)
  assert.match(row!, /app:latest +1\.0 +1\.0 +1 +here/)
  const { images } = JSON.parse(await world.run('top', '--json'))
  assert.is(images[0].image, 'docker.io/library/app:latest')
})

test.run()
