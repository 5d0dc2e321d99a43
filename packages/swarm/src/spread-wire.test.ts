import { digestOf } from '@shoal/oci/digest'
import { decode, encode } from 'cborg'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodeMessage, encodeMessage, longestFrame, type MessageError } from './message.ts'
import type {
  Ask,
  Because,
  ChunkRun,
  Hand,
  HashBatch,
  Have,
  LeaseMessage,
  SpreadMessage,
} from './spread/spread-message.ts'

const digest = digestOf(Buffer.from('a layer'))
const hash = (content: string) => digestOf(Buffer.from(content)).slice('sha256:'.length)
const last = 2 ** 32 - 1

const batch: HashBatch = {
  author: '12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB',
  first: 7,
  hashes: [hash('7'), hash('8')],
  signature: Uint8Array.from({ length: 64 }, (_, i) => i),
}
const ask: Ask = {
  t: 'ask',
  digest,
  n: 3,
  size: 40_000_000,
  chunk: 131_072,
  epoch: 2,
  want: [
    [0, 1],
    [5, 300],
  ],
  gives: true,
  line: false,
  why: 'lost',
}
const lease: LeaseMessage = {
  t: 'lease',
  digest,
  n: 0,
  size: 40_000_000,
  chunk: 131_072,
  epoch: 3,
  fetch: [[4, last]],
  members: [batch.author, 'QmOther'],
}
const have: Have = {
  t: 'have',
  digest,
  size: 40_000_000,
  chunk: 131_072,
  first: true,
  add: [[0, 9]],
  hashes: [batch, { ...batch, first: 0, hashes: [hash('0')] }],
  gives: true,
  epoch: 3,
  claim: [],
  handing: false,
}
const hand: Hand = { t: 'hand', digest, chunks: [8, 2], hashes: [batch] }
const because: Because = { t: 'because', digest, number: 8, hashes: [] }
const messages: readonly SpreadMessage[] = [
  ask,
  lease,
  have,
  hand,
  because,
  { t: 'leave', digest },
  { t: 'why', digest, number: last },
]

/** With byte strings of one class, so that they can be compared. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Uint8Array.from(value)
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]))
}

/** A message as it is sent, with some fields changed. */
function altered(message: SpreadMessage, fields: object): Uint8Array {
  return encode({ ...decode(encodeMessage(message)), ...fields })
}

function refuses(message: SpreadMessage, fields: object): void {
  assert.throws(
    () => decodeMessage(altered(message, fields)),
    (error: unknown) => (error as MessageError).code === 'INVALID',
    `${message.t} ${JSON.stringify(fields).slice(0, 80)}`,
  )
}

function takes(message: SpreadMessage, fields: object): void {
  assert.ok(decodeMessage(altered(message, fields)), `${message.t} ${Object.keys(fields)}`)
}

/** As runs are sent. */
function packed(...numbers: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * numbers.length)
  for (const [i, number] of numbers.entries()) bytes.writeUInt32BE(number, 4 * i)
  return bytes
}

/** A batch as it is sent, with some fields changed. */
function sent(fields: object = {}): object {
  return { ...batch, hashes: Buffer.from(batch.hashes.join(''), 'hex'), ...fields }
}

for (const message of messages)
  test(`"${message.t}" is read as it was written`, () => {
    assert.equal(plain(decodeMessage(encodeMessage(message))), plain(message))
  })

test('any runs are read as they were written, each as eight bytes', () => {
  const runs = fc
    .uniqueArray(fc.nat(last), { maxLength: 60 })
    .map(numbers => numbers.sort((a, b) => a - b))
    .map(numbers =>
      Array.from({ length: numbers.length >>> 1 }, (_, i): ChunkRun => [numbers[2 * i]!, numbers[2 * i + 1]!]),
    )
  fc.assert(
    fc.property(runs, want => {
      const bytes = encodeMessage({ ...ask, want })
      assert.equal((decode(bytes) as { want: Uint8Array }).want.length, 8 * want.length)
      assert.equal((decodeMessage(bytes) as Ask).want, want)
    }),
  )
})

test('runs that are none are refused: torn, empty, backwards, overlapping or out of order', () => {
  for (const [message, field] of [
    [ask, 'want'],
    [lease, 'fetch'],
    [have, 'add'],
    [have, 'claim'],
  ] as const) {
    takes(message, { [field]: packed(0, 1, 1, 2) })
    for (const bytes of [packed(0), packed(3, 3), packed(5, 4), packed(0, 5, 4, 6), packed(5, 6, 0, 1)])
      refuses(message, { [field]: bytes })
    refuses(message, { [field]: packed(0, 1).subarray(1) })
    refuses(message, { [field]: [[0, 1]] })
  }
})

test('hashes are 32 bytes each, at least one, and signatures 64', () => {
  for (const message of [have, hand, because]) {
    takes(message, { hashes: [sent()] })
    for (const hashes of [new Uint8Array(), new Uint8Array(31), new Uint8Array(33), 'ab'])
      refuses(message, { hashes: [sent({ hashes })] })
    for (const signature of [new Uint8Array(63), new Uint8Array(65)])
      refuses(message, { hashes: [sent({ signature })] })
    for (const author of ['', 'a b', 'a'.repeat(129)]) refuses(message, { hashes: [sent({ author })] })
    for (const first of [-1, 0.5, last + 1]) refuses(message, { hashes: [sent({ first })] })
  }
})

test('as much as may be is read, and one more is refused', () => {
  const bounds: readonly (readonly [SpreadMessage, (count: number) => object, number])[] = [
    [have, count => ({ hashes: Array(count).fill(sent()) }), 400],
    [lease, count => ({ members: Array(count).fill('a') }), 256],
    [hand, count => ({ chunks: Array(count).fill(1) }), 256],
  ]
  for (const [message, fields, most] of bounds) {
    takes(message, fields(most))
    refuses(message, fields(most + 1))
  }
})

test('fields that are missing, or not what they must be, are refused', () => {
  for (const message of messages) {
    refuses(message, { digest: 'sha256:abc' })
    const fields = decode(encodeMessage(message)) as object
    for (const name of Object.keys(fields)) if (name !== 't') refuses(message, { [name]: null })
  }
  for (const number of [-1, 1.5]) {
    for (const name of ['n', 'size', 'chunk', 'epoch']) refuses(ask, { [name]: number })
    refuses({ t: 'why', digest, number: 0 }, { number })
    refuses(hand, { chunks: [number] })
  }
  refuses(ask, { why: 'hungry' })
})

test('as much as one message is to tell fits in a frame', () => {
  const add = Array.from({ length: 4096 }, (_, i): ChunkRun => [2 * i, 2 * i + 1])
  const hashes = Array.from({ length: 256 }, (_, i) => ({ ...batch, first: 8 * i, hashes: Array(8).fill(hash('x')) }))
  const bytes = encodeMessage({ ...have, add, claim: add, hashes })
  assert.ok(bytes.length <= longestFrame, `${bytes.length} bytes`)
  assert.is((decodeMessage(bytes) as Have).hashes.length, 256)
})

test.run()
