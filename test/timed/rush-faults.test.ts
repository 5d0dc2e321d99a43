import type { Digest } from '@shoal/oci/digest'
import { weightOf } from '@shoal/swarm/spread/coordinators'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Agent } from '../lan/agent.ts'
import type { Host } from '../lan/host.ts'
import type { Outline } from '../lan/internet-program.ts'
import type { LanShoal } from '../lan/lan-shoal.ts'
import { whyNoLan } from '../lan/lan-world.ts'
import type { LiarCalls } from '../lan/liar-agent.ts'
import { type HostPulled, Office } from '../lan/office.ts'
import { assertAllGot, assertOneDownload, layers, sizeOf } from '../lan/one-download.ts'
import { testUnless } from '../prerequisites.ts'
import { until } from '../shoal-process.ts'

const lanTest = testUnless(whyNoLan())

let office: Office
let opened: Promise<void> | undefined

async function open(): Promise<void> {
  office = await Office.open(6, { line: 50e6, link: 50e6 })
  await office.start()
}

test.before.each(async () => {
  await (opened ??= open())
  await office.meet()
})

test.after(async () => office?.[Symbol.asyncDispose]())

/** All pull; some are killed amid it. @param victims are chosen then. @returns how it went for the others */
async function rushAndKill(
  image: Outline,
  victims: () => Promise<readonly Host[]>,
): Promise<{ killed: readonly Host[]; others: HostPulled[] }> {
  const [pulled, killed] = await Promise.all([
    office.rush({ image }),
    victims().then(async hosts => {
      for (const { shoals } of hosts) await shoals[0]!.kill()
      return hosts
    }),
  ])
  return { killed, others: pulled.filter(({ host }) => !killed.includes(host)) }
}

/** They come back, and have from the others what they lack. */
async function comeBack(hosts: readonly Host[], image: Outline): Promise<void> {
  for (const { shoals } of hosts) await shoals[0]!.start()
  await office.meet()
  assertAllGot(await office.rush({ image, hosts }))
}

for (const part of [0.1, 0.5, 0.9])
  lanTest(`who fetches is killed at ${part * 100} %: another takes over`, async () => {
    const image = await office.addImage(`killed-${part * 100}`, layers(4, 12e6))
    const { killed, others } = await rushAndKill(image, async () => [await office.fetcherAt(part * sizeOf(image))])
    assertAllGot(others)
    await assertOneDownload(office, image, { deaths: 1 })
    await comeBack(killed, image)
  })

lanTest('who coordinates is killed at half: the next one knows what it has to', async () => {
  const image = await office.addImage('uncoordinated', [12e6])
  const weighed = await Promise.all(
    office.hosts.map(async host => {
      return {
        host,
        weight: weightOf(image.layers[0]!.digest as Digest, String((await host.shoals[0]!.status()).peer_id)),
      }
    }),
  )
  const { host: coordinator } = weighed.reduce((a, b) => (b.weight > a.weight ? b : a))
  const { killed, others } = await rushAndKill(image, async () => {
    await office.fetcherAt(0.5 * sizeOf(image))
    return [coordinator]
  })
  assertAllGot(others)
  await assertOneDownload(office, image, { deaths: 1 })
  await comeBack(killed, image)
})

lanTest('half of an office is switched off amid a pull: the others get it', async () => {
  const image = await office.addImage('half-off', layers(8, 12e6))
  const { killed, others } = await rushAndKill(image, async () => {
    const fetcher = await office.fetcherAt(0.3 * sizeOf(image))
    return office.hosts.filter(host => host !== fetcher).slice(0, office.hosts.length / 2)
  })
  assertAllGot(others)
  await assertOneDownload(office, image, { deaths: killed.length })
  await comeBack(killed, image)
})

lanTest('an office is split amid a pull, and healed: all get it', async () => {
  const image = await office.addImage('split', layers(4, 12e6))
  const size = sizeOf(image)
  const half = office.hosts.length / 2
  const [pulled] = await Promise.all([
    office.rush({ image }),
    (async () => {
      await office.fetcherAt(0.3 * size)
      await office.world.lan.partition(office.hosts.slice(0, half), office.hosts.slice(half))
      await office.fetcherAt(0.8 * size)
      await office.world.lan.heal()
    })(),
  ])
  assertAllGot(pulled)
  assert.is(pulled.length, office.hosts.length)
  // One side has to fetch the rest by itself.
  await assertOneDownload(office, image, { anew: 0.7 * size })
})

lanTest('a third of an office lies: all others get what is right, and ban liars and nobody else', async () => {
  const image = await office.addImage('liars', layers(3, 24e6))
  await using opened = new AsyncDisposableStack()
  const liars: Agent<LiarCalls>[] = []
  for (let i = 0; i < office.hosts.length / 2; i++) {
    const host = opened.use(await office.world.lan.host({ name: `liar${i + 1}` }))
    const liar = opened.use(new Agent<LiarCalls>(host.namespace, 'liar-agent.ts'))
    await liar.call('open', { name: host.name })
    await known(host.name)
    liars.push(liar)
  }
  const join = (i: number, as: 'author' | 'member') => liars[i]!.call('join', { ...image.layers[i]!, as })
  // The first who wants it is the one who fetches it.
  await join(0, 'author')
  const pulls = office.rush({ image })
  await office.fetcherAt(0.2 * sizeOf(image))
  await join(1, 'member')
  await join(2, 'member')
  assertAllGot(await pulls)
  for (const liar of liars) assert.ok((await liar.call('lies', {})) > 0, 'one was not asked for anything')
  const banned = new Set((await Promise.all(office.shoals.map(bannedBy))).flat())
  console.log(`measured: banned: ${[...banned].sort()}`)
  assert.ok(banned.size > 0, 'nobody was found out')
  assert.equal(
    [...banned].filter(name => !name.startsWith('liar')),
    [],
  )
  // What the author brought is fetched again.
  await assertOneDownload(office, image, { anew: image.layers[0]!.size })
})

/** Waits until all daemons are connected to one who lies. */
async function known(name: string): Promise<void> {
  await until(
    async () => {
      const seen = await Promise.all(office.shoals.map(shoal => shoal.connected()))
      return seen.every(peers => peers.some(peer => peer.name === name)) || undefined
    },
    () => `not all are connected to ${name}`,
    60_000,
  )
}

async function bannedBy(shoal: LanShoal): Promise<string[]> {
  return (await shoal.status()).peers.flatMap(({ name, ban }) => (ban ? [name ?? 'nameless'] : []))
}

test.run()
