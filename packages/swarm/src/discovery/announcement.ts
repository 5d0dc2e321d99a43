import { createHmac, timingSafeEqual } from 'node:crypto'
import { type DnsMessage, type DnsRecord, recordTypes } from './dns-message.ts'

/** What peers are found by (RFC 6763). */
export const serviceName = '_shoal._tcp.local'

/** How long what is announced holds, in s. A peer that vanishes is soon out of everybody's caches. */
export const timeToLive = 120

/** Text that every message about the service has somewhere: names are compressed, but their first mention is whole. */
export const serviceLabel = '_shoal'

/** Addresses announced, and taken of one peer; peers taken of one message. */
export const mostHosts = 8
const mostPeers = 32

const nonceLength = 8
const codeLength = 16

/** What a peer id looks like in text: base58. It is a DNS label, too. */
const peerIdPattern = /^[1-9A-HJ-NP-Za-km-z]{44,63}$/

export type Announcement = {
  readonly peerId: string
  readonly port: number
  /** Shows members of a network, and nobody else, which network it is. */
  readonly mark: Buffer
  /** IP addresses without scope. */
  readonly hosts: readonly string[]
}

/** The mark of a peer: `nonce` ‖ the first 16 bytes of HMAC-SHA-256(key, `nonce` ‖ peer id). The nonce has 8 bytes. */
export function markOf(key: Uint8Array, peerId: string, nonce: Uint8Array): Buffer {
  const code = createHmac('sha256', key).update(nonce).update(peerId).digest()
  return Buffer.concat([nonce, code.subarray(0, codeLength)])
}

/** Whether a mark is one of the network with that key. */
export function isMarkOf(key: Uint8Array, { peerId, mark }: Pick<Announcement, 'peerId' | 'mark'>): boolean {
  if (mark.length !== nonceLength + codeLength) return false
  return timingSafeEqual(mark, markOf(key, peerId, mark.subarray(0, nonceLength)))
}

export function instanceName(peerId: string): string {
  return `${peerId}.${serviceName}`
}

/** A host of its own name, which tells no more than the peer's id does. */
export function targetName(peerId: string): string {
  return `${peerId}.local`
}

/** The records that announce a peer. @param ttl in s; 0: it is leaving */
export function recordsOf({ peerId, port, mark, hosts }: Announcement, ttl = timeToLive): DnsRecord[] {
  const instance = instanceName(peerId)
  const target = targetName(peerId)
  const texts = [`id=${peerId}`, `mark=${mark.toString('base64url')}`].map(text => Buffer.from(text))
  return [
    // Every peer has one of this name.
    { name: serviceName, ttl, flush: false, type: 'PTR', target: instance },
    { name: instance, ttl, flush: true, type: 'SRV', port, target },
    { name: instance, ttl, flush: true, type: 'TXT', texts },
    ...hosts.map(
      address => ({ name: target, ttl, flush: true, type: address.includes(':') ? 'AAAA' : 'A', address }) as const,
    ),
  ]
}

/** Peers that are announced in a response, each whole in it, and whether they are leaving. */
export function announcementsIn(message: DnsMessage): (Announcement & { readonly leaving: boolean })[] {
  const records = [...message.answers, ...message.additionals]
  const found = new Map<string, Announcement & { readonly leaving: boolean }>()
  for (const record of records) {
    if (record.type !== 'TXT' || found.size >= mostPeers || found.has(record.name)) continue
    const peerId = textOf(record.texts, 'id')
    const mark = Buffer.from(textOf(record.texts, 'mark') ?? '', 'base64url')
    if (peerId === undefined || !peerIdPattern.test(peerId)) continue
    if (record.name !== instanceName(peerId).toLowerCase()) continue
    const service = records.find(({ name, type }) => type === 'SRV' && name === record.name)
    if (service?.type !== 'SRV' || service.port === 0) continue
    const hosts = records.flatMap(other =>
      other.name === service.target && (other.type === 'A' || other.type === 'AAAA') ? [other.address] : [],
    )
    const leaving = record.ttl === 0
    found.set(record.name, { peerId, port: service.port, mark, hosts: hosts.slice(0, mostHosts), leaving })
  }
  return [...found.values()]
}

/** Whether a query asks for something that `recordsOf` has of a peer, and that the one who asks doesn't know. */
export function asksFor({ questions, answers }: DnsMessage, peerId: string): boolean {
  const instance = instanceName(peerId).toLowerCase()
  const target = targetName(peerId).toLowerCase()
  const { A, AAAA, ANY, PTR, SRV, TXT } = recordTypes
  return questions.some(({ name, type }) => {
    if (name === serviceName) return (type === PTR || type === ANY) && !knows(answers, instance)
    if (name === instance) return type === SRV || type === TXT || type === ANY
    return name === target && (type === A || type === AAAA || type === ANY)
  })
}

/** Known answers count while at least half of their time is left (RFC 6762, section 7.1). */
function knows(answers: readonly DnsRecord[], instance: string): boolean {
  return answers.some(
    record =>
      record.type === 'PTR' &&
      record.name === serviceName &&
      record.target === instance &&
      record.ttl >= timeToLive / 2,
  )
}

function textOf(texts: readonly Buffer[], key: string): string | undefined {
  return texts
    .map(text => text.toString('latin1'))
    .find(text => text.startsWith(`${key}=`))
    ?.slice(key.length + 1)
}
