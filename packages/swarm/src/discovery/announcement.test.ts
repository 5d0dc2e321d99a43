import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  type Announcement,
  announcementsIn,
  asksFor,
  instanceName,
  isMarkOf,
  markOf,
  recordsOf,
  serviceName,
  targetName,
  timeToLive,
} from './announcement.ts'
import { type DnsMessage, type DnsRecord, decodeDns, encodeDns, recordTypes } from './dns-message.ts'

const key = Buffer.alloc(32, 7)
const nonce = Buffer.from('12345678')
const peerId = '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp'
const other = '12D3KooWHHzSeKaY8xuZVzkLbKFfvNgPPeKhFBGrMbNzbm5akpqu'
const mark = markOf(key, peerId, nonce)
const announcement: Announcement = { peerId, port: 3476, mark, hosts: ['10.0.0.5', 'fd00::5', 'fe80::5'] }

function heard(answers: readonly DnsRecord[]): ReturnType<typeof announcementsIn> {
  return announcementsIn(decodeDns(encodeDns({ response: true, answers }))!)
}

function query(name: string, type: number, answers: readonly DnsRecord[] = []): DnsMessage {
  return decodeDns(encodeDns({ questions: [{ name, type }], answers }))!
}

test('what a peer announces is what others hear, in one frame of Ethernet', () => {
  assert.equal(heard(recordsOf(announcement)), [{ ...announcement, leaving: false }])
  assert.ok(encodeDns({ response: true, answers: recordsOf(announcement) }).length < 1400)
})

test('a goodbye is told apart', () => {
  assert.is(heard(recordsOf(announcement, 0))[0]?.leaving, true)
})

test('several peers may be announced in one message', () => {
  const second = { ...announcement, peerId: other, port: 1, hosts: [] }
  const found = heard([...recordsOf(announcement), ...recordsOf(second)])
  assert.equal(
    found.map(({ peerId, port }) => [peerId, port]),
    [
      [peerId, 3476],
      [other, 1],
    ],
  )
})

test('half an announcement, or one that makes no sense, is none', () => {
  const records = recordsOf(announcement)
  const without = (type: string) => records.filter(record => record.type !== type)
  assert.equal(heard(without('TXT')), [])
  assert.equal(heard(without('SRV')), [])
  assert.equal(heard(recordsOf({ ...announcement, port: 0 })), [])
  for (const id of ['short', '0OIl'.repeat(13), 'x'.repeat(63).replace('x', '-')])
    assert.equal(heard(recordsOf({ ...announcement, peerId: id })), [], id)
  const lent = records.map(record =>
    record.type === 'TXT' ? { ...record, texts: [Buffer.from(`id=${other}`)] } : record,
  )
  assert.equal(heard(lent), [])
})

test('no more than 8 addresses are taken of a peer', () => {
  const hosts = Array.from({ length: 20 }, (_, index) => `10.0.0.${index}`)
  assert.equal(heard(recordsOf({ ...announcement, hosts }))[0]?.hosts, hosts.slice(0, 8))
})

test('a mark shows members, and nobody else, whose it is', () => {
  assert.is(mark.length, 24)
  assert.ok(isMarkOf(key, { peerId, mark }))
  assert.not(isMarkOf(Buffer.alloc(32, 8), { peerId, mark }))
  assert.not(isMarkOf(key, { peerId: other, mark }))
  assert.not(isMarkOf(key, { peerId, mark: mark.subarray(1) }))
  assert.not(isMarkOf(key, { peerId, mark: Buffer.alloc(0) }))
  const changed = Buffer.from(mark)
  changed[23]! ^= 1
  assert.not(isMarkOf(key, { peerId, mark: changed }))
  assert.not.equal(markOf(key, peerId, Buffer.from('87654321')).subarray(8), mark.subarray(8))
})

test('a question for the service, or for what the peer is called, is for it', () => {
  const { PTR, SRV, TXT, A, AAAA, ANY } = recordTypes
  for (const type of [PTR, ANY]) assert.ok(asksFor(query(serviceName, type), peerId))
  for (const type of [SRV, TXT, ANY]) assert.ok(asksFor(query(instanceName(peerId), type), peerId))
  for (const type of [A, AAAA, ANY]) assert.ok(asksFor(query(targetName(peerId).toUpperCase(), type), peerId))
  assert.not(asksFor(query(serviceName, A), peerId))
  assert.not(asksFor(query('_other._tcp.local', PTR), peerId))
  assert.not(asksFor(query(instanceName(other), SRV), peerId))
})

test('who knows the peer already, for long enough, does not ask for it', () => {
  const known = (id: string, ttl: number) => [
    { name: serviceName, ttl, flush: false, type: 'PTR', target: instanceName(id) } as const,
  ]
  const { PTR, SRV } = recordTypes
  assert.not(asksFor(query(serviceName, PTR, known(peerId, timeToLive / 2)), peerId))
  assert.ok(asksFor(query(serviceName, PTR, known(peerId, timeToLive / 2 - 1)), peerId))
  assert.ok(asksFor(query(serviceName, PTR, known(other, timeToLive)), peerId))
  assert.ok(asksFor(query(instanceName(peerId), SRV, known(peerId, timeToLive)), peerId))
})

test.run()
