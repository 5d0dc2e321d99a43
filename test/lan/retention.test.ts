import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Popular } from '../../packages/shoal/src/admin/popular.ts'
import { testUnless } from '../prerequisites.ts'
import { until } from '../shoal-process.ts'
import type { Outline } from './internet-program.ts'
import type { LanShoal } from './lan-shoal.ts'
import { LanWorld, whyNoLan } from './lan-world.ts'

const lanTest = testUnless(whyNoLan())

const MB = 1_000_000
const maxSize = 24 * MB

class Office {
  readonly world: LanWorld
  readonly shoals: readonly LanShoal[]

  private constructor(world: LanWorld, shoals: readonly LanShoal[]) {
    this.world = world
    this.shoals = shoals
  }

  /** Machines with little room, that are all connected. */
  static async use(names: readonly string[], test: (office: Office) => Promise<void>): Promise<void> {
    await LanWorld.use(async world => {
      const shoals = await world.shoals([...names], { 'store-max-size': `${maxSize / MB}MB` })
      const office = new Office(world, shoals)
      await office.meet()
      await test(office)
    })
  }

  async meet(): Promise<void> {
    await Promise.all(this.shoals.map(shoal => shoal.meets(this.shoals.filter(other => other !== shoal))))
  }

  /** Images that nobody has seen before, of 3 MB each. */
  images(kind: string, count: number): Promise<Outline[]> {
    const recipes = Array.from({ length: count }, (_, i) => {
      return { repository: `library/${kind}-${i}`, tag: 'latest', layers: [2 * MB, 900_000, 100_000, 20] }
    })
    return Promise.all(recipes.map(recipe => this.world.internet.agent.call('add', recipe)))
  }

  /** All machines come anew: each tells the others what is pulled on it. */
  async restart(): Promise<void> {
    await Promise.all(this.shoals.map(shoal => shoal.stop()))
    await Promise.all(this.shoals.map(shoal => shoal.start()))
    await this.meet()
  }

  async goOffline(): Promise<void> {
    await Promise.all(this.shoals.map(({ host }) => host.loseRoute()))
  }
}

async function used({ data }: LanShoal): Promise<number> {
  let bytes = 0
  for (const folder of ['blobs/sha256', 'ingest'])
    for (const name of await readdir(join(data, folder))) bytes += (await stat(join(data, folder, name))).size
  return bytes
}

async function holds({ data }: LanShoal, { manifest, config, layers }: Outline): Promise<boolean> {
  const held = new Set(await readdir(join(data, 'blobs/sha256')))
  return [manifest, config, ...layers].every(({ digest }) => held.has(digest.replace('sha256:', '')))
}

/** Waits until a machine knows that an image was pulled at least so often in the whole office. */
async function knows(shoal: LanShoal, { repository }: Outline, pulls: number): Promise<void> {
  let seen: Popular | undefined
  await until(
    async () => {
      const { text } = await shoal.host.fetch({ url: `${shoal.admin}/api/v1/popular`, keep: true })
      seen = JSON.parse(text) as Popular
      const row = seen.images.find(({ image }) => image === `docker.io/${repository}:latest`)
      return row && row.pulls > pulls - 0.1 ? true : undefined
    },
    () => `${shoal.host.name} knows of ${JSON.stringify(seen?.images.slice(0, 3))}`,
    10_000,
  )
}

lanTest('after a day of pulls the office holds whole what is pulled often, and pulls it without the internet', () =>
  Office.use(['ada', 'bob', 'cy', 'dan'], async office => {
    const { shoals } = office
    const often = await office.images('often', 6)
    const once = await office.images('once', 12 * shoals.length)
    for (let hour = 0; hour < 12; hour++) {
      // The day has a break, from which all come back.
      if (hour === 6) await office.restart()
      for (const [i, shoal] of shoals.entries()) {
        await shoal.pull(often[(hour + i) % often.length]!, { tag: 'latest' })
        await shoal.pull(once[hour * shoals.length + i]!, { tag: 'latest' })
      }
    }
    for (const shoal of shoals) assert.ok((await used(shoal)) <= maxSize, `${await used(shoal)} bytes are used`)
    for (const image of often) {
      const holders = await Promise.all(shoals.map(shoal => holds(shoal, image)))
      assert.ok(holders.includes(true), `${image.repository} is held whole by somebody`)
    }
    await office.goOffline()
    for (const shoal of shoals) for (const image of often) await shoal.pull(image, { tag: 'latest' })
  }),
)

lanTest('the last copy of what the office pulls often outlasts what is pulled on its machine alone', () =>
  Office.use(['ada', 'bob', 'cy'], async office => {
    const [ada, ...others] = office.shoals
    assert.ok(ada)
    const [popular] = await office.images('popular', 1)
    assert.ok(popular)
    for (const shoal of office.shoals) await shoal.pull(popular, { tag: 'latest' })
    await office.restart()
    await knows(ada, popular, 3)
    for (const shoal of others) await shoal.post('rm', { image: popular.repository })
    for (const image of await office.images('own', 20)) await ada.pull(image, { tag: 'latest' })
    assert.ok(await holds(ada, popular))
    assert.ok((await used(ada)) <= maxSize)
    await office.goOffline()
    for (const shoal of office.shoals) await shoal.pull(popular)
  }),
)

test.run()
