import { isTag } from '@shoal/oci/reference'
import { type DecodeOptions, decode, encode, type Token, Tokenizer, Type } from 'cborg'
import { z } from 'zod'
import { prefixLength } from './digest-prefix.ts'
import { type PopularityFields, popularityFields } from './popularity-message.ts'
import type { SpreadMessage } from './spread/spread-message.ts'
import { spreadMessages, spreadWireOf } from './spread-wire.ts'
import { bytes, digest, peerId, signature, uint } from './wire-field.ts'

/** The messages of docs/protocol.md, and what a message may be at most. */

/** In bytes. */
export const longestFrame = 256 * 1024

/** Prefixes in one message, added and removed. */
export const mostPrefixes = 8000

/** CBOR data items in one message, and how deep they may be nested: far more than any message needs. */
const mostItems = 4096
const deepest = 8

export type MessageErrorCode =
  /** It is longer than any message. */
  | 'TOO_LONG'
  /** It is no CBOR, or not of the kind that is spoken. */
  | 'MALFORMED'
  /** A field is missing, or is not what it must be. */
  | 'INVALID'
  | 'NO_HELLO'
  | 'HELLO_AGAIN'
  | 'SILENT'
  | 'SLOW'
  | 'FLOOD'
  /** A snapshot does not come to its end. */
  | 'ENDLESS'
  | 'BROKEN_OFF'
  | 'RECORD_INVALID'

/** Thrown for what no peer says that keeps to the protocol. */
export class MessageError extends Error {
  readonly code: MessageErrorCode

  constructor(code: MessageErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

const port = z.int().min(1).max(65_535)
const prefixes = bytes.refine(({ length }) => length % prefixLength === 0)
const word = z
  .string()
  .max(64)
  .regex(/^\P{Cc}*$/u)

const peerMessage = z.discriminatedUnion('t', [
  z.object({
    t: z.literal('hello'),
    versions: z.array(uint).min(1).max(16),
    features: z.array(word).max(64),
    swarm_port: port,
    transfer_port: port,
    /** What the peer is called; others see it. */
    name: word,
    uploads: z.boolean(),
  }),
  z
    .object({
      t: z.literal('holdings'),
      seq: uint,
      reset: z.boolean(),
      more: z.boolean(),
      add: prefixes,
      remove: prefixes,
    })
    .refine(({ add, remove }) => add.length + remove.length <= mostPrefixes * prefixLength),
  z.object({ t: z.literal('resync') }),
  z.object({
    t: z.literal('peers'),
    peers: z
      .array(
        z.object({
          id: peerId,
          addresses: z.array(z.string().max(128)).max(8),
        }),
      )
      .max(128),
  }),
  z.object({ t: z.literal('uploads'), willing: z.boolean() }),
  z.object({
    t: z.literal('limit'),
    /** Stands for who counts, and whom. */
    key: bytes.refine(({ length }) => length === 8),
    limit: uint,
    remaining: uint,
    /** In s. */
    window: uint,
    /** How long ago that was said, in ms. */
    age: uint,
  }),
  z.object({ t: z.literal('popular'), ...popularityFields }),
  z.object({ t: z.literal('ping'), n: uint }),
  z.object({ t: z.literal('pong'), n: uint }),
  z.object({
    t: z.literal('errand'),
    /** With its registry. */
    name: z.string().min(1).max(512),
    digest,
    kind: z.enum(['manifest', 'blob']),
    /** In bytes; 0 if that is not known. */
    size: uint,
  }),
  ...spreadMessages,
])

/** What peers say to each other over `/shoal/1/peer`. */
export type Message = Exclude<z.output<typeof peerMessage>, { t: SpreadMessage['t'] }> | SpreadMessage
export type Hello = Extract<Message, { t: 'hello' }>
export type ErrandMessage = Extract<Message, { t: 'errand' }>
export type LimitMessage = Extract<Message, { t: 'limit' }>
export type HoldingsMessage = Extract<Message, { t: 'holdings' }>
export type PopularMessage = Extract<Message, { t: 'popular' }>

const known: ReadonlySet<string> = new Set(peerMessage.options.map(({ shape }) => shape.t.value))

/** What is said of blobs that several want at once. */
const spreads: ReadonlySet<string> = new Set(spreadMessages.map(({ shape }) => shape.t.value))

export function isSpreadMessage(message: Message): message is SpreadMessage {
  return spreads.has(message.t)
}

export function encodeMessage(message: Message): Uint8Array {
  return encode(isSpreadMessage(message) ? spreadWireOf(message) : message)
}

/**
 * Reads a message of `/shoal/1/peer`. Byte strings in it are views of `frame`.
 * @returns undefined for one that a later version may know
 * @throws MessageError `TOO_LONG`, `MALFORMED`, `INVALID`
 */
export function decodeMessage(frame: Uint8Array): Message | undefined {
  const map = decodeMap(frame)
  if (typeof map['t'] === 'string' && !known.has(map['t'])) return undefined
  return parse(peerMessage, map)
}

const tagRequest = z.object({
  name: z.string().min(1).max(512),
  tag: z.string().refine(isTag),
  /** Whether to ask the registry, if that was not done lately: the asker has no way to it. */
  check: z.boolean().exactOptional(),
})

/** A question of `/shoal/1/tag`; the name with its registry. */
export type TagRequest = z.output<typeof tagRequest>

export function encodeTagRequest(request: TagRequest): Uint8Array {
  return encode(request)
}

/** @throws MessageError as {@link decodeMessage} does; so do the others below */
export function decodeTagRequest(frame: Uint8Array): TagRequest {
  return parse(tagRequest, decodeMap(frame))
}

const tagAnswer = z.object({
  record: bytes.refine(({ length }) => length <= 4096).exactOptional(),
  signature: signature.exactOptional(),
})

export type TagAnswer = z.output<typeof tagAnswer>

export function encodeTagAnswer(answer: TagAnswer): Uint8Array {
  return encode(answer)
}

export function decodeTagAnswer(frame: Uint8Array): TagAnswer {
  return parse(tagAnswer, decodeMap(frame))
}

const popularity = z.object(popularityFields)

/** What is said of the topic `/shoal/1/popularity`. */
export function encodePopularity(fields: PopularityFields): Uint8Array {
  return encode(fields)
}

export function decodePopularity(bytes: Uint8Array): PopularityFields {
  return parse(popularity, decodeMap(bytes))
}

const callBackRequest = z.object({ swarm_port: port, transfer_port: port })

/** A question of `/shoal/1/callback`. */
export type CallBackRequest = z.output<typeof callBackRequest>

export function encodeCallBackRequest(request: CallBackRequest): Uint8Array {
  return encode(request)
}

export function decodeCallBackRequest(frame: Uint8Array): CallBackRequest {
  return parse(callBackRequest, decodeMap(frame))
}

const callBackAnswer = z.object({ swarm: word, transfer: word })

/** `ok`, or why a port could not be connected to. */
export type CallBackAnswer = z.output<typeof callBackAnswer>

export function encodeCallBack(answer: CallBackAnswer): Uint8Array {
  return encode(answer)
}

export function decodeCallBack(frame: Uint8Array): CallBackAnswer {
  return parse(callBackAnswer, decodeMap(frame))
}

const options: DecodeOptions = {
  strict: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowBigInt: false,
  allowNaN: false,
  allowInfinity: false,
  rejectDuplicateMapKeys: true,
}

function decodeMap(frame: Uint8Array): Record<string, unknown> {
  if (frame.length > longestFrame)
    throw new MessageError('TOO_LONG', `${frame.length} bytes are too long for a message`)
  const value = decodeItem(frame)
  if (!isMap(value)) throw new MessageError('MALFORMED', 'a message is a CBOR map')
  return value
}

function decodeItem(frame: Uint8Array): unknown {
  try {
    return decode(frame, { ...options, tokenizer: new BoundedTokenizer(frame) })
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new MessageError('MALFORMED', `not the CBOR of a message: ${reason}`, { cause })
  }
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)
}

function parse<Output>(schema: z.ZodType<Output>, map: Record<string, unknown>): Output {
  const parsed = schema.safeParse(map)
  if (parsed.success) return parsed.data
  const where = parsed.error.issues[0]?.path.join('.') ?? ''
  throw new MessageError(
    'INVALID',
    `a message whose ${where === '' ? 'fields are' : `field ${where} is`} not as it must be`,
  )
}

/** Refuses what has too many items, or is nested too deep, before much is made of it. */
class BoundedTokenizer extends Tokenizer {
  #items = 0
  /** For each array and map that is open, how many items are still to come. */
  readonly #open: number[] = []

  constructor(frame: Uint8Array) {
    // cborg takes byte strings out by slice(), which gives a view where it is a Buffer's, and a copy else.
    super(Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength), options)
  }

  override next(): Token {
    if (++this.#items > mostItems) throw new Error(`more than ${mostItems} data items`)
    const token = super.next()
    const open = this.#open
    if (open.length > 0) open[open.length - 1]!--
    if (token.type === Type.array) open.push(token.value)
    else if (token.type === Type.map) open.push(2 * token.value)
    if (open.length > deepest) throw new Error(`nested more than ${deepest} deep`)
    while (open.at(-1) === 0) open.pop()
    return token
  }
}
