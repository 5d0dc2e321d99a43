import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { testUnless } from '../prerequisites.ts'
import type { Outline } from './internet-program.ts'
import { type LanShoal, sourceOf } from './lan-shoal.ts'
import { LanWorld, whyNoLan } from './lan-world.ts'
import { sizeOf } from './one-download.ts'

const lanTest = testUnless(whyNoLan())

/** Some that are one chunk, and one of many. */
const layers = [5_000_000, 300_000, 20]

/** Of a network that there is nowhere else. */
const token = 'shoal-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9jDc0p'

type Place = {
  readonly world: LanWorld
  /** Nobody but Docker Hub has it. */
  readonly image: Outline
  /** Has the office's line. */
  readonly ada: LanShoal
  /** Reaches the local network, and nothing else. */
  readonly bob: LanShoal
}

/** Two machines that are connected, one of which has lost its way to the internet. */
async function place(test: (place: Place) => Promise<void>, settings: Record<string, string> = {}): Promise<void> {
  await LanWorld.use(async world => {
    const image = await world.internet.agent.call('add', { repository: 'library/four', tag: 'latest', layers })
    const [ada, bob] = await world.shoals(['ada', 'bob'], settings)
    assert.ok(ada && bob)
    await Promise.all([ada.meets([bob]), bob.meets([ada])])
    await bob.host.loseRoute()
    await test({ world, image, ada, bob })
  })
}

/** Pulls where the line is not: it all comes from the other, and over the line once. */
async function pullOverPeer({ world, image, ada, bob }: Place, how: { readonly tag?: string } = {}): Promise<void> {
  const { internet } = world
  const { blobs } = await bob.pull(image, how)
  assert.equal(blobs.map(sourceOf), Array(blobs.length).fill('peer'))
  assert.is((await internet.tally()).manifestGets, 1)
  assert.equal(await internet.asked({ client: bob.host.address }), [])
  assert.is(await internet.blobBytes(ada.host.address), sizeOf(image))
  assert.is((await bob.status()).served.upstream.bytes, 0)
}

lanTest('a machine with no way to the internet has by its digest what nobody holds, over the line of another', () =>
  place(it => pullOverPeer(it)),
)

lanTest('in a private network by its tag as well', () =>
  place(it => pullOverPeer(it, { tag: 'latest' }), { 'swarm-token': token }),
)

lanTest('in the open network nobody is believed about a tag, nor asked what it is', () =>
  place(async ({ world, bob }) => {
    const { status } = await bob.get('/v2/library/four/manifests/latest')
    assert.is(status, 404)
    assert.equal(await world.internet.asked({ path: '/v2/library/four/' }), [])
  }),
)

test.run()
