import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Digest } from '../../packages/oci/src/digest.ts'
import { bytesOf } from '../../scripts/internet/content.ts'
import { until } from '../shoal-process.ts'
import type { World } from '../world.ts'
import { FakePeer } from './fake-peer.ts'
import { connected, statusOf } from './office.ts'
import { MiB, Rush } from './rush.ts'
import { SpreadLiar } from './spread-liar.ts'

/** What a chunk or two more may come to that was fetched twice. */
const twice = 2 * MiB

test('machines that pull the same at once cost upstream one pull', async () => {
  await using rush = await Rush.open([9 * MiB, 3 * MiB, 200_000])
  const machines = await rush.office.machinesTogether(4)
  await Promise.all(machines.map(machine => rush.pull(machine)))
  const { manifests, bytes } = rush.upstream
  assert.is(manifests, 1)
  assert.ok(bytes <= rush.size + twice, `${bytes} bytes came from upstream, of ${rush.size}`)
})

test('who comes in the middle gets the rest with the others, and what they have', async () => {
  await using rush = await Rush.open([12 * MiB])
  const machines = await rush.office.machinesTogether(3)
  const [late, ...others] = machines
  const pulls = others.map(machine => rush.pull(machine))
  await until(
    async () => (rush.upstream.bytes > 4 * MiB ? true : undefined),
    () => 'upstream gives nothing',
  )
  await Promise.all([...pulls, rush.pull(late!)])
  const { manifests, bytes } = rush.upstream
  assert.is(manifests, 1)
  assert.ok(bytes <= rush.size + twice, `${bytes} bytes came from upstream, of ${rush.size}`)
})

test('who fetches stops in the middle, and another goes on from there', async () => {
  await using rush = await Rush.open([16 * MiB])
  const machines = await rush.office.machinesTogether(3)
  const pulls = machines.map(machine => rush.pull(machine).catch(error => error))
  await until(
    async () => (rush.upstream.bytes > 6 * MiB ? true : undefined),
    () => 'upstream gives nothing',
  )
  const received = await Promise.all(machines.map(receivedBy))
  // The one who fetches gets nothing from the others.
  const fetcher = machines[received.indexOf(Math.min(...received))]
  assert.ok(fetcher, 'nobody fetches')
  const results = await Promise.all([fetcher!.restart(), ...pulls])
  const failed = machines.filter((_, i) => results[i + 1] !== undefined)
  assert.equal(failed, failed.length === 0 ? [] : [fetcher])
  const { bytes } = rush.upstream
  assert.ok(bytes <= rush.size + 8 * MiB, `${bytes} bytes came from upstream, of ${rush.size}`)
})

for (const behaviour of ['member', 'author'] as const)
  test(`a liar among them, as ${behaviour}, harms no client, and is found out, and nobody else is`, async () => {
    await using rush = await Rush.open([10 * MiB])
    const [layer] = rush.image.layers
    const bytes = bytesOf(layer!)
    await using peer = await FakePeer.open({ name: 'liar' })
    await using liar = new SpreadLiar(peer, layer!.digest as Digest, bytes, behaviour)
    const machines: World[] = []
    for (let made = 0; made < 2; made++) machines.push(await rush.office.machine({ peers: [peer] }))
    for (const machine of machines) await connected(machine, 2)
    if (behaviour === 'author') await liar.join()
    const pulls = machines.map(machine => rush.pull(machine))
    if (behaviour === 'member') {
      await until(
        async () => (rush.upstream.bytes > MiB ? true : undefined),
        () => 'upstream gives nothing',
      )
      await liar.join()
    }
    await Promise.all(pulls)
    assert.ok(liar.lies > 0, 'it was not asked for anything')
    await until(
      async () => ((await bansOf(machines)).length > 0 ? true : undefined),
      () => 'nobody has found it out',
    )
    assert.equal([...new Set(await bansOf(machines))], ['liar'])
  })

async function bansOf(machines: readonly World[]): Promise<string[]> {
  const names: string[] = []
  for (const machine of machines)
    for (const { name, ban } of (await statusOf(machine)).peers) if (ban) names.push(name ?? 'nameless')
  return names
}

async function receivedBy(machine: World): Promise<number> {
  return (await statusOf(machine)).peers.reduce((sum, { received_bytes }) => sum + received_bytes, 0)
}

test.run()
