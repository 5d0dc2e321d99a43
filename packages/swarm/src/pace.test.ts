import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { heldBlob } from '../../../test/transfer-peer.ts'
import { Pace, paced } from './pace.ts'

/** A pace whose time goes on when all wait. */
class World {
  now = 0
  readonly pace: Pace
  #waiting: { at: number; then: () => void }[] = []

  constructor(rate: number) {
    const after = (ms: number, then: () => void) => void this.#waiting.push({ at: this.now + ms, then })
    this.pace = new Pace({ rate, now: () => this.now, after })
  }

  /** Lets users run until `end`, in ms. */
  async run(end: number): Promise<void> {
    for (;;) {
      await new Promise(resolve => setImmediate(resolve))
      const [next] = this.#waiting.sort((a, b) => a.at - b.at)
      if (!next || next.at > end) break
      this.#waiting.shift()
      this.now = next.at
      next.then()
    }
    this.now = end
  }
}

test('many who share a pace get its rate in all, smoothly, and as much each', async () => {
  const rate = 1_000_000
  const world = new World(rate)
  const got = [0, 0, 0, 0, 0]
  const log: { at: number; bytes: number }[] = []
  const use = async (user: number) => {
    for (;;) {
      await world.pace.take(world.pace.piece)
      got[user]! += world.pace.piece
      log.push({ at: world.now, bytes: world.pace.piece })
    }
  }
  for (const user of got.keys()) void use(user)
  await world.run(20_000)
  const sum = got.reduce((all, bytes) => all + bytes)
  assert.ok(Math.abs(sum - 20 * rate) <= rate / 4, `${sum} bytes in 20 s`)
  assert.ok(Math.max(...got) - Math.min(...got) <= world.pace.piece, got.join())
  for (const { at } of log) {
    const lately = log.filter(each => each.at > at - 1000 && each.at <= at).reduce((all, { bytes }) => all + bytes, 0)
    assert.ok(lately <= rate * 1.25, `${lately} bytes in a second`)
  }
})

test('after a rest a little goes at once, whatever the rest', async () => {
  const world = new World(8000)
  await world.run(100_000)
  assert.is(world.pace.piece, 1000)
  assert.is(world.pace.take(1000), undefined)
  assert.is(world.pace.take(1000), undefined)
  assert.instance(world.pace.take(1000), Promise)
})

test('a reader at a pace gives all its bytes, and can be cancelled while it waits', async () => {
  const world = new World(80_000)
  const bytes = Buffer.from('shoal'.repeat(10_000))
  const reader = paced(heldBlob(bytes).read({ start: 0, end: bytes.length }), world.pace)
  const pieces: Buffer[] = []
  const reading = (async () => {
    for (;;) {
      const buffer = Buffer.alloc(65_536)
      const count = await reader.read(buffer)
      if (count === 0) return
      assert.ok(count <= world.pace.piece)
      pieces.push(buffer.subarray(0, count))
    }
  })()
  await world.run(2000)
  await reading
  assert.ok(Buffer.concat(pieces).equals(bytes))
  const other = paced(heldBlob(bytes).read({ start: 0, end: bytes.length }), world.pace)
  const buffer = Buffer.alloc(65_536)
  await other.read(buffer)
  await other.read(buffer)
  const waiting = other.read(buffer)
  await new Promise(resolve => setImmediate(resolve))
  other.cancel()
  await waiting.then(
    () => assert.unreachable(),
    () => {},
  )
})

test.run()
