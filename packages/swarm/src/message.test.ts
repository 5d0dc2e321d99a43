import { digestOf } from '@shoal/oci/digest'
import { encode } from 'cborg'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  decodeCallBack,
  decodeCallBackRequest,
  decodeMessage,
  decodePopularity,
  decodeTagAnswer,
  decodeTagRequest,
  encodeCallBack,
  encodeCallBackRequest,
  encodeMessage,
  encodeTagAnswer,
  encodeTagRequest,
  longestFrame,
  type Message,
  MessageError,
  type MessageErrorCode,
  mostPrefixes,
} from './message.ts'

const uint = fc.maxSafeNat()
const port = fc.integer({ min: 1, max: 65_535 })
const text = (maxLength: number) =>
  fc
    .string({ unit: 'grapheme', maxLength: maxLength })
    .filter(text => text.length <= maxLength && !/\p{Cc}/u.test(text))
const prefixes = fc.nat(20).chain(count => fc.uint8Array({ minLength: 8 * count, maxLength: 8 * count }))

const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    t: fc.constant('hello' as const),
    versions: fc.array(uint, { minLength: 1, maxLength: 16 }),
    features: fc.array(text(64), { maxLength: 64 }),
    swarm_port: port,
    transfer_port: port,
    name: text(64),
    uploads: fc.boolean(),
  }),
  fc.record({
    t: fc.constant('holdings' as const),
    seq: uint,
    reset: fc.boolean(),
    more: fc.boolean(),
    add: prefixes,
    remove: prefixes,
  }),
  fc.record({ t: fc.constant('resync' as const) }),
  fc.record({
    t: fc.constant('peers' as const),
    peers: fc.array(
      fc.record({
        id: fc.stringMatching(/^12D3KooW[0-9A-Za-z]{44}$/),
        addresses: fc.array(text(128), { maxLength: 8 }),
      }),
      { maxLength: 128 },
    ),
  }),
  fc.record({ t: fc.constant('uploads' as const), willing: fc.boolean() }),
  fc.record({
    t: fc.constant('limit' as const),
    key: fc.uint8Array({ minLength: 8, maxLength: 8 }),
    limit: uint,
    remaining: uint,
    window: uint,
    age: uint,
  }),
  fc.record({
    t: fc.constant('popular' as const),
    at: uint,
    rows: fc.array(fc.tuple(fc.stringMatching(/^docker\.io\/[a-z0-9]{1,40}\/[a-z0-9]{1,40}:[a-z0-9]{1,40}$/), uint), {
      maxLength: 256,
    }),
  }),
  fc.record({ t: fc.constantFrom('ping' as const, 'pong' as const), n: uint }),
  fc.record({
    t: fc.constant('errand' as const),
    name: fc.string({ minLength: 1, maxLength: 512 }),
    digest: fc.constant(digestOf(Buffer.from('a layer'))),
    kind: fc.constantFrom('manifest' as const, 'blob' as const),
    size: uint,
  }),
)

const decoders: Record<string, (frame: Uint8Array) => unknown> = {
  message: decodeMessage,
  'tag request': decodeTagRequest,
  'tag answer': decodeTagAnswer,
  'call-back request': decodeCallBackRequest,
  'call-back answer': decodeCallBack,
  popularity: decodePopularity,
}

const limit = { t: 'limit', key: Buffer.alloc(8), limit: 100, remaining: 9, window: 21_600, age: 0 }

const popular = { t: 'popular', at: 1, rows: [['docker.io/library/nginx:latest', 640]] }

const errand = {
  t: 'errand',
  name: 'docker.io/library/nginx',
  digest: digestOf(Buffer.alloc(0)),
  kind: 'blob',
  size: 0,
}

const hello = {
  t: 'hello',
  versions: [1],
  features: ['ranges'],
  swarm_port: 3476,
  transfer_port: 3477,
  name: 'desk-7',
  uploads: true,
}
const holdings = { t: 'holdings', seq: 1, reset: true, more: false, add: Buffer.alloc(16), remove: Buffer.alloc(0) }

/** With byte strings of one class, so that they can be compared. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Uint8Array.from(value)
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]))
}

function refuses(
  frame: Uint8Array,
  code: MessageErrorCode,
  what = '',
  read: (frame: Uint8Array) => unknown = decodeMessage,
): void {
  assert.throws(
    () => read(frame),
    (error: unknown) => error instanceof MessageError && error.code === code,
    what,
  )
}

/** Nothing but a value or a MessageError. */
function survives(frame: Uint8Array): void {
  for (const [what, decoder] of Object.entries(decoders))
    try {
      decoder(frame)
    } catch (error) {
      if (!(error instanceof MessageError))
        throw new Error(`${what} of ${Buffer.from(frame).toString('hex')}`, { cause: error })
      assert.ok(error.message.length < 300)
    }
}

test('a message is read as it was written', () => {
  fc.assert(fc.property(message, message => assert.equal(plain(decodeMessage(encodeMessage(message))), plain(message))))
})

test('questions and answers are read as they were written', () => {
  const request = { name: 'docker.io/library/nginx', tag: 'latest' }
  for (const question of [request, { ...request, check: true }])
    assert.equal(decodeTagRequest(encodeTagRequest(question)), question)
  const answer = { record: Buffer.from('record'), signature: Buffer.alloc(64, 1) }
  assert.equal(plain(decodeTagAnswer(encodeTagAnswer(answer))), plain(answer))
  assert.equal(decodeTagAnswer(encodeTagAnswer({})), {})
  const ports = { swarm_port: 1, transfer_port: 65_535 }
  assert.equal(decodeCallBackRequest(encodeCallBackRequest(ports)), ports)
  const found = { swarm: 'ok', transfer: 'ECONNREFUSED' }
  assert.equal(decodeCallBack(encodeCallBack(found)), found)
})

test('prefixes are views of the frame, wherever it lies', () => {
  const frame = Buffer.concat([Buffer.alloc(5), encode(holdings)]).subarray(5)
  for (const bytes of [frame, new Uint8Array(frame.buffer, frame.byteOffset, frame.length)]) {
    const message = decodeMessage(bytes)
    assert.ok(message?.t === 'holdings' && message.add.length === 16)
    assert.is(message.add.buffer, frame.buffer)
  }
})

test('fields and messages of a later version are passed over', () => {
  assert.equal(decodeMessage(encode({ ...hello, colour: 'red', more: [{ a: 1 }] })), hello)
  assert.is(decodeMessage(encode({ t: 'loan', digest: 'sha256:…' })), undefined)
  assert.is(decodeMessage(encode({ t: 'constructor' })), undefined)
  assert.equal(decodeTagRequest(encode({ name: 'a', tag: 'b', digest: 'c' })), { name: 'a', tag: 'b' })
})

test('what is not the CBOR of a message is refused', () => {
  const hex: Record<string, string> = {
    nothing: '',
    'a number': '01',
    'a text': '6161',
    bytes: '4101',
    null: 'f6',
    'a list': '80',
    'a map that is cut off': 'a161',
    'bytes after the map': 'a161746672657379 6e6300',
    'a key twice': 'a2617466726573796e63617466726573796e63',
    'a key that is no text': 'a10102',
    'a map of indefinite length': 'bf617466726573796e63ff',
    'a list of indefinite length': 'a261746672657379 6e6361789fff',
    'bytes of indefinite length': 'a2617466726573796e6361785f4101ff',
    'a tag': 'a2617466726573796e636178c001',
    'a big number': 'a2617466726573796e6361781bffffffffffffffff',
    'a number longer than it need be': 'a2617466726573796e6361781801',
    undefined: 'a2617466726573796e636178f7',
    'a text of four gigabytes': 'a161747affffffff',
    'a map of four billion': 'baffffffff',
  }
  for (const [what, text] of Object.entries(hex))
    refuses(Buffer.from(text.replaceAll(' ', ''), 'hex'), 'MALFORMED', what)
})

test('what is too long, too deep, or has too many parts is refused at once', () => {
  refuses(Buffer.alloc(longestFrame + 1), 'TOO_LONG')
  const wrap = (value: Buffer) => Buffer.concat([Buffer.from('a2617466726573796e636178', 'hex'), value])
  refuses(wrap(Buffer.alloc(longestFrame - 20, 0x81)), 'MALFORMED')
  refuses(wrap(Buffer.concat([Buffer.alloc(9, 0x81), Buffer.from([0])])), 'MALFORMED')
  refuses(wrap(Buffer.concat([Buffer.from('9a00030000', 'hex'), Buffer.alloc(0x30000)])), 'MALFORMED')
  assert.ok(decodeMessage(wrap(Buffer.concat([Buffer.alloc(6, 0x81), Buffer.from([0])]))))
})

test('fields that are missing, or not what they must be, are refused', () => {
  const many = <T>(count: number, each: T) => Array.from({ length: count }, () => each)
  const wrong: Record<string, unknown> = {
    'no t': {},
    't that is no text': { t: 1 },
    'no versions': { ...hello, versions: [] },
    'versions without end': { ...hello, versions: many(17, 1) },
    'a version that is no integer': { ...hello, versions: [1.5] },
    'features without end': { ...hello, features: many(65, 'x') },
    'a long feature': { ...hello, features: ['x'.repeat(65)] },
    'a long name': { ...hello, name: 'x'.repeat(65) },
    'a name with an escape': { ...hello, name: '\u001b[31m' },
    'a name of two lines': { ...hello, name: 'a\nb' },
    'port 0': { ...hello, transfer_port: 0 },
    'a port beyond': { ...hello, swarm_port: 65_536 },
    'a port as text': { ...hello, swarm_port: '1' },
    'half a prefix': { ...holdings, add: Buffer.alloc(12) },
    'too many prefixes': { ...holdings, add: Buffer.alloc(8 * mostPrefixes), remove: Buffer.alloc(8) },
    'prefixes as a list': { ...holdings, add: [1, 2, 3] },
    'a negative number': { ...holdings, seq: -1 },
    'peers without end': { t: 'peers', peers: many(129, { id: 'a', addresses: [] }) },
    'addresses without end': { t: 'peers', peers: [{ id: 'a', addresses: many(9, '/ip4/10.0.0.1/tcp/1') }] },
    'a long address': { t: 'peers', peers: [{ id: 'a', addresses: ['x'.repeat(129)] }] },
    'an id that is none': { t: 'peers', peers: [{ id: 'a b', addresses: [] }] },
    'willing to say 1': { t: 'uploads', willing: 1 },
    'a limit without a key': { t: 'limit', limit: 100, remaining: 9, window: 21_600, age: 0 },
    'a short key': { ...limit, key: Buffer.alloc(7) },
    'a key as text': { ...limit, key: '12345678' },
    'less than nothing left': { ...limit, remaining: -1 },
    'a limit from the future': { ...limit, age: -1 },
    'what is popular at no time': { ...popular, at: null },
    'rows without end': { ...popular, rows: many(257, popular.rows[0]) },
    'a row without a score': { ...popular, rows: [['docker.io/library/nginx:latest']] },
    'a row of more than a score': { ...popular, rows: [['docker.io/library/nginx:latest', 1, 2]] },
    'a score below 0': { ...popular, rows: [['docker.io/library/nginx:latest', -1]] },
    'half a score': { ...popular, rows: [['docker.io/library/nginx:latest', 0.5]] },
    'an image that leaves something out': { ...popular, rows: [['nginx', 640]] },
    'an image that is none': { ...popular, rows: [['docker.io/library/NGINX:latest', 640]] },
    'an image with a long name': { ...popular, rows: [[`docker.io/a/${'x'.repeat(250)}:${'x'.repeat(251)}`, 640]] },
    'a ping without a number': { t: 'ping' },
    'an errand of a long name': { ...errand, name: 'a'.repeat(513) },
    'an errand of nothing': { ...errand, name: '' },
    'an errand for what is no digest': { ...errand, digest: 'sha256:abc' },
    'an errand for a tag': { ...errand, kind: 'tag' },
    'an errand without a size': { ...errand, size: null },
  }
  for (const [what, value] of Object.entries(wrong)) refuses(encode(value), 'INVALID', what)
  for (const request of [
    { name: '', tag: 'a' },
    { name: 'a', tag: '' },
    { name: 'a'.repeat(513), tag: 'a' },
    { name: 'a' },
    { name: 'a', tag: 'b', check: 1 },
  ])
    refuses(encode(request), 'INVALID', '', decodeTagRequest)
  for (const answer of [{ record: 'text' }, { record: Buffer.alloc(4097) }, { signature: Buffer.alloc(63) }])
    refuses(encode(answer), 'INVALID', '', decodeTagAnswer)
  refuses(encode({ swarm: 'ok', transfer: '\u0007' }), 'INVALID', '', decodeCallBack)
})

test('as much as may be in a message is read', () => {
  const most = { ...holdings, add: Buffer.alloc(8 * mostPrefixes) }
  assert.ok(decodeMessage(encode(most)))
  const peer = { id: 'x'.repeat(128), addresses: Array.from({ length: 8 }, () => 'x'.repeat(128)) }
  assert.ok(decodeMessage(encode({ t: 'peers', peers: Array.from({ length: 128 }, () => peer) })))
  const host = `${'x'.repeat(121)}.example`
  const image = [`${host}/${'x'.repeat(253)}:${'x'.repeat(128)}`, Number.MAX_SAFE_INTEGER]
  assert.is(String(image[0]).length, 512)
  assert.ok(decodeMessage(encode({ t: 'popular', at: 1, rows: Array.from({ length: 256 }, () => image) })))
})

test('a name that every object has a property for is a field like any other', () => {
  const frame = Buffer.concat([Buffer.from('a2617466726573796e63695f5f70726f746f5f5fa161786178', 'hex')])
  assert.equal(decodeMessage(frame), { t: 'resync' })
  assert.is(Object.hasOwn(Object.prototype, 'x'), false)
})

test('arbitrary bytes give a message or a MessageError', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300, size: 'max' }), survives), { numRuns: 1000 })
})

test('arbitrary CBOR gives a message or a MessageError', () => {
  const value = fc.letrec(tie => ({
    any: fc.oneof(
      { maxDepth: 4 },
      fc.maxSafeInteger(),
      fc.boolean(),
      fc.constant(null),
      fc.string({ maxLength: 8 }),
      fc.uint8Array({ maxLength: 16 }),
      fc.array(tie('any'), { maxLength: 4 }),
      fc.dictionary(fc.string({ maxLength: 4 }), tie('any'), { maxKeys: 4 }),
    ),
  })).any
  const t = fc.constantFrom('hello', 'holdings', 'resync', 'peers', 'uploads', 'limit', 'ping', 'pong')
  const fields = fc.constantFrom(
    ...Object.keys({ ...hello, ...holdings, ...limit }),
    'peers',
    'willing',
    'n',
    'record',
    'name',
  )
  const map = fc.tuple(fc.dictionary(fields, value), t).map(([fields, t]) => ({ ...fields, t }))
  fc.assert(
    fc.property(map, map => survives(encode(map))),
    { numRuns: 500 },
  )
})

test('a message that was tampered with gives a message or a MessageError', () => {
  const change = fc.record({
    at: fc.nat(),
    byte: fc.nat(255),
    how: fc.constantFrom('replace' as const, 'insert' as const, 'drop' as const, 'cut' as const),
  })
  fc.assert(
    fc.property(message, fc.array(change, { minLength: 1, maxLength: 4 }), (message, changes) => {
      const bytes = [...encodeMessage(message)]
      for (const { at, byte, how } of changes) {
        const place = at % (bytes.length + 1)
        if (how === 'cut') bytes.length = place
        else bytes.splice(place, how === 'insert' ? 0 : 1, ...(how === 'drop' ? [] : [byte]))
      }
      survives(Uint8Array.from(bytes))
    }),
    { numRuns: 1000 },
  )
})

test.run()
