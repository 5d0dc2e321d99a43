import { type Digest, digestOf } from '@shoal/oci/digest'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Announcer } from './announcer.ts'
import { prefixesOf, prefixLength } from './digest-prefix.ts'
import { Holdings, mostOfPeer } from './holdings.ts'
import { HoldingsInbox } from './holdings-inbox.ts'
import { decodeMessage, encodeMessage, type HoldingsMessage, mostPrefixes } from './message.ts'

const digestAt = (index: number) => digestOf(Buffer.from(`blob ${index}`))
const digests = Array.from({ length: 40 }, (_, index) => digestAt(index))

/** Lets all go on that waits for nothing but a turn. */
async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve))
}

/** A clock that goes on when a test says so. */
class World {
  now = 0
  #timers: { at: number; then: () => void }[] = []

  after = (ms: number, then: () => void): Disposable => {
    const timer = { at: this.now + ms, then }
    this.#timers.push(timer)
    return { [Symbol.dispose]: () => void (this.#timers = this.#timers.filter(other => other !== timer)) }
  }

  get timers(): number {
    return this.#timers.length
  }

  async pass(ms: number): Promise<void> {
    const end = this.now + ms
    await settle()
    for (;;) {
      const [next] = this.#timers.sort((a, b) => a.at - b.at)
      if (!next || next.at > end) break
      this.#timers.shift()
      this.now = next.at
      next.then()
      await settle()
    }
    this.now = end
  }
}

/** What a machine shares. */
class Shelf {
  readonly held = new Set<Digest>()
  readonly listeners = new Set<(change: { added: readonly Digest[]; removed: readonly Digest[] }) => void>()

  digests(): Iterable<Digest> {
    return this.held.keys()
  }

  onChange(listener: (change: { added: readonly Digest[]; removed: readonly Digest[] }) => void): Disposable {
    this.listeners.add(listener)
    return { [Symbol.dispose]: () => void this.listeners.delete(listener) }
  }

  change(added: readonly Digest[], removed: readonly Digest[] = []): void {
    for (const digest of added) this.held.add(digest)
    for (const digest of removed) this.held.delete(digest)
    for (const listener of this.listeners) listener({ added, removed })
  }
}

/** An announcer, and what it has sent. */
function announcerWith(held: readonly Digest[] = [], send: () => Promise<void> | undefined = () => undefined) {
  const world = new World()
  const sharing = new Shelf()
  for (const digest of held) sharing.held.add(digest)
  const sent: HoldingsMessage[] = []
  const announcer = new Announcer({
    sharing,
    send(message) {
      sent.push(message)
      return send()
    },
    now: () => world.now,
    after: world.after,
  })
  return { world, sharing, sent, announcer }
}

const message = (seq: number, more: Partial<HoldingsMessage> = {}): HoldingsMessage => ({
  t: 'holdings',
  seq,
  reset: false,
  more: false,
  add: new Uint8Array(),
  remove: new Uint8Array(),
  ...more,
})

test('a peer is told everything, then what changes, gathered over 100 ms', async () => {
  const [a, b, c] = digests as [Digest, Digest, Digest]
  const { world, sharing, sent, announcer } = announcerWith([a])
  announcer.start()
  await world.pass(1000)
  sharing.change([b])
  await world.pass(50)
  sharing.change([c], [a])
  await world.pass(49)
  assert.is(sent.length, 1)
  await world.pass(1000)
  assert.equal(sent, [
    message(1, { reset: true, add: prefixesOf([a]) }),
    message(2, { add: prefixesOf([b, c]), remove: prefixesOf([a]) }),
  ])
})

test('who has nothing says so', async () => {
  const { world, sent, announcer } = announcerWith()
  announcer.start()
  await world.pass(1000)
  assert.equal(sent, [message(1, { reset: true })])
})

test('what is added and removed before it is told is told as it is now', async () => {
  const [a, b, c] = digests as [Digest, Digest, Digest]
  const { world, sharing, sent, announcer } = announcerWith([b])
  announcer.start()
  await world.pass(0)
  sharing.change([a])
  sharing.change([], [a])
  sharing.change([], [b])
  sharing.change([b])
  sharing.change([c], [c])
  await world.pass(100)
  assert.equal(sent.slice(1), [message(2, { add: prefixesOf([b]), remove: prefixesOf([a, c]) })])
})

test('a snapshot goes in parts, each when the one before is taken, and changes meanwhile follow it', async () => {
  const held = Array.from({ length: 2 * mostPrefixes + 1 }, (_, index) => digestAt(index))
  const taken: (() => void)[] = []
  const wait = () => new Promise<void>(resolve => taken.push(resolve))
  const { world, sharing, sent, announcer } = announcerWith(held, wait)
  announcer.start()
  const news = digestAt(-1)
  sharing.change([news], [held[0]!])
  for (let parts = 1; parts <= 3; parts++) {
    await world.pass(1000)
    assert.is(sent.length, parts)
    taken.shift()?.()
  }
  await world.pass(0)
  const counts = sent.map(({ seq, reset, more, add, remove }) => ({
    seq,
    reset,
    more,
    add: add.length / 8,
    remove: remove.length / 8,
  }))
  assert.equal(counts, [
    { seq: 1, reset: true, more: true, add: mostPrefixes, remove: 0 },
    { seq: 2, reset: false, more: true, add: mostPrefixes, remove: 0 },
    { seq: 3, reset: false, more: false, add: 2, remove: 0 },
    { seq: 4, reset: false, more: false, add: 1, remove: 1 },
  ])
  assert.equal(sent[3]!.remove, prefixesOf([held[0]!]))
})

test('other work gets its turn between the parts of a snapshot', async () => {
  const held = Array.from({ length: 4 * mostPrefixes }, (_, index) => digestAt(index))
  const { sent, announcer } = announcerWith(held)
  announcer.start()
  const seen: number[] = []
  for (let turn = 0; turn < 6; turn++) {
    seen.push(sent.length)
    await new Promise(resolve => setImmediate(resolve))
  }
  assert.equal(seen, [1, 2, 3, 4, 5, 5])
  assert.equal(
    sent.map(({ more }) => more),
    [true, true, true, true, false],
  )
})

test('no more is announced than a peer keeps', async () => {
  const { world, sharing, sent, announcer } = announcerWith()
  sharing.digests = function* () {
    for (let index = 0; index < 2 * mostOfPeer; index++) yield digests[index % digests.length]!
  }
  announcer.start()
  for (let i = 0; i < 10; i++) await world.pass(0)
  assert.is(
    sent.reduce((sum, { add }) => sum + add.length, 0),
    mostOfPeer * prefixLength,
  )
  assert.equal(sent.map(({ more }) => more).lastIndexOf(true), sent.length - 2)
})

test('many changes at once go in several messages', async () => {
  const { world, sharing, sent, announcer } = announcerWith()
  announcer.start()
  await world.pass(0)
  sharing.change(Array.from({ length: mostPrefixes + 1 }, (_, index) => digestAt(index)))
  await world.pass(100)
  assert.equal(
    sent.slice(1).map(({ seq, add }) => [seq, add.length / 8]),
    [
      [2, mostPrefixes],
      [3, 1],
    ],
  )
})

test('a peer that asks for snapshots again and again gets one in 10 s', async () => {
  const { world, sent, announcer } = announcerWith(digests.slice(0, 1))
  announcer.start()
  const snapshots = () => sent.filter(({ reset }) => reset).length
  for (let second = 0; second < 10; second++) {
    announcer.resync()
    announcer.resync()
    await world.pass(999)
  }
  assert.is(snapshots(), 1)
  await world.pass(10)
  assert.is(snapshots(), 2)
  await world.pass(60_000)
  assert.is(snapshots(), 2)
  announcer.resync()
  await world.pass(0)
  assert.is(snapshots(), 3)
})

test('a peer that asks while a snapshot goes out gets another', async () => {
  const taken: (() => void)[] = []
  const wait = () => new Promise<void>(resolve => taken.push(resolve))
  const { world, sent, announcer } = announcerWith(digests, wait)
  announcer.start()
  await world.pass(20_000)
  announcer.resync()
  announcer.resync()
  taken.shift()?.()
  await world.pass(20_000)
  taken.shift()?.()
  await world.pass(20_000)
  assert.equal(
    sent.map(({ reset }) => reset),
    [true, true],
  )
})

test('once it is stopped nothing is told, nor waited for', async () => {
  const taken: (() => void)[] = []
  const held = Array.from({ length: 2 * mostPrefixes }, (_, index) => digestAt(index))
  const { world, sharing, sent, announcer } = announcerWith(
    held,
    () => new Promise<void>(resolve => taken.push(resolve)),
  )
  announcer.start()
  await world.pass(0)
  sharing.change([digestAt(-1)])
  announcer.resync()
  announcer.stop()
  for (const each of taken) each()
  announcer.resync()
  await world.pass(60_000)
  assert.is(sent.length, 1)
  assert.is(sharing.listeners.size, 0)
  assert.is(world.timers, 0)
})

test('the other side comes to know what is shared, whatever is lost on the way', async () => {
  const some = fc.uniqueArray(fc.constantFrom(...digests), { maxLength: 8 })
  const step = fc.record({
    added: some,
    removed: some,
    pass: fc.constantFrom(0, 30, 100, 5000, 20_000),
    losesMessages: fc.boolean(),
    losesQuestions: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(some, fc.array(step, { maxLength: 15 }), async (held, steps) => {
      const world = new World()
      const sharing = new Shelf()
      for (const digest of held) sharing.held.add(digest)
      const holdings = new Holdings({ random: Math.random, onFull: () => {} })
      let [losesMessages, losesQuestions] = [false, false]
      const announcer: Announcer = new Announcer({
        sharing,
        send(message) {
          const received = decodeMessage(encodeMessage(message))
          if (!losesMessages && received?.t === 'holdings') inbox.receive(received)
          return undefined
        },
        now: () => world.now,
        after: world.after,
      })
      const inbox = new HoldingsInbox({
        peer: 'p',
        holdings,
        send: () => losesQuestions || announcer.resync(),
        now: () => world.now,
        after: world.after,
      })
      announcer.start()
      for (const { added, removed, pass, ...step } of steps) {
        losesMessages = step.losesMessages
        losesQuestions = step.losesQuestions
        sharing.change(added, removed)
        await world.pass(pass)
      }
      // A last message that comes through shows what was missed.
      losesMessages = losesQuestions = false
      await world.pass(1000)
      sharing.change([digests[0]!])
      await world.pass(30_000)
      for (const digest of digests) assert.is(holdings.holdersOf(digest).length === 1, sharing.held.has(digest))
      assert.is(holdings.count('p'), sharing.held.size)
      announcer.stop()
      inbox.close()
      assert.is(world.timers, 0)
    }),
    { numRuns: 100 },
  )
})

test.run()
