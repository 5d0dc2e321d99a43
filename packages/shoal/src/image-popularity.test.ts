import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { scoreOf } from '@shoal/retention/decay'
import { mostPeers } from '@shoal/retention/office-popularity'
import { Store } from '@shoal/store/store'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WatchedDisk } from '../../../test/watched-disk.ts'
import { ImagePopularity } from './image-popularity.ts'

const start = Date.UTC(2026, 0, 1)
const year = 365 * 24 * 3_600_000
const digest = digestOf(Buffer.from('an image'))

class World implements AsyncDisposable {
  readonly disk: WatchedDisk
  readonly connected = new Set<string>()
  now = start
  store!: Store
  popularity!: ImagePopularity

  private constructor(disk: WatchedDisk) {
    this.disk = disk
  }

  static async open(): Promise<World> {
    const world = new World(await WatchedDisk.open())
    await world.#start()
    return world
  }

  async #start(): Promise<void> {
    this.store = await Store.open({ folder: this.disk.folder, disk: this.disk, onWarning: () => {} })
    this.popularity = await ImagePopularity.open({
      store: this.store,
      mayShare: registry => registry === 'docker.io',
      isConnected: peer => this.connected.has(peer),
      now: () => this.now,
      onFailure: error => void assert.unreachable(String(error)),
    })
  }

  async restart(): Promise<void> {
    await this.popularity[Symbol.asyncDispose]()
    await this.store.close()
    await this.#start()
  }

  tag(repository: string, visibility: 'public' | 'private', registry = 'docker.io'): string {
    const name = parseName(registry, repository)
    const descriptor = { mediaType: 'application/x', digest, size: 1 }
    this.store.refs.see(name, 'latest', { descriptor, at: start, from: 'hub', visibility })
    return `${registry}/${name.repository}:latest`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.popularity[Symbol.asyncDispose]()
    await this.store.close()
    await this.disk[Symbol.asyncDispose]()
  }
}

test('only names of what is public are told, also where peers have the same content under another name', async () => {
  await using world = await World.open()
  const { visibilities } = world.store
  await visibilities.note(parseName('docker.io', 'team/open'), digest, 'public')
  await visibilities.noteGiven(parseName('docker.io', 'team/secret'), digest)
  const open = [world.tag('team/public', 'public'), `docker.io/team/open@${digest}`]
  const secret = [
    world.tag('team/private', 'private'),
    world.tag('team/office', 'public', 'registry.office'),
    `docker.io/team/secret@${digest}`,
    'docker.io/team/unseen:latest',
  ]
  for (const image of [...open, ...secret]) world.popularity.pulled(image, start)
  assert.equal([...world.popularity.rows()].map(({ image }) => image).sort(), open.sort())
  assert.is(world.popularity.top(10).length, 6)
})

test('what was counted is known after a restart, of this machine and of others', async () => {
  await using world = await World.open()
  world.popularity.pulled('docker.io/library/a:latest', start)
  world.popularity.heard('ada', {
    at: start,
    rows: [{ image: 'docker.io/library/a:latest', score: scoreOf(2, start) }],
  })
  await world.restart()
  const [first] = world.popularity.top(1)
  assert.equal([first?.own, Math.round(first?.office ?? 0), first?.machines], [1, 3, 2])
  world.popularity.forget('ada')
  await world.restart()
  assert.is(world.popularity.top(1)[0]?.machines, 1)
})

test('a clock that was ahead does not make an image popular for ever', async () => {
  await using world = await World.open()
  const image = world.tag('team/public', 'public')
  world.popularity.pulled(image, start + 30 * year)
  const [before] = world.popularity.top(1)
  assert.ok((before?.own ?? Number.POSITIVE_INFINITY) <= 4096)
  world.popularity.pulled(image, start)
  world.now = start + year
  assert.ok((world.popularity.top(1)[0]?.own ?? 1) < 1e-6)
})

test('peers that are connected are not forgotten for others who come and go', async () => {
  await using world = await World.open()
  const told = { at: start, rows: [{ image: 'docker.io/library/a:latest', score: scoreOf(1, start) }] }
  world.connected.add('ada')
  world.popularity.heard('ada', told)
  for (let i = 0; i < mostPeers; i++) world.popularity.heard(`passing-${i}`, { at: start, rows: [] })
  assert.is(world.popularity.top(1)[0]?.machines, 1)
})

test('what one peer alone says comes after what this machine or several have pulled', async () => {
  await using world = await World.open()
  world.popularity.pulled('own', start)
  const rows = Array.from({ length: 200 }, (_, i) => ({ image: `lie-${i}`, score: scoreOf(1000, start) }))
  world.popularity.heard('eve', { at: start, rows })
  assert.is(world.popularity.top(1)[0]?.image, 'own')
})

test.run()
