import { z } from 'zod'
import type { ChunkRun, HashBatch, SpreadMessage } from './spread/spread-message.ts'
import { bytes, digest, peerId, signature, uint } from './wire-field.ts'

/** Messages about blobs that several want at once, as they are sent: runs and hashes as bytes. */

/** Numbers of chunks: more than any blob is cut into. */
const mostChunks = 2 ** 32 - 1

/** Of a run: its start and its end, big-endian. */
const runLength = 8

/** Of SHA-256. */
const hashLength = 32

const index = uint.max(mostChunks)

const runs = bytes
  .refine(({ length }) => length % runLength === 0)
  .transform(readRuns)
  .refine(isAscending)

const batch = z.object({
  author: peerId,
  first: index,
  hashes: bytes.refine(({ length }) => length > 0 && length % hashLength === 0).transform(readHashes),
  signature,
})

/** Each is nine data items, of which a message has so many at most. */
const hashes = z.array(batch).max(400)

export const spreadMessages = [
  z.object({
    t: z.literal('ask'),
    digest,
    n: uint,
    size: uint,
    chunk: uint,
    epoch: uint,
    want: runs,
    gives: z.boolean(),
    line: z.boolean(),
    why: z.enum(['new', 'lost', 'starving']),
  }),
  z.object({
    t: z.literal('lease'),
    digest,
    n: uint,
    size: uint,
    chunk: uint,
    epoch: uint,
    fetch: runs,
    members: z.array(peerId).max(256),
  }),
  z.object({
    t: z.literal('have'),
    digest,
    size: uint,
    chunk: uint,
    first: z.boolean(),
    add: runs,
    hashes,
    gives: z.boolean(),
    epoch: uint,
    claim: runs,
    handing: z.boolean(),
  }),
  z.object({ t: z.literal('hand'), digest, chunks: z.array(index).max(256), hashes }),
  z.object({ t: z.literal('leave'), digest }),
  z.object({ t: z.literal('why'), digest, number: index }),
  z.object({ t: z.literal('because'), digest, number: index, hashes }),
] as const

/** What is encoded for a message. */
export function spreadWireOf(message: SpreadMessage): object {
  switch (message.t) {
    case 'ask':
      return { ...message, want: writeRuns(message.want) }
    case 'lease':
      return { ...message, fetch: writeRuns(message.fetch) }
    case 'have':
      return {
        ...message,
        add: writeRuns(message.add),
        claim: writeRuns(message.claim),
        hashes: message.hashes.map(writeBatch),
      }
    case 'hand':
    case 'because':
      return { ...message, hashes: message.hashes.map(writeBatch) }
    default:
      return message
  }
}

function readRuns(packed: Uint8Array): ChunkRun[] {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length)
  const list: ChunkRun[] = []
  for (let at = 0; at < packed.length; at += runLength) list.push([view.getUint32(at), view.getUint32(at + 4)])
  return list
}

function isAscending(list: readonly ChunkRun[]): boolean {
  let least = 0
  for (const [start, end] of list) {
    if (start < least || end <= start) return false
    least = end
  }
  return true
}

function writeRuns(list: readonly ChunkRun[]): Uint8Array {
  const packed = new Uint8Array(list.length * runLength)
  const view = new DataView(packed.buffer)
  list.forEach(([start, end], i) => {
    view.setUint32(i * runLength, start)
    view.setUint32(i * runLength + 4, end)
  })
  return packed
}

function readHashes(packed: Uint8Array): string[] {
  const hex = Buffer.from(packed.buffer, packed.byteOffset, packed.length).toString('hex')
  return Array.from({ length: packed.length / hashLength }, (_, i) =>
    hex.slice(2 * i * hashLength, 2 * (i + 1) * hashLength),
  )
}

function writeBatch({ hashes, ...rest }: HashBatch): object {
  return { ...rest, hashes: new Uint8Array(Buffer.from(hashes.join(''), 'hex')) }
}
