import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { UpstreamStatus } from '../../packages/shoal/src/admin/status.ts'
import type { LimitMessage } from '../../packages/swarm/src/message.ts'
import { until } from '../shoal-process.ts'
import { fetchWhole, type World } from '../world.ts'
import { FakePeer } from './fake-peer.ts'
import { announced, connected, Office, statusOf } from './office.ts'

const peer = 'shoal; fwd=miss; detail=peer'

/** An office whose hub has so many of 100 pulls left, and these images. */
async function officeWith(remaining: number, images: readonly string[]): Promise<Office> {
  const office = await Office.open({ settings: { 'tags-ttl': '1ms' } })
  const { internet } = office
  internet.hub.rateLimit = { limit: 100, remaining }
  for (const image of images) await internet.add({ repository: `office/${image}`, tag: 'latest', layers: [1000] })
  return office
}

const path = (image: string) => `/v2/office/${image}/manifests/latest`

async function hubOf(machine: World): Promise<UpstreamStatus> {
  const hub = (await statusOf(machine)).upstreams.findLast(({ registry }) => registry === 'docker.io')
  if (!hub) throw new Error('there is no hub')
  return hub
}

/** Waits until the hub itself has told a machine that it is as near to the limit as that. */
async function knows(machine: World, allowance: 'ample' | 'low' | 'spent'): Promise<UpstreamStatus> {
  return until(
    async () => {
      const hub = await hubOf(machine)
      return hub.rate_limit?.allowance === allowance && hub.rate_limit.from === 'registry' ? hub : undefined
    },
    () => `it does not know that the limit is ${allowance}:\n${machine.log.join('')}`,
  )
}

/** What a machine said of the limit in its log. */
function saidOfPulls({ log }: World): string[] {
  return log
    .map(line => String((JSON.parse(line) as { msg: string }).msg))
    .filter(line => / gives all behind /.test(line))
}

/** What stands for the hub, and for all that come from loopback. */
function keyOf({ internet }: Office): Buffer {
  const text = `shoal limit\n${new URL(internet.hub.url).host}\n127.0.0.1`
  return createHash('sha256').update(text).digest().subarray(0, 8)
}

/** GETs that a machine has sent to the hub, of whatever. */
async function gotFromHub({ admin }: World, hub: string): Promise<number> {
  const text = (await fetchWhole('GET', `${admin}/metrics`)).body.toString()
  const label = `endpoint="${new URL(hub).host}",method="GET"`
  const lines = text
    .split('\n')
    .filter(line => line.startsWith('shoal_upstream_requests_total') && line.includes(label))
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

test("one machine's pulls have all know of the limit, and nobody meets a 429", async () => {
  const images = ['a', 'b', 'c']
  await using office = await officeWith(12, [...images, 'new'])
  const { hub, log } = office.internet
  const [first, second] = await office.machinesTogether(2)
  assert.ok(first && second)
  if (!first || !second) return
  assert.is((await second.head(path('a'))).status, 200)
  assert.is((await hubOf(second)).rate_limit?.remaining, 12)

  // Near its end.
  for (const image of images.slice(0, 2)) assert.is((await first.get(path(image))).status, 200)
  const { rate_limit, state } = await knows(second, 'low')
  assert.equal([rate_limit?.remaining, state], [10, 'closed'])
  assert.is(saidOfPulls(second).length, 1)
  assert.match(saidOfPulls(second)[0] ?? '', /10 more pulls of 100, until .*: manifests come from peers first/)

  // At its end.
  hub.rateLimit.remaining = 1
  assert.is((await first.get(path('c'))).status, 200)
  assert.is((await knows(second, 'spent')).state, 'limited')
  assert.is(saidOfPulls(second).length, 2)
  assert.match(saidOfPulls(second)[1] ?? '', /no more pulls, until/)

  // What the office has is served, tags are checked, and the rest is left to the client.
  await announced(second, 3)
  log.clear()
  for (const image of images) {
    const answer = await second.get(path(image))
    assert.equal([answer.status, answer.headers['cache-status']], [200, peer])
    assert.is((await second.get(path(image))).headers['cache-status'], 'shoal; hit; detail=local')
  }
  assert.ok(log.requests({ server: 'hub', method: 'HEAD' }).length >= images.length)
  const nowhere = await second.get(path('new'))
  assert.is(nowhere.status, 404)
  assert.match(nowhere.body.toString(), /limits the rate/)
  assert.is(await gotFromHub(second, hub.url), 0)
  assert.equal(log.requests({ server: 'hub', method: 'GET', path: '/manifests/' }), [])
  assert.equal(log.requests({ status: 429 }), [])

  // Over.
  hub.rateLimit.remaining = 100
  assert.is((await first.head(path('new'))).status, 200)
  assert.is((await knows(second, 'ample')).state, 'closed')
  assert.match(saidOfPulls(second)[2] ?? '', /pulls as ever: 100 of 100 are left/)
  assert.is((await second.get(path('new'))).status, 200)
})

test('who joins hears what is left, and not of whom', async () => {
  await using office = await officeWith(50, ['a'])
  const machine = await office.machine()
  assert.is((await machine.head(path('a'))).status, 200)
  const heard: LimitMessage[] = []
  const events = { joined() {}, left() {}, banned() {}, gave() {}, warning() {}, limit: heard.push.bind(heard) }
  await using _peer = await FakePeer.open({
    bootstrap: [`127.0.0.1:${office.portsOf(machine).swarm}`],
    more: { events },
  })
  const [limit] = await until(
    () => (heard.length > 0 ? heard : undefined),
    () => 'nobody has told it',
  )
  assert.equal([limit?.limit, limit?.remaining, limit?.window], [100, 50, 21_600])
  assert.ok(Buffer.from(limit?.key ?? []).equals(keyOf(office)))
})

test('a peer that lies about the limit keeps nobody from pulling', async () => {
  await using office = await officeWith(100, ['a'])
  await using liar = await FakePeer.open()
  const machine = await office.machine({ peers: [liar] })
  await connected(machine, 1)
  assert.is((await machine.head(path('a'))).status, 200)
  liar.swarm.tell({ t: 'limit', key: keyOf(office), limit: 100, remaining: 0, window: 21_600, age: 0 })
  await until(
    () => (office.internet.log.requests({ server: 'hub', method: 'HEAD', status: 200 }).length > 1 ? true : undefined),
    () => 'the machine does not ask the hub about it',
  )
  await knows(machine, 'ample')
  assert.is((await machine.get(path('a'))).status, 200)
  assert.equal(saidOfPulls(machine), [])
})

test.run()
