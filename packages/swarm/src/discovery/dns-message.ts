import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/**
 * DNS messages (RFC 1035, section 4) as multicast DNS uses them (RFC 6762, section 18). Of the records only those that
 * DNS-SD needs are told apart; others, and what is in the authority section, are passed over.
 */

/** More than an Ethernet frame never comes from here; this is what others may send (RFC 6762, section 17). */
export const mostBytes = 9000

/** Questions and records of one message. */
const mostEntries = 256

const mostNameBytes = 255

/** The highest bit of a class: "flush what you knew" in a record, "answer me alone" in a question. */
const topBit = 0x8000
const internet = 1
const anyClass = 255

const responseFlags = 0x8400

export const recordTypes = { A: 1, PTR: 12, TXT: 16, AAAA: 28, SRV: 33, ANY: 255 } as const

/** Names are lower-case text, labels between dots; a dot within a label, or a backslash, has a backslash before it. */
export type DnsQuestion = { readonly name: string; readonly type: number }

export type DnsRecord = {
  readonly name: string
  /** In s; 0 says goodbye. */
  readonly ttl: number
  /** Whether it takes the place of all known before, rather than being one more. */
  readonly flush: boolean
} & (
  | { readonly type: 'PTR'; readonly target: string }
  | { readonly type: 'SRV'; readonly target: string; readonly port: number }
  | { readonly type: 'TXT'; readonly texts: readonly Buffer[] }
  | { readonly type: 'A' | 'AAAA'; readonly address: string }
)

export type DnsMessage = {
  readonly response: boolean
  readonly questions: readonly DnsQuestion[]
  /** In a query: what the one who asks knows already. */
  readonly answers: readonly DnsRecord[]
  readonly additionals: readonly DnsRecord[]
}

/** A message to many. @throws RangeError if it is longer than 9,000 bytes, or a label than 63 */
export function encodeDns({ response, questions = [], answers = [] }: Partial<DnsMessage>): Buffer {
  const writer = new Writer()
  for (const value of [0, response ? responseFlags : 0, questions.length, answers.length, 0, 0]) writer.uint16(value)
  for (const { name, type } of questions) {
    writer.name(name)
    writer.uint16(type)
    writer.uint16(internet)
  }
  for (const record of answers) writer.record(record)
  return writer.bytes
}

/** @returns undefined if it can't be read to its end; never throws */
export function decodeDns(bytes: Buffer): DnsMessage | undefined {
  if (bytes.length > mostBytes) return undefined
  try {
    return new Reader(bytes).message()
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

class Writer {
  readonly #bytes = Buffer.alloc(mostBytes)
  /** Where names have been written already, by their text. */
  readonly #names = new Map<string, number>()
  #at = 0

  get bytes(): Buffer {
    return Buffer.from(this.#bytes.subarray(0, this.#at))
  }

  uint16(value: number): void {
    this.#at = this.#bytes.writeUInt16BE(value, this.#at)
  }

  name(name: string): void {
    let rest = name
    while (rest !== '') {
      const known = this.#names.get(rest.toLowerCase())
      if (known !== undefined) {
        this.uint16(0xc000 | known)
        return
      }
      this.#names.set(rest.toLowerCase(), this.#at)
      const [label = ''] = rest.split('.', 1)
      this.#text(Buffer.from(label), 63)
      rest = rest.slice(label.length + 1)
    }
    this.#at = this.#bytes.writeUInt8(0, this.#at)
  }

  record(record: DnsRecord): void {
    this.name(record.name)
    this.uint16(recordTypes[record.type])
    this.uint16(record.flush ? internet | topBit : internet)
    this.#at = this.#bytes.writeUInt32BE(record.ttl, this.#at)
    const lengthAt = this.#at
    this.uint16(0)
    this.#data(record)
    this.#bytes.writeUInt16BE(this.#at - lengthAt - 2, lengthAt)
  }

  #data(record: DnsRecord): void {
    if (record.type === 'TXT') {
      for (const text of record.texts) this.#text(text, 255)
    } else if ('address' in record) {
      this.#raw(Buffer.from(ipaddr.parse(record.address).toByteArray()))
    } else {
      // Of an SRV record's priority and weight nobody makes anything here.
      if (record.type === 'SRV') for (const value of [0, 0, record.port]) this.uint16(value)
      this.name(record.target)
    }
  }

  #text(text: Buffer, most: number): void {
    if (text.length > most) throw new RangeError(`a label or text of ${text.length} bytes is longer than ${most}`)
    this.#at = this.#bytes.writeUInt8(text.length, this.#at)
    this.#raw(text)
  }

  #raw(bytes: Buffer): void {
    if (this.#at + bytes.length > mostBytes) throw new RangeError(`the message is longer than ${mostBytes} bytes`)
    this.#at += bytes.copy(this.#bytes, this.#at)
  }
}

/** Throws RangeError where the message ends too soon or makes no sense, as the methods of Buffer do. */
class Reader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  message(): DnsMessage {
    const [, flags = 0, ...counts] = Array.from({ length: 6 }, () => this.#uint16())
    if (counts.reduce((sum, count) => sum + count, 0) > mostEntries) throw new RangeError('too many records')
    const [questions = 0, answers = 0, authorities = 0, additionals = 0] = counts
    const asked = Array.from({ length: questions }, () => this.#question())
    const [answered, , added] = [answers, authorities, additionals].map(count =>
      Array.from({ length: count }, () => this.#record()).filter(record => record !== undefined),
    )
    return {
      response: flags >= topBit,
      questions: asked.filter(question => question !== undefined),
      answers: answered ?? [],
      additionals: added ?? [],
    }
  }

  #uint16(): number {
    this.#at += 2
    return this.#bytes.readUInt16BE(this.#at - 2)
  }

  #question(): DnsQuestion | undefined {
    const name = this.#name()
    const type = this.#uint16()
    const asked = this.#uint16() & ~topBit
    return asked === internet || asked === anyClass ? { name, type } : undefined
  }

  #record(): DnsRecord | undefined {
    const name = this.#name()
    const type = this.#uint16()
    const classAndFlush = this.#uint16()
    const ttl = this.#bytes.readUInt32BE(this.#at)
    this.#at += 4
    const length = this.#uint16()
    const end = this.#at + length
    if (end > this.#bytes.length) throw new RangeError('a record ends after its message')
    const common = { name, ttl, flush: (classAndFlush & topBit) !== 0 }
    const record = (classAndFlush & ~topBit) === internet ? this.#data(common, type, end) : undefined
    if (record && this.#at !== end) throw new RangeError('a record is not as long as it says')
    this.#at = end
    return record
  }

  #data(common: { name: string; ttl: number; flush: boolean }, type: number, end: number): DnsRecord | undefined {
    switch (type) {
      case recordTypes.PTR:
        return { ...common, type: 'PTR', target: this.#name() }
      case recordTypes.SRV: {
        this.#at += 4
        const port = this.#uint16()
        return { ...common, type: 'SRV', port, target: this.#name() }
      }
      case recordTypes.TXT: {
        const texts: Buffer[] = []
        while (this.#at < end) texts.push(this.#raw(this.#bytes.readUInt8(this.#at++)))
        return { ...common, type: 'TXT', texts }
      }
      case recordTypes.A:
        return { ...common, type: 'A', address: this.#address(4) }
      case recordTypes.AAAA:
        return { ...common, type: 'AAAA', address: this.#address(16) }
      default:
        return undefined
    }
  }

  #address(length: number): string {
    const address = ipaddr.fromByteArray([...this.#raw(length)]).toString()
    if (isIP(address) === 0) throw new RangeError('no address')
    return address
  }

  #raw(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new RangeError('the message ends too soon')
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  #name(): string {
    const labels: string[] = []
    let size = 0
    let at = this.#at
    /** Where reading goes on; known from the first pointer on. */
    let after: number | undefined
    /** Pointers lead to what comes before, or they could lead round in a circle. */
    let limit = this.#at
    for (;;) {
      const length = this.#bytes.readUInt8(at++)
      if (length === 0) break
      if (length >= 0xc0) {
        const target = ((length & 0x3f) << 8) | this.#bytes.readUInt8(at++)
        if (target >= limit) throw new RangeError('a pointer leads forward')
        after ??= at
        at = limit = target
        continue
      }
      size += length + 1
      if (length > 63 || size >= mostNameBytes || at + length > this.#bytes.length) throw new RangeError('no name')
      labels.push(this.#bytes.toString('utf8', at, at + length).replace(/[.\\]/g, '\\$&'))
      at += length
    }
    this.#at = after ?? at
    return labels.join('.').toLowerCase()
  }
}
