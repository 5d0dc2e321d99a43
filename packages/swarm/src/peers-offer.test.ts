import { type Giver, type Offer, SourceError, type SourceErrorCode } from '@shoal/store/source'
import { CollectingWriter } from '@shoal/store/source.conformance'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Answer, gives, givesOther, refuses, ScriptedPeers, type Step } from '../../../test/scripted-peers.ts'
import { PeerViolation } from './peer-client.ts'
import { PeersSource } from './peers-source.ts'
import type { Provider } from './provider.ts'

const never = new AbortController().signal
const cut = new SourceError('broken', 'it broke off')

/** Keeps what it is told of sizes, too. */
class Writer extends CollectingWriter {
  readonly sizes: (number | undefined)[] = []

  override from(giver: Giver, size?: number): void {
    super.from(giver)
    this.sizes.push(size)
  }
}

/** Peers that are asked one after the other, as long as nobody has measured them. */
function world(size: number, ...answers: readonly (readonly Answer[])[]) {
  const peers = new ScriptedPeers(size)
  const providers = answers.map((each, index) => peers.add('abcd'[index]!, ...each))
  return {
    peers,
    providers,
    whole: { start: 0, end: size },
    /** Has an offer of the first that answers. */
    async offer(kind: 'impatient' | 'patient' = 'impatient'): Promise<Offer> {
      const offer = await new PeersSource(peers.context, kind).find(peers.want, never)
      if (!offer) throw new Error('nobody offers it')
      return offer
    },
    /** Fetches the whole blob, or a range of it. */
    async fetch(offer: Offer, range = { start: 0, end: size }, most?: number): Promise<Writer> {
      const writer = new Writer(range)
      await peers.during(offer.fetch(range, writer, never), most)
      assert.ok(writer.bytes.equals(peers.bytes.subarray(range.start, range.end)), 'it has all bytes, each once')
      return writer
    },
    [Symbol.dispose]: () => peers[Symbol.dispose](),
  }
}

async function throws(promise: Promise<unknown>, code: SourceErrorCode): Promise<void> {
  const error = await promise.then(
    () => new Error(`it should have failed with ${code}`),
    (error: unknown) => error,
  )
  assert.instance(error, SourceError, String(error))
  assert.is((error as SourceError).code, code, (error as SourceError).message)
}

const names = (givers: readonly Giver[]) => givers.map(({ label }) => label)

/** So many bytes every 50 ms, without end. */
const every50ms = (bytes: number): Step[] => Array.from({ length: 4000 }, (_, i) => (i % 2 ? { wait: 50 } : bytes))

/** `seconds` in which it gave so many bytes each. */
function measured(provider: Provider, rate: number): void {
  provider.gave(rate, 1000)
  provider.receivedBytes = 0
}

test('one that gives it all is named, measured, and free again', async () => {
  const size = 1_000_000
  using w = world(size, [gives(500_000, { wait: 100 }, 500_000)])
  const [a] = w.providers
  const offer = await w.offer()
  assert.ok(offer.ranges().covers(w.whole))
  const writer = new Writer(w.whole)
  const fetching = offer.fetch(w.whole, writer, never)
  await w.peers.pass(50)
  assert.is(a!.active, 1)
  await w.peers.during(fetching)
  assert.ok(writer.bytes.equals(w.peers.bytes))
  assert.is(a!.active, 0)
  assert.is(a!.rate, 10_000_000)
  assert.is(a!.receivedBytes, size)
  assert.equal(writer.givers, [a])
  assert.equal(writer.sizes, [size])
  assert.equal([w.peers.verdicts, w.peers.aborted], [[], []])
  assert.equal(w.peers.givers, ['a'])
})

test('what a peer calls a manifest is not passed on: no digest proves it', async () => {
  const type = 'application/vnd.oci.image.index.v1+json'
  const typed: Answer = async (...asked) => ({ ...(await gives()(...asked)), contentType: type }) as never
  using w = world(100, [typed])
  const offer: Offer | null = await new PeersSource(w.peers.context, 'impatient').find(
    { ...w.peers.want, kind: 'manifest' },
    never,
  )
  assert.is(offer?.mediaType, undefined)
})

for (const [how, steps] of Object.entries<Step[]>({
  'is cut': [30_000, cut],
  'is cut before its first byte': [cut],
  'ends before its end': [30_000],
}))
  test(`if a body ${how}, another peer goes on at the same byte`, async () => {
    using w = world(100_000, [gives(...steps)], [gives()])
    const [a, b] = w.providers
    const writer = await w.fetch(await w.offer())
    const from = typeof steps[0] === 'number' ? 30_000 : 0
    assert.equal(names(writer.givers), ['a', 'b'])
    assert.equal(w.peers.requests.at(-1)?.range, from === 0 ? undefined : { start: from, end: 100_000 })
    assert.equal([a!.receivedBytes, b!.receivedBytes], [from, 100_000 - from])
    assert.equal(w.peers.verdicts, ['suspect a'])
    assert.ok(a!.rests)
    assert.not(b!.rests)
    assert.is(w.peers.now, 10)
  })

test('one after another may be cut', async () => {
  const answers = [10, 20, 30].map(bytes => [gives(bytes, cut)])
  using w = world(100, ...answers, [gives()])
  assert.equal(names((await w.fetch(await w.offer())).givers), ['a', 'b', 'c', 'd'])
  assert.equal(w.peers.verdicts, ['suspect a', 'suspect b', 'suspect c'])
  assert.equal(w.peers.givers, [])
})

test('if all are cut, why the last one was is thrown, and what came stays', async () => {
  using w = world(100, [gives(40, cut)], [gives(40, new SourceError('timeout', 'it is late'))])
  const writer = new Writer(w.whole)
  await throws(w.peers.during((await w.offer()).fetch(w.whole, writer, never)), 'timeout')
  assert.ok(writer.bytes.equals(w.peers.bytes.subarray(0, 80)))
  assert.equal(w.peers.asked, ['a', 'b'])
})

test('a second range goes on after who has failed in the first', async () => {
  using w = world(100, [gives(40, cut)], [gives()])
  const offer = await w.offer()
  await w.fetch(offer)
  assert.equal(names((await w.fetch(offer, { start: 5, end: 9 })).givers), ['b'])
  assert.equal(w.peers.asked, ['a', 'b', 'b'])
})

test('if one falls silent, another goes on after half a second', async () => {
  using w = world(100_000, [gives(50_000, { wait: Number.POSITIVE_INFINITY })], [gives()])
  assert.equal(names((await w.fetch(await w.offer())).givers), ['a', 'b'])
  assert.equal(w.peers.verdicts, ['suspect a'])
  assert.equal(w.peers.aborted, ['a'])
  assert.ok(w.peers.now > 500 && w.peers.now < 1000, `${w.peers.now} ms`)
})

test('one that stops for less than that is not given up', async () => {
  using w = world(100_000, [gives(50_000, { wait: 450 }, 50_000)], [gives()])
  assert.equal(names((await w.fetch(await w.offer())).givers), ['a'])
  assert.equal(w.peers.verdicts, [])
})

test('where nobody else has it, silence is borne for longer, without upstream much longer', async () => {
  for (const [kind, least, most] of [
    ['impatient', 1200, 1500],
    ['patient', 15_000, 15_500],
  ] as const) {
    using w = world(100_000, [gives(50_000, { wait: Number.POSITIVE_INFINITY })])
    const fetching = (await w.offer(kind)).fetch(w.whole, new Writer(w.whole), never)
    await throws(w.peers.during(fetching), 'timeout')
    assert.equal(w.peers.verdicts, ['suspect a'])
    assert.ok(w.peers.now > least && w.peers.now < most, `${kind}: ${w.peers.now} ms`)
  }
})

test('of one that gives next to nothing the rest is taken elsewhere, and it rests', async () => {
  using w = world(200_000, [gives(...every50ms(1000))], [gives()])
  const writer = await w.fetch(await w.offer())
  assert.equal(names(writer.givers), ['a', 'b'])
  assert.equal(
    w.providers.map(({ rests }) => rests),
    [true, false],
  )
  assert.equal(w.peers.verdicts, ['suspect a'])
  assert.ok(w.peers.now < 1500, `${w.peers.now} ms`)
})

test('with upstream to turn to, nobody needs to bear a drip; without it, it is better than nothing', async () => {
  using impatient = world(60_000, [gives(...every50ms(1000))])
  const fetching = (await impatient.offer()).fetch(impatient.whole, new Writer(impatient.whole), never)
  await throws(impatient.peers.during(fetching), 'timeout')
  assert.equal(impatient.peers.verdicts, ['suspect a'])
  impatient[Symbol.dispose]()
  using patient = world(60_000, [gives(...every50ms(1000))])
  await patient.fetch(await patient.offer('patient'))
  assert.equal(patient.peers.verdicts, [])
})

test('without upstream, too, one that gives hardly anything is given up, before it takes hours', async () => {
  using w = world(1_000_000, [gives(...every50ms(100))])
  const fetching = (await w.offer('patient')).fetch(w.whole, new Writer(w.whole), never)
  await throws(w.peers.during(fetching), 'timeout')
  assert.equal(w.peers.verdicts, ['suspect a'])
  assert.ok(w.peers.now > 14_000 && w.peers.now < 17_000, `${w.peers.now} ms`)
})

test('a slow one loses the rest to one that was measured far faster, and is not blamed', async () => {
  const size = 1_000_000
  using w = world(size, [gives(...every50ms(10_000))], [gives()])
  const [a, b] = w.providers
  const offer = await w.offer()
  measured(b!, 4_000_000)
  assert.equal(names((await w.fetch(offer)).givers), ['a', 'b'])
  assert.equal(w.peers.verdicts, [])
  assert.not(a!.rests)
  assert.ok(w.peers.now < 1500, `${w.peers.now} ms`)
})

test('a slow one loses the rest to one that nobody has measured, as a LAN is faster', async () => {
  using w = world(1_000_000, [gives(...every50ms(10_000))], [gives()])
  assert.equal(names((await w.fetch(await w.offer())).givers), ['a', 'b'])
  assert.equal(w.peers.verdicts, [])
})

test('one that turns out to be slower still loses the rest to who was left for it', async () => {
  using w = world(4_000_000, [gives(...every50ms(100_000)), gives()], [gives(...every50ms(4000))])
  const offer = await w.offer()
  measured(w.providers[1]!, 40_000_000)
  assert.equal(names((await w.fetch(offer)).givers), ['a', 'b', 'a'])
  assert.equal(w.peers.verdicts, [])
})

test('who was left is asked again when the others fail', async () => {
  using w = world(1_000_000, [gives(...every50ms(10_000)), gives()], [gives(10, cut)])
  assert.equal(names((await w.fetch(await w.offer())).givers), ['a', 'b', 'a'])
  assert.equal(w.peers.verdicts, ['suspect b'])
})

test('nobody is left for one that is little faster, busy, resting, or has much to give already', async () => {
  const rate = 200_000
  const cases: Record<string, (b: Provider) => void> = {
    'little faster': b => measured(b, 3 * rate),
    busy: b => {
      measured(b, 100 * rate)
      for (let ms = 0; ms < 60_000; ms += 400) setTimeout(() => b.wasBusy(), ms)
    },
    resting: b => {
      measured(b, 100 * rate)
      for (let count = 0; count < 8; count++) b.failed()
    },
    'not willing': b => {
      measured(b, 100 * rate)
      b.willing = false
    },
    'giving to many': b => {
      measured(b, 100 * rate)
      b.active = 40
    },
  }
  for (const [what, prepare] of Object.entries(cases)) {
    using w = world(500_000, [gives(...every50ms(10_000))], [gives()])
    const offer = await w.offer()
    prepare(w.providers[1]!)
    assert.equal(names((await w.fetch(offer)).givers), ['a'], what)
  }
})

test('there is no wandering from one to the next without end', async () => {
  const slow = [gives(...every50ms(10_000))]
  using w = world(1_000_000, slow, slow, slow, slow)
  const offer = await w.offer()
  for (const provider of w.providers) measured(provider, 4_000_000)
  assert.is(new Set((await w.fetch(offer)).givers).size, 3)
  assert.equal(w.peers.verdicts, [])
})

test('time in which the writer has it wait is not the peer’s', async () => {
  const size = 1_000_000
  using w = world(size, [gives(...Array.from({ length: 10 }, () => 100_000))], [gives()])
  const [a, b] = w.providers
  const offer = await w.offer()
  measured(b!, 100_000_000)
  const writer = new Writer(w.whole, () => new Promise(resolve => setTimeout(resolve, 2000)))
  await w.peers.during(offer.fetch(w.whole, writer, never))
  assert.equal(names(writer.givers), ['a'])
  assert.ok(writer.bytes.equals(w.peers.bytes))
  assert.equal(w.peers.verdicts, [])
  assert.ok(w.peers.now >= 20_000)
  assert.ok(a!.rate === undefined || a!.rate > 10_000_000, `taken to give ${a!.rate} bytes/s`)
})

test('one that breaks the protocol amid a body is banned, and another goes on', async () => {
  using w = world(100, [gives(40, new PeerViolation('the answer is longer than it says'))], [gives()])
  assert.equal(names((await w.fetch(await w.offer())).givers), ['a', 'b'])
  assert.equal(w.peers.verdicts, ['ban a', 'suspect a'])
})

test('what is beyond the range is not taken, and the peer has done its part', async () => {
  using w = world(100_000, [gives(40_000, 40_000, 20_000)])
  const offer = await w.offer()
  const [a] = w.providers
  a!.failed()
  await w.fetch(offer, { start: 0, end: 50_000 })
  assert.equal(w.peers.aborted, ['a'])
  assert.equal(w.peers.verdicts, [])
  assert.is(a!.receivedBytes, 50_000)
})

for (const other of [99, 101])
  test(`two peers that differ about the size (100 and ${other}) are both named, and neither is believed`, async () => {
    using w = world(100, [gives(40, cut)], [givesOther(other)], [gives()])
    const writer = new Writer(w.whole)
    const offer = await w.offer()
    await throws(w.peers.during(offer.fetch(w.whole, writer, never)), 'broken')
    assert.equal(names(writer.givers), ['a', 'b'])
    assert.equal(writer.sizes, [100, other])
    // Which of them is wrong shows once the blob is verified.
    assert.equal(w.peers.verdicts, ['suspect a'])
    assert.equal(w.peers.aborted, ['b'])
    assert.ok(writer.bytes.equals(w.peers.bytes.subarray(0, 40)))
    // Asked for the rest, the offer turns to somebody else.
    await w.fetch(offer, { start: 40, end: 100 })
    assert.equal(w.peers.asked, ['a', 'b', 'c'])
  })

test('one that has lost it meanwhile is passed over; if none has it, that is thrown', async () => {
  const gone = refuses({ status: 404 })
  using w = world(100, [gives(), gone], [gone], [gives()])
  const offer = await w.offer()
  await w.fetch(offer)
  assert.equal(names((await w.fetch(offer, { start: 50, end: 60 })).givers), ['c'])
  assert.equal(w.peers.verdicts, ['lacks a', 'lacks b'])
  w[Symbol.dispose]()
  using alone = world(100, [gives(), gone])
  const last = await alone.offer()
  await alone.fetch(last)
  await throws(alone.peers.during(last.fetch({ start: 1, end: 2 }, new Writer({ start: 1, end: 2 }), never)), 'broken')
})

test('an abort ends it with its reason, and nobody is blamed', async () => {
  using w = world(100, [gives(40, { wait: Number.POSITIVE_INFINITY })], [gives()])
  const abort = new AbortController()
  const reason = new Error('nobody wants it any longer')
  const fetching = (await w.offer()).fetch(w.whole, new Writer(w.whole), abort.signal).catch((error: unknown) => error)
  await w.peers.pass(100)
  abort.abort(reason)
  assert.is(await w.peers.during(fetching), reason)
  await w.peers.pass(20_000)
  assert.equal(w.peers.verdicts, [])
  assert.equal(w.peers.asked, ['a'])
  assert.is(w.providers[0]!.active, 0)
})

test('what the writer throws is no peer’s fault, also at the last byte', async () => {
  const full = new Error('no space left on device')
  for (const end of [50, 100]) {
    using w = world(100, [gives(10, 45, 45)], [gives()])
    const range = { start: 0, end }
    const writer: Writer = new Writer(range, () =>
      writer.room > 0 ? undefined : new Promise((_, reject) => setTimeout(() => reject(full), 100)),
    )
    const thrown = (await w.offer()).fetch(range, writer, never).catch((error: unknown) => error)
    assert.is(await w.peers.during(thrown), full, `at byte ${end}`)
    assert.equal(w.peers.verdicts, [])
    assert.equal(w.peers.asked, ['a'])
  }
})

test('it has ended once the last write has, also where the body goes on', async () => {
  for (const end of [50, 100]) {
    using w = world(100, [gives(10, 45, 45)])
    const range = { start: 0, end }
    const writer: Writer = new Writer(range, () =>
      writer.room > 0 ? undefined : new Promise(resolve => setTimeout(resolve, 100)),
    )
    await w.peers.during((await w.offer()).fetch(range, writer, never))
    assert.ok(w.peers.now >= 100, `it has ended after ${w.peers.now} ms`)
  }
})

test('an offer that is not used is closed, and lets go of its peer', async () => {
  using w = world(100, [gives()])
  const offer = await w.offer()
  offer.close()
  offer.close()
  assert.equal(w.peers.aborted, ['a'])
  assert.equal(w.peers.verdicts, [])
})

test.run()
