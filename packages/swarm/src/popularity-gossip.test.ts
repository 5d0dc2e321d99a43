import { mostRows, type Told } from '@shoal/retention/office-popularity'
import type { Row } from '@shoal/retention/popularity'
import { encode } from 'cborg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodePopularity } from './message.ts'
import { longestMessage, PopularityGossip } from './popularity-gossip.ts'
import { toldOf } from './popularity-message.ts'

const minute = 60_000

const image = (name: string) => `docker.io/library/${name}:latest`
const row = (name: string, score: number): Row => ({ image: image(name), score })

/** A machine whose rows a test sets, whose time passes when the test says so, and what it says and hears. */
class World {
  rows: Row[] = []
  members = new Set<string>(['a'])
  connected = 1
  now = 0
  random = 0.5
  readonly published: Told[] = []
  readonly bytes: Uint8Array[] = []
  readonly heard: { peer: string; told: Told }[] = []
  #timers: { at: number; then: () => void }[] = []
  #gossip: PopularityGossip | undefined

  get gossip(): PopularityGossip {
    this.#gossip ??= new PopularityGossip({
      rows: () => this.rows,
      heard: (peer, told) => void this.heard.push({ peer, told }),
      publish: bytes => {
        this.bytes.push(bytes)
        this.published.push(toldOf(decodePopularity(bytes)))
      },
      connected: () => this.connected,
      isMember: peer => this.members.has(peer),
      now: () => this.now,
      clock: () => 1_800_000_000_000 + this.now,
      random: () => this.random,
      after: (ms, then) => {
        const timer = { at: this.now + ms, then }
        this.#timers.push(timer)
        return { [Symbol.dispose]: () => void (this.#timers = this.#timers.filter(each => each !== timer)) }
      },
    })
    return this.#gossip
  }

  /** The rows become these. */
  become(...rows: Row[]): void {
    const { gossip } = this
    this.rows = rows
    gossip.changed()
  }

  pass(ms: number): void {
    const end = this.now + ms
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
      if (!next) break
      this.#timers = this.#timers.filter(timer => timer !== next)
      this.now = next.at
      next.then()
    }
    this.now = end
  }

  /** What somebody has said comes. @returns whether it is passed on */
  comes(author: string, sequence: number, bytes: Uint8Array): boolean {
    return this.gossip.judge({ author, sequence: BigInt(sequence), bytes })
  }
}

const said = (...rows: Row[]) =>
  encode({ at: 1_800_000_000_000, rows: rows.map(each => [each.image, Math.round(each.score * 64)]) })

test('changes are gathered, and told once', () => {
  const world = new World()
  world.gossip.changed()
  world.become(row('nginx', 10))
  world.pass(4 * minute)
  world.become(row('nginx', 11), row('redis', 3))
  assert.equal(world.published, [])
  world.pass(minute)
  assert.equal(world.published, [{ at: 1_800_000_000_000 + 5 * minute, rows: [row('nginx', 11), row('redis', 3)] }])
  world.pass(60 * minute)
  assert.is(world.published.length, 1)
})

test('only what has changed since is told', () => {
  const world = new World()
  world.become(row('nginx', 10), row('redis', 3))
  world.pass(5 * minute)
  world.become(row('nginx', 10), row('redis', 4), row('busybox', 1))
  world.pass(5 * minute)
  assert.equal(world.published[1]?.rows, [row('redis', 4), row('busybox', 1)])
  world.gossip.changed()
  world.pass(5 * minute)
  assert.is(world.published.length, 2)
})

test('what was there at the start is told those who come, and not by gossip', () => {
  const world = new World()
  world.rows = [row('nginx', 10)]
  world.gossip.changed()
  world.pass(5 * minute)
  assert.equal(world.published, [])
  assert.equal(world.gossip.snapshot, {
    t: 'popular',
    at: 1_800_000_000_000 + 5 * minute,
    rows: [[image('nginx'), 640]],
  })
})

test('who tells nothing has nothing for who comes, either', () => {
  const world = new World()
  assert.is(world.gossip.snapshot, undefined)
})

test('chance makes it half as long, or half longer; an office of 200 hears something each 15 s', () => {
  for (const [connected, random, expected] of [
    [1, 0, 2.5],
    [1, 1, 7.5],
    [20, 0.5, 5],
    [200, 0.5, 50],
  ] as const) {
    const world = new World()
    world.connected = connected
    world.random = random
    world.become(row('nginx', 10))
    world.pass(expected * minute - 1)
    assert.is(world.published.length, 0)
    world.pass(1)
    assert.is(world.published.length, 1)
  }
})

test('no more than the strongest 256 are told, by gossip as in a snapshot', () => {
  const world = new World()
  world.become(...Array.from({ length: 1000 }, (_, index) => row(`image-${index}`, index)))
  world.pass(5 * minute)
  assert.is(world.published[0]?.rows.length, mostRows)
  assert.equal(world.published[0]?.rows[0], row('image-999', 999))
  assert.is(world.gossip.snapshot?.rows.length, mostRows)
})

test('what does not fit into a message is told in the next', () => {
  const world = new World()
  const long = 'x'.repeat(240)
  const rows = Array.from({ length: 200 }, (_, index) => row(`${long}/${index}`, 1000 - index))
  world.become(...rows)
  world.pass(60 * minute)
  assert.ok(world.bytes.length > 1)
  assert.ok(world.bytes.every(({ length }) => length <= longestMessage))
  assert.ok(world.bytes[0]!.length > longestMessage * 0.9)
  assert.equal(
    world.published.flatMap(({ rows }) => rows),
    rows,
  )
})

test('an image with too long a name is not told', () => {
  const world = new World()
  world.become(row('nginx', 10), { image: `docker.io/library/${'x'.repeat(500)}:latest`, score: 20 })
  world.pass(5 * minute)
  assert.equal(world.published[0]?.rows, [row('nginx', 10)])
})

test('nothing is told after the end', () => {
  const world = new World()
  world.become(row('nginx', 10))
  world.gossip.close()
  world.gossip.changed()
  world.pass(60 * minute)
  assert.equal(world.published, [])
})

test('what a member says is heard, and passed on', () => {
  const world = new World()
  assert.ok(world.comes('a', 1, said(row('nginx', 10))))
  assert.equal(world.heard, [{ peer: 'a', told: { at: 1_800_000_000_000, rows: [row('nginx', 10)] } }])
})

test('what somebody else says is not', () => {
  const world = new World()
  assert.not.ok(world.comes('stranger', 1, said(row('nginx', 10))))
  assert.equal(world.heard, [])
})

test('what makes no sense is neither heard nor passed on', () => {
  const rows = [[image('nginx'), 640]]
  for (const bytes of [
    new Uint8Array(),
    encode([]),
    encode({ rows }),
    encode({ at: -1, rows }),
    encode({ at: 1, rows: [[image('nginx')]] }),
    encode({ at: 1, rows: [[image('nginx'), -1]] }),
    encode({ at: 1, rows: [[image('nginx'), 0.5]] }),
    encode({ at: 1, rows: [['nginx', 640]] }),
    encode({ at: 1, rows: [['docker.io/library/nginx', 640]] }),
    encode({ at: 1, rows: [['docker.io/library/NGINX:latest', 640]] }),
    encode({ at: 1, rows: [[`docker.io/${'x'.repeat(500)}:latest`, 640]] }),
    encode({ at: 1, rows: Array.from({ length: 257 }, (_, index) => [image(`i${index}`), 640]) }),
    encode({ at: 1, rows, more: 'x'.repeat(longestMessage) }),
    Buffer.concat([said(row('nginx', 10)), Buffer.of(0)]),
  ]) {
    const world = new World()
    assert.not.ok(world.comes('a', 1, bytes), Buffer.from(bytes).toString('hex').slice(0, 80))
    assert.equal(world.heard, [])
  }
})

test('what a later release adds is passed over', () => {
  const world = new World()
  assert.ok(world.comes('a', 1, encode({ at: 1, rows: [[image('nginx'), 640]], more: { of: [1] } })))
  assert.is(world.heard.length, 1)
})

test('an image by its digest is taken', () => {
  const world = new World()
  const reference = `docker.io/library/nginx@sha256:${'0'.repeat(64)}`
  assert.ok(world.comes('a', 1, encode({ at: 1, rows: [[reference, 640]] })))
})

test('who says too much is not listened to for a while; the others are', () => {
  const world = new World()
  world.members.add('b')
  const taken = Array.from({ length: 20 }, (_, index) => world.comes('a', index, said(row('nginx', index))))
  assert.is(taken.filter(Boolean).length, 8)
  assert.is(world.heard.length, 8)
  assert.ok(world.comes('b', 1, said(row('nginx', 1))))
  world.pass(30_000)
  assert.ok(world.comes('a', 100, said(row('nginx', 1))))
  assert.not.ok(world.comes('a', 101, said(row('nginx', 1))))
})

test('what was said before and is said again by others counts for nothing', () => {
  const world = new World()
  for (let index = 0; index < 20; index++) world.comes('a', 1, said(row('nginx', 1)))
  assert.is(world.heard.length, 1)
  assert.ok(world.comes('a', 2, said(row('nginx', 2))))
})

test('what makes no sense does not keep its author from saying what does', () => {
  const world = new World()
  for (let index = 0; index < 20; index++) world.comes('a', index, encode([]))
  assert.ok(world.comes('a', 1, said(row('nginx', 1))))
})

test('a snapshot is heard, and counts as something said', () => {
  const world = new World()
  const snapshot = { t: 'popular' as const, at: 1_800_000_000_000, rows: [[image('nginx'), 640] as [string, number]] }
  for (let index = 0; index < 20; index++) world.gossip.receive('a', snapshot)
  assert.is(world.heard.length, 8)
  assert.equal(world.heard[0], { peer: 'a', told: { at: 1_800_000_000_000, rows: [row('nginx', 10)] } })
  world.gossip.left('a')
  world.gossip.receive('a', snapshot)
  assert.is(world.heard.length, 9)
})

test.run()
