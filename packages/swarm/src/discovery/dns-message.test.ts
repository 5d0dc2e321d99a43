import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type DnsRecord, decodeDns, encodeDns, mostBytes, recordTypes } from './dns-message.ts'

const name = fc
  .array(fc.stringMatching(/^[a-z0-9_-]{1,40}$/), { minLength: 1, maxLength: 5 })
  .map(labels => labels.join('.'))
const common = { name, ttl: fc.nat(), flush: fc.boolean() }
const plain = { noNullPrototype: true }
const texts = fc.array(
  fc.uint8Array({ maxLength: 255 }).map(bytes => Buffer.from(bytes)),
  { maxLength: 4 },
)
const record: fc.Arbitrary<DnsRecord> = fc.oneof(
  fc.record({ ...common, type: fc.constant('PTR' as const), target: name }, plain),
  fc.record({ ...common, type: fc.constant('SRV' as const), target: name, port: fc.nat(65_535) }, plain),
  fc.record({ ...common, type: fc.constant('TXT' as const), texts }, plain),
  fc.record({ ...common, type: fc.constant('A' as const), address: fc.ipV4() }, plain),
)

/** A message by its parts: texts are labels. */
function message(counts: readonly number[], ...parts: readonly (string | readonly number[])[]): Buffer {
  const header = Buffer.alloc(12)
  for (const [index, count] of counts.entries()) header.writeUInt16BE(count, 4 + 2 * index)
  return Buffer.concat([
    header,
    ...parts.map(part =>
      typeof part === 'string' ? Buffer.from([part.length, ...Buffer.from(part)]) : Buffer.from(part),
    ),
  ])
}

test('what is written can be read', () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(fc.record({ name, type: fc.constantFrom(...Object.values(recordTypes)) }, plain), { maxLength: 3 }),
      fc.array(record, { maxLength: 6 }),
      (response, questions, answers) => {
        const read = decodeDns(encodeDns({ response, questions, answers }))
        assert.equal(read, { response, questions, answers, additionals: [] })
      },
    ),
  )
})

test('IPv6 addresses are read as they are usually written', () => {
  const answers = [{ name: 'a.local', ttl: 1, flush: true, type: 'AAAA', address: 'fe80::1:2' } as const]
  assert.equal(decodeDns(encodeDns({ response: true, answers }))?.answers, answers)
})

test('a name is written whole once', () => {
  const type = recordTypes.PTR
  const one = encodeDns({ questions: [{ name: '_shoal._tcp.local', type }] })
  const two = encodeDns({
    questions: [
      { name: '_shoal._tcp.local', type },
      { name: 'a._SHOAL._tcp.local', type },
    ],
  })
  assert.is(two.length, one.length + 2 + 2 + 4)
})

test('names are read in lower case, with dots within labels told apart', () => {
  const [question] = decodeDns(message([1, 0, 0, 0], 'A.b\\', 'LOCAL', [0, 0, 12, 0x80, 1]))?.questions ?? []
  assert.equal(question, { name: 'a\\.b\\\\.local', type: recordTypes.PTR })
})

test('records of other types and classes are passed over, and what follows is read', () => {
  const nsec = ['a', [0, 0, 47, 0x80, 1, 0, 0, 0, 9, 0, 3, 1, 2, 3]] as const
  const chaos = ['a', [0, 0, 1, 0, 3, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]] as const
  const a = ['a', [0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]] as const
  const read = decodeDns(message([0, 2, 1, 2], ...nsec, ...chaos, ...a, ...nsec, ...a))
  assert.equal(read?.answers, [])
  assert.equal(read?.additionals, [{ name: 'a', ttl: 9, flush: false, type: 'A', address: '10.0.0.1' }])
})

test('what makes no sense is not read', () => {
  const question = [0, 0, 12, 0, 1]
  const senseless: Record<string, Buffer> = {
    'no header': Buffer.alloc(11),
    'less than it says': message([1, 0, 0, 0]),
    'a pointer to itself': message([1, 0, 0, 0], [0xc0, 12, 0, 12, 0, 1]),
    'a pointer forward': message([1, 0, 0, 0], [0xc0, 14], 'a', question),
    'a label that goes on after the end': message([1, 0, 0, 0], [63, 1, 2]),
    'a label of 64 bytes': message([1, 0, 0, 0], 'x'.repeat(64), question),
    'a name of 256 bytes': message([1, 0, 0, 0], ...Array<string>(5).fill('x'.repeat(50)), question),
    'more records than anybody sends': message([0, 300, 0, 0]),
    'a record longer than the message': message([0, 1, 0, 0], 'a', [0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 9, 10, 0, 0, 1]),
    'an address of three bytes': message([0, 1, 0, 0], 'a', [0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 3, 10, 0, 0]),
    'a text longer than its record': message([0, 1, 0, 0], 'a', [0, 0, 16, 0, 1, 0, 0, 0, 9, 0, 2, 9, 1]),
    'too long': Buffer.alloc(mostBytes + 1),
  }
  for (const [why, bytes] of Object.entries(senseless)) assert.is(decodeDns(bytes), undefined, why)
})

test('pointers that go round are not followed', () => {
  const round = message([2, 0, 0, 0], 'a', [0xc0, 12, 0, 12, 0, 1], [0xc0, 12, 0, 12, 0, 1])
  assert.is(decodeDns(round), undefined)
})

test('too much is not written', () => {
  const questions = [{ name: `${'x'.repeat(64)}.local`, type: recordTypes.PTR }]
  assert.throws(() => encodeDns({ questions }), /longer than 63/)
  const texts = Array.from({ length: 40 }, () => Buffer.alloc(255))
  const answers = [{ name: 'a', ttl: 1, flush: false, type: 'TXT', texts } as const]
  assert.throws(() => encodeDns({ answers }), RangeError)
})

test('no bytes make it throw', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), bytes => void decodeDns(Buffer.from(bytes))))
  const sound = encodeDns({
    response: true,
    questions: [{ name: '_shoal._tcp.local', type: recordTypes.PTR }],
    answers: [
      { name: '_shoal._tcp.local', ttl: 120, flush: false, type: 'PTR', target: 'a._shoal._tcp.local' },
      { name: 'a._shoal._tcp.local', ttl: 120, flush: true, type: 'SRV', target: 'a.local', port: 1 },
      { name: 'a._shoal._tcp.local', ttl: 120, flush: true, type: 'TXT', texts: [Buffer.from('id=a')] },
      { name: 'a.local', ttl: 120, flush: true, type: 'A', address: '10.0.0.1' },
    ],
  })
  const changes = fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 4 })
  fc.assert(
    fc.property(changes, fc.nat(sound.length), (changed, length) => {
      const bytes = Buffer.from(sound)
      for (const [at, value] of changed) bytes[at] = value
      decodeDns(bytes)
      decodeDns(bytes.subarray(0, length))
    }),
    { numRuns: 1000 },
  )
})

test.run()
