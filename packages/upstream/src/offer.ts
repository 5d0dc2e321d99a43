import { type ByteRange, parseContentRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import { essence } from '@shoal/oci/media-type'
import type { Name } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import { type Offer, type Origin, type RangeWriter, SourceError, type Want } from '@shoal/store/source'
import type { Response } from './transport.ts'

/** Who serves a blob: an endpoint. */
export interface BlobServer {
  /** For errors. */
  readonly label: string
  /** Asks for the blob, or a range of it; null for 404. @throws SourceError */
  get(want: Want, range: ByteRange | undefined, signal: AbortSignal): Promise<Response | null>
  /**
   * Told how a body that {@link get} has begun came to its end: undefined if what was wanted of it came, `revoked` if it
   * was no longer needed.
   */
  bodyEnded(error: SourceError | undefined): void
  /** The blob's size in bytes; null for 404. @throws SourceError */
  sizeOf(name: Name, digest: Digest, signal: AbortSignal): Promise<number | null>
}

/** What an endpoint has is there from the beginning. */
const neverGrows: Disposable = { [Symbol.dispose]: () => {} }

/** Small content that came with the answer. */
export class BufferedOffer implements Offer {
  readonly origin: Origin
  readonly mediaType: string
  readonly size: number
  readonly #bytes: Buffer

  constructor(origin: Origin, bytes: Buffer, mediaType: string) {
    this.origin = origin
    this.mediaType = mediaType
    this.size = bytes.length
    this.#bytes = bytes
  }

  ranges(): RangeSet {
    return new RangeSet([{ start: 0, end: this.size }])
  }

  onGrow(): Disposable {
    return neverGrows
  }

  async fetch(range: ByteRange, into: RangeWriter): Promise<void> {
    await into.write(this.#bytes.subarray(range.start, range.end))
  }

  close(): void {}
}

/** A blob at an endpoint. The answer that showed that it is there also brings its first bytes. */
export class HttpOffer implements Offer {
  readonly origin: Origin
  readonly size: number
  readonly #endpoint: BlobServer
  readonly #want: Want
  #opened: { response: Response; start: number } | undefined

  private constructor(
    endpoint: BlobServer,
    want: Want,
    origin: Origin,
    size: number,
    response: Response,
    start: number,
  ) {
    this.origin = origin
    this.size = size
    this.#endpoint = endpoint
    this.#want = { ...want, size }
    this.#opened = { response, start }
  }

  /** @throws SourceError `broken` if its size cannot be told, or is not what a manifest says */
  static async open(
    endpoint: BlobServer,
    want: Want,
    origin: Origin,
    response: Response,
    signal: AbortSignal,
  ): Promise<HttpOffer> {
    const { start, size: told } = extent(response, endpoint.label)
    const size = told ?? want.size ?? (await endpoint.sizeOf(want.name, want.digest, signal))
    if (size === null) throw new SourceError('broken', `${endpoint.label} does not tell the size of ${want.digest}`)
    if (want.size !== undefined && size !== want.size)
      throw new SourceError('broken', `${endpoint.label} has ${size} bytes for ${want.digest}, not ${want.size}`)
    return new HttpOffer(endpoint, want, origin, size, response, start)
  }

  ranges(): RangeSet {
    return new RangeSet([{ start: 0, end: this.size }])
  }

  onGrow(): Disposable {
    return neverGrows
  }

  async fetch(range: ByteRange, into: RangeWriter, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { response, start } = await this.#response(range, signal)
    let skip = range.start - start
    let left = contentLength(response) ?? Number.POSITIVE_INFINITY
    const onAbort = () => response.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await response.pipe(bytes => {
        left -= bytes.length
        if (skip >= bytes.length) {
          skip -= bytes.length
          return undefined
        }
        const written = into.write(skip > 0 ? bytes.subarray(skip) : bytes)
        skip = 0
        // What comes after the range is another's, or more than there should be.
        if (into.room === 0 && left > 0) response.abort()
        return written
      })
      this.#endpoint.bodyEnded(undefined)
    } catch (error) {
      const early = into.room > 0
      this.#endpoint.bodyEnded(early ? (error instanceof SourceError ? error : revoked()) : undefined)
      if (early) throw error
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
    if (into.room > 0)
      throw new SourceError(
        'broken',
        `${this.origin.host} ends ${into.room} bytes before the end of ${this.#want.digest}`,
      )
  }

  close(): void {
    if (this.#opened) this.#leave(this.#opened.response)
    this.#opened = undefined
  }

  #leave(response: Response): void {
    response.abort()
    this.#endpoint.bodyEnded(revoked())
  }

  async #response(range: ByteRange, signal: AbortSignal): Promise<{ response: Response; start: number }> {
    const opened = this.#opened
    this.#opened = undefined
    if (opened?.start === range.start) return opened
    if (opened) this.#leave(opened.response)
    const whole = range.start === 0 && range.end === this.size
    const response = await this.#endpoint.get(this.#want, whole ? undefined : range, signal)
    if (!response) throw new SourceError('broken', `${this.origin.host} no longer has ${this.#want.digest}`)
    try {
      const { start, size } = extent(response, this.origin.host)
      if (start <= range.start && (size === undefined || size === this.size)) return { response, start }
      throw new SourceError('broken', `${this.origin.host} answers a Range with another one`)
    } catch (error) {
      this.#leave(response)
      throw error
    }
  }
}

function revoked(): SourceError {
  return new SourceError('revoked', 'no longer needed')
}

/** Where an answer begins in its blob, and how long the blob is. */
function extent(response: Response, host: string): { start: number; size: number | undefined } {
  // A captive portal's, in the place of whatever was asked for. It may come without a length that would tell.
  if (essence(response.header('content-type') ?? '') === 'text/html')
    throw new SourceError('broken', `${host} answers with a page of HTML`)
  if (response.status === 206) {
    const answer = parseContentRange(response.header('content-range'))
    if (!answer) throw new SourceError('broken', `${host} answers 206 without a Content-Range`)
    return { start: answer.range.start, size: answer.size }
  }
  return { start: 0, size: contentLength(response) }
}

/** The length that an answer tells, in bytes; undefined if it tells none, or makes no sense. */
export function contentLength(response: Response): number | undefined {
  const header = response.header('content-length') ?? ''
  return /^\d+$/.test(header) && Number.isSafeInteger(Number(header)) ? Number(header) : undefined
}
