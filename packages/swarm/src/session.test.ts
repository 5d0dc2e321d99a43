import { mock } from 'node:test'
import type { Connection } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { LengthPrefixedDecoder, streamPair } from '@libp2p/utils'
import { digestOf } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makePeer } from '../../../test/transfer-peer.ts'
import {
  decodeMessage,
  encodeMessage,
  type Hello,
  longestFrame,
  type Message,
  MessageError,
  type MessageErrorCode,
} from './message.ts'
import { lengthPrefix, Session } from './session.ts'

const hello: Hello = {
  t: 'hello',
  versions: [1],
  features: [],
  swarm_port: 3476,
  transfer_port: 3477,
  name: 'desk',
  uploads: true,
}
const holdings: Message = {
  t: 'holdings',
  seq: 1,
  reset: true,
  more: false,
  add: new Uint8Array(),
  remove: new Uint8Array(),
}
const remotePeer = peerIdFromPrivateKey((await makePeer()).privateKey)

/** Ids that are lower and higher than the other side's. */
const lower = '0'
const higher = 'z'

function frame(bytes: Uint8Array): Buffer {
  return Buffer.concat([lengthPrefix(bytes.length), bytes])
}

/** A session, the other end of its stream, and timers that go on when a test says so. */
async function sessionWith({ self = lower, capacity = 1000, onReceived = (_message: Message) => {} } = {}) {
  const [stream, other] = await streamPair({ delay: 0, capacity })
  mock.timers.enable({ apis: ['setTimeout'] })
  const clock = { now: 0 }
  const heard: Message[] = []
  const decoder = new LengthPrefixedDecoder()
  other.addEventListener('message', ({ data }) => {
    for (const bytes of decoder.decode(data)) {
      const message = decodeMessage(bytes.subarray())
      if (message) heard.push(message)
    }
  })
  let connected = true
  const connection: Partial<Connection> = {
    remotePeer,
    abort(error) {
      connected = false
      stream.abort(error)
    },
    async close() {
      connected = false
      await stream.close()
    },
  }
  const opened: Session[] = []
  const received: Message[] = []
  const ends: (Error | undefined)[] = []
  const session = new Session({
    self,
    connection: connection as Connection,
    stream,
    hello,
    now: () => clock.now,
    events: {
      opened: session => void opened.push(session),
      received(_session, message) {
        received.push(message)
        onReceived(message)
      },
      closed: (_session, error) => void ends.push(error),
    },
  })
  await settle()
  const world = {
    session,
    other,
    heard,
    opened,
    received,
    ends,
    get connected() {
      return connected
    },
    /** The pings that came, by their numbers. */
    get pings() {
      return heard.flatMap(message => (message.t === 'ping' ? [message.n] : []))
    },
    /** Has the other side send bytes as they are. */
    async send(...pieces: readonly Uint8Array[]) {
      for (const piece of pieces) if (other.status === 'open') other.send(piece)
      await settle()
    },
    say: (...messages: readonly Message[]) => world.send(...messages.map(message => frame(encodeMessage(message)))),
    /** Says hello, and answers the ping that follows. */
    async open() {
      await world.say(hello)
      await world.say({ t: 'pong', n: 1 })
    },
    async pass(ms: number) {
      for (const end = clock.now + ms; clock.now < end; ) {
        const step = Math.min(10, end - clock.now)
        clock.now += step
        mock.timers.tick(step)
      }
      await settle()
    },
    [Symbol.dispose]() {
      mock.timers.reset()
      session.close()
    },
  }
  return world
}

/** Lets all go on that waits for nothing but a turn. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise(resolve => setImmediate(resolve))
}

/** Looks that a session has ended, once and with its connection, for a fault of the other side's. */
function endedBy(world: Awaited<ReturnType<typeof sessionWith>>, code?: MessageErrorCode): void {
  assert.is(world.ends.length, 1)
  assert.ok(world.session.closed)
  assert.not(world.connected)
  const [error] = world.ends
  assert.instance(error, Error)
  if (code !== undefined) assert.is(error instanceof MessageError && error.code, code, error?.message)
}

test('each says hello first, and is known once the other has', async () => {
  using w = await sessionWith()
  assert.equal(w.heard, [hello])
  assert.equal(w.opened, [])
  assert.is(w.session.hello, undefined)
  await w.say({ ...hello, name: 'lamp' })
  assert.equal(w.opened, [w.session])
  assert.is(w.session.hello?.name, 'lamp')
  assert.is(w.session.peerId, remotePeer.toString())
})

test('what is said after hello is told, in order, however it is cut', async () => {
  const messages: Message[] = [holdings, { t: 'resync' }, { t: 'uploads', willing: false }, { t: 'peers', peers: [] }]
  const bytes = Buffer.concat([hello, ...messages].map(message => frame(encodeMessage(message))))
  for (const size of [1, 7, bytes.length]) {
    using w = await sessionWith()
    const pieces: Buffer[] = []
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size))
    await w.send(...pieces)
    assert.equal(w.received, messages)
    assert.equal(w.ends, [])
  }
})

test('whoever does not begin with hello is no peer', async () => {
  for (const first of [{ t: 'ping', n: 1 }, { t: 'resync' }, holdings] as const) {
    using w = await sessionWith()
    await w.say(first, hello)
    endedBy(w, 'NO_HELLO')
    assert.equal([w.opened, w.received], [[], []])
  }
})

test('hello is said once', async () => {
  using w = await sessionWith()
  await w.say(hello, hello)
  endedBy(w, 'HELLO_AGAIN')
  assert.is(w.opened.length, 1)
})

test('who says nothing for 5 s is not waited for', async () => {
  using w = await sessionWith()
  await w.pass(4990)
  assert.equal(w.ends, [])
  await w.pass(10)
  endedBy(w, 'SILENT')
})

const nonsense: Record<string, { bytes: Uint8Array; code?: MessageErrorCode }> = {
  'a frame longer than any': { bytes: Buffer.concat([lengthPrefix(longestFrame + 1), Buffer.alloc(1000)]) },
  'a frame that is no CBOR': { bytes: frame(Buffer.from('nonsense')), code: 'MALFORMED' },
  'a field that is none': { bytes: frame(encodeMessage({ t: 'ping', n: -1 })), code: 'INVALID' },
}
for (const [what, { bytes, code }] of Object.entries(nonsense))
  test(`${what} ends it, and nothing after that is heard`, async () => {
    using w = await sessionWith()
    await w.open()
    await w.send(Buffer.concat([bytes, frame(encodeMessage({ t: 'resync' }))]))
    endedBy(w, code)
    assert.equal(w.received, [])
  })

test('after a length without end nothing more is heard, so that it ends at the next ping', async () => {
  using w = await sessionWith()
  await w.open()
  await w.send(Buffer.alloc(16, 0xff), frame(encodeMessage({ t: 'resync' })))
  assert.equal(w.received, [])
  await w.pass(23_100)
  endedBy(w, 'SILENT')
})

test('a frame as long as may be is heard', async () => {
  using w = await sessionWith()
  await w.open()
  const prefixes = (count: number) => new Uint8Array(8 * count)
  await w.say({ ...holdings, add: prefixes(8000) })
  assert.is(w.received.length, 1)
})

test('what a later version may know is passed over', async () => {
  using w = await sessionWith()
  await w.open()
  await w.send(frame(Buffer.from([0xa1, 0x61, 0x74, 0x64, ...Buffer.from('news')])))
  await w.say({ t: 'resync' })
  assert.equal(w.received, [{ t: 'resync' }])
  assert.equal(w.ends, [])
})

test('a fault that is found by who is told ends it, too', async () => {
  const fault = new MessageError('FLOOD', 'too many prefixes')
  using w = await sessionWith({
    onReceived: () => {
      throw fault
    },
  })
  await w.open()
  await w.say(holdings, holdings)
  endedBy(w, 'FLOOD')
  assert.is(w.received.length, 1)
})

test('a ping is answered with its number', async () => {
  using w = await sessionWith()
  await w.open()
  await w.say({ t: 'ping', n: 7 }, { t: 'ping', n: 3 })
  assert.equal(
    w.heard.filter(({ t }) => t === 'pong'),
    [
      { t: 'pong', n: 7 },
      { t: 'pong', n: 3 },
    ],
  )
})

test('the round trip is measured at the beginning, and no answer but to the ping that was sent counts', async () => {
  using w = await sessionWith()
  await w.say(hello)
  assert.equal(w.pings, [1])
  await w.pass(30)
  await w.say({ t: 'pong', n: 2 })
  assert.is(w.session.rtt, undefined)
  await w.pass(10)
  await w.say({ t: 'pong', n: 1 })
  assert.is(w.session.rtt, 40)
  await w.pass(10)
  await w.say({ t: 'pong', n: 1 })
  assert.is(w.session.rtt, 40)
})

for (const [self, quiet] of [
  [lower, 15_000],
  [higher, 20_250],
] as const)
  test(`the ${self === lower ? 'lower' : 'higher'} id asks after ${quiet} ms in which it has heard nothing, and ends it 8 s later`, async () => {
    using w = await sessionWith({ self })
    await w.open()
    await w.pass(quiet - 20)
    assert.equal(w.pings, [1])
    await w.pass(20)
    assert.equal(w.pings, [1, 2])
    await w.pass(7990)
    // That it says something else is no answer.
    await w.say({ t: 'resync' })
    assert.equal(w.ends, [])
    await w.pass(10)
    endedBy(w, 'SILENT')
  })

test('who is heard of is not asked, and who answers is asked again', async () => {
  using w = await sessionWith()
  await w.open()
  await w.pass(10_000)
  await w.say({ t: 'ping', n: 1 })
  assert.is(w.session.heardAt, 10_000)
  await w.pass(14_900)
  assert.equal(w.pings, [1])
  await w.pass(200)
  assert.equal(w.pings, [1, 2])
  await w.say({ t: 'pong', n: 2 })
  await w.pass(15_100)
  assert.equal(w.pings, [1, 2, 3])
  assert.equal(w.ends, [])
})

test('who is suspected is asked at once, and given so much time', async () => {
  using w = await sessionWith()
  await w.open()
  w.session.ping(2000)
  await w.pass(1990)
  assert.equal(w.pings, [1, 2])
  assert.equal(w.ends, [])
  await w.pass(10)
  endedBy(w, 'SILENT')
})

test('to be suspected again and again gives nobody more time', async () => {
  using w = await sessionWith()
  await w.open()
  for (let ms = 0; ms < 2000; ms += 500) {
    w.session.ping(2000)
    await w.pass(500)
  }
  endedBy(w, 'SILENT')
})

test('a suspicion cuts the time of a ping that is under way', async () => {
  using w = await sessionWith()
  await w.open()
  await w.pass(15_000)
  assert.equal(w.pings, [1, 2])
  w.session.ping(2000)
  await w.pass(2000)
  endedBy(w, 'SILENT')
})

test('nobody is asked before hello', async () => {
  using w = await sessionWith()
  w.session.ping(100)
  await w.pass(1000)
  assert.equal(w.pings, [])
  assert.equal(w.ends, [])
})

for (const [what, messages] of Object.entries<Message[]>({
  pings: [{ t: 'ping', n: 1 }],
  'messages of all kinds': [{ t: 'resync' }, { t: 'uploads', willing: true }, { t: 'pong', n: 77 }],
}))
  test(`more than 300 ${what} between two pongs are a flood`, async () => {
    using w = await sessionWith()
    await w.open()
    const say = async (count: number) => {
      const each = Array.from({ length: count }, (_, index) => messages[index % messages.length]!)
      await w.send(Buffer.concat(each.map(message => frame(encodeMessage(message)))))
    }
    await say(300)
    assert.equal(w.ends, [])
    await w.pass(15_100)
    await say(1)
    await w.say({ t: 'pong', n: 2 })
    await say(300)
    assert.equal(w.ends, [])
    await say(1)
    endedBy(w, 'FLOOD')
  })

test('what no version knows counts towards a flood, holdings do not', async () => {
  using w = await sessionWith()
  await w.open()
  await w.send(Buffer.concat(Array.from({ length: 400 }, () => frame(encodeMessage(holdings)))))
  assert.is(w.received.length, 400)
  const news = frame(Buffer.from([0xa1, 0x61, 0x74, 0x64, ...Buffer.from('news')]))
  await w.send(Buffer.concat(Array.from({ length: 301 }, () => news)))
  endedBy(w, 'FLOOD')
})

test('of downloads that are shared, more may be said', async () => {
  using w = await sessionWith()
  await w.open()
  const leave: Message = { t: 'leave', digest: digestOf(new Uint8Array()) }
  const say = (message: Message, count: number) =>
    w.send(Buffer.concat(Array.from({ length: count }, () => frame(encodeMessage(message)))))
  for (let count = 0; count < 20; count++) await say(leave, 1000)
  await say({ t: 'resync' }, 300)
  assert.equal(w.ends, [])
  assert.is(w.received.length, 20_300)
  await w.pass(15_100)
  await say(leave, 1)
  assert.equal(w.ends, [])
  for (let count = 0; count < 20; count++) await say(leave, 1000)
  endedBy(w, 'FLOOD')
})

test('one that takes nothing is waited for, and not for ever', async () => {
  using w = await sessionWith({ capacity: 1 })
  await w.open()
  const add = new Uint8Array(8 * 8000)
  const taken = w.session.send({ ...holdings, add })
  assert.ok(taken, 'what was sent has to be waited for')
  await taken
  assert.equal(w.ends, [])
  let last: Promise<void> | undefined
  for (let count = 0; count < 200; count++) last = w.session.send({ ...holdings, add }) ?? last
  await settle()
  endedBy(w, 'SLOW')
  // Who waits is not left waiting.
  await last
})

test('it is ended once, with its connection, and then says and hears nothing', async () => {
  using w = await sessionWith()
  await w.open()
  const before = w.heard.length
  w.session.close()
  w.session.close(new Error('again'))
  assert.equal(w.ends, [undefined])
  await settle()
  assert.not(w.connected)
  assert.is(w.session.send({ t: 'resync' }), undefined)
  w.session.ping()
  await w.say({ t: 'resync' })
  await w.pass(60_000)
  assert.is(w.heard.length, before)
  assert.equal(w.received, [])
  assert.is(w.ends.length, 1)
})

test('if the other side ends its stream, the connection ends as well', async () => {
  using w = await sessionWith()
  await w.open()
  await w.other.close()
  await settle()
  assert.equal(w.ends, [undefined])
  assert.not(w.connected)
})

test('if the other side resets its stream, the connection ends as well', async () => {
  using w = await sessionWith()
  await w.open()
  w.other.abort(new Error('no longer'))
  await settle()
  endedBy(w)
})

test('a length is a varint', () => {
  const cases = { 0: '00', 127: '7f', 128: '8001', 300: 'ac02', 262144: '808010' }
  for (const [value, hex] of Object.entries(cases))
    assert.is(Buffer.from(lengthPrefix(Number(value))).toString('hex'), hex, value)
})

test.run()
