import { type ByteRange, parseContentRange } from '@shoal/oci/byte-range'
import { SourceError } from '@shoal/store/source'
import { parseBits } from './chunk-bits.ts'

/** Thrown for an answer that no peer gives which keeps to the protocol; its code is `broken`. */
export class PeerViolation extends SourceError {
  constructor(message: string) {
    super('broken', message)
  }
}

/** Some or all bytes of a blob: `length` of them from `start` on, of `size` in all, as the peer says. */
export type Content = ({ readonly status: 200 } | { readonly status: 206 }) & {
  readonly size: number
  readonly start: number
  readonly length: number
  /** A manifest's media type; of another blob it says nothing. */
  readonly contentType: string | undefined
  /** Of a blob that is just spreading: which chunks the peer has, one bit for each, if it says so. */
  readonly has?: Uint8Array | undefined
}

/** Why a peer gives no bytes. */
export type Refusal =
  /** It does not hold the blob, or does not share it. */
  | { readonly status: 404 }
  /** The range begins beyond the end of the blob, which has `size` bytes there. */
  | { readonly status: 416; readonly size: number }
  /** All its upload slots are taken, or it gives nothing now: on battery, on a metered line, over a VPN. */
  | { readonly status: 503; readonly refusal: 'busy' | 'resting'; readonly has?: Uint8Array | undefined }

export type AnswerHead = {
  readonly says: Content | Refusal
  /** Of the body that follows, in bytes. */
  readonly length: number
  /** Whether the connection ends with it. */
  readonly last: boolean
}

/** The longest body of an answer that gives no content, in bytes. */
const noteLimit = 1024

/**
 * Reads the head of an answer, without the empty line at its end, to a request for `range`, or for all.
 * @throws PeerViolation; SourceError `failing` for an answer that says that something went wrong there
 */
export function parsePeerAnswer(head: string, range: ByteRange | undefined): AnswerHead {
  const [first = '', ...lines] = head.split('\r\n')
  const [, digits] = /^HTTP\/1\.1 (\d{3})(?: |$)/.exec(first) ?? []
  if (digits === undefined) throw new PeerViolation('the answer is no HTTP/1.1')
  const headers = new Map<string, string>()
  for (const line of lines) {
    const [, name, value = ''] = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? []
    if (name === undefined) throw new PeerViolation('the answer has a header that is none')
    const key = name.toLowerCase()
    if (headers.has(key) && governing.has(key)) throw new PeerViolation(`the answer has ${key} twice`)
    headers.set(key, value)
  }
  if (headers.has('transfer-encoding')) throw new PeerViolation('the answer does not say how long it is')
  const length = count(headers.get('content-length'))
  if (length === undefined) throw new PeerViolation('the answer does not say how long it is')
  const frame = { length, last: /\bclose\b/i.test(headers.get('connection') ?? '') }
  const status = Number(digits)
  const has = parseBits(headers.get('shoal-has'))
  const said = has && { has }
  if (status === 200 || status === 206)
    return { ...frame, says: { ...content(status, headers, length, range), ...said } }
  if (length > noteLimit) throw new PeerViolation(`the answer ${status} goes on for ${length} bytes`)
  if (status === 404) return { ...frame, says: { status } }
  if (status === 416 && range) {
    const size = count(/^bytes \*\/(\d+)$/i.exec(headers.get('content-range') ?? '')?.[1])
    if (size === undefined || range.start < size) throw new PeerViolation('the answer 416 makes no sense')
    return { ...frame, says: { status, size } }
  }
  const refusal = headers.get('shoal-refusal')
  if (status === 503 && (refusal === 'busy' || refusal === 'resting'))
    return { ...frame, says: { status, refusal, ...said } }
  if (status >= 500) throw new SourceError('failing', `the peer answers ${status}`)
  throw new PeerViolation(`the peer answers ${status}`)
}

/** Headers that say how to read an answer: two of a kind could be read in two ways. */
const governing = new Set(['content-length', 'content-range', 'transfer-encoding', 'connection', 'shoal-refusal'])

function content(
  status: 200 | 206,
  headers: ReadonlyMap<string, string>,
  length: number,
  range: ByteRange | undefined,
): Content {
  if ((status === 206) !== (range !== undefined))
    throw new PeerViolation(`the peer answers ${status}: not what was asked`)
  const contentType = headers.get('content-type')
  if (!range) return { status, size: length, start: 0, length, contentType }
  const { range: given, size } = parseContentRange(headers.get('content-range')) ?? {}
  if (!given || size === undefined) throw new PeerViolation('the answer does not say which bytes it brings')
  if (given.start !== range.start || given.end !== Math.min(range.end, size) || length !== given.end - given.start)
    throw new PeerViolation(
      `the answer brings ${given.start} to ${given.end} of ${size}, ${length} bytes: not what was asked`,
    )
  return { status, size, start: given.start, length, contentType }
}

function count(digits: string | undefined): number | undefined {
  const number = /^\d{1,16}$/.test(digits ?? '') ? Number(digits) : undefined
  return Number.isSafeInteger(number) ? number : undefined
}
