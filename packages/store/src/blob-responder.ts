import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { type ByteRange, formatContentRange, parseRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import type { Reader } from './reader.ts'

export type Representation = {
  readonly digest: Digest
  readonly size: number
  readonly contentType: string
  /** Whether the same URL may come to mean other content, as a tag's may. @default false */
  readonly moves?: boolean
}

/** How to answer: a status, its headers, and which bytes to send (none for 304, 416 and HEAD). */
export type Answer = {
  readonly status: 200 | 206 | 304 | 416
  readonly headers: Readonly<Record<string, string | number>>
  readonly range?: ByteRange
}

/** The answer to a conditional or range request for content that never changes (RFC 9110, 13.2.2). */
export function answer(
  method: string,
  request: IncomingHttpHeaders,
  { digest, size, contentType, moves = false }: Representation,
): Answer {
  const etag = `"${digest}"`
  const common = {
    'docker-content-digest': digest,
    etag,
    'accept-ranges': 'bytes',
    'cache-control': moves ? 'no-cache' : 'max-age=31536000, immutable',
  }
  if (matches(request['if-none-match'], etag)) return { status: 304, headers: common }
  const whole = { start: 0, end: size }
  const conditional = request['if-range']
  // Range is defined for GET alone (RFC 9110, 14.2).
  const range =
    method === 'GET' && (conditional === undefined || conditional === etag)
      ? parseRange(request.range, size)
      : undefined
  if (range === 'unsatisfiable')
    return {
      status: 416,
      headers: { ...common, 'content-range': formatContentRange(range, size), 'content-length': 0 },
    }
  const { start, end } = range ?? whole
  const headers = {
    ...common,
    'content-type': contentType,
    'content-length': end - start,
    ...(range && { 'content-range': formatContentRange(range, size) }),
  }
  return { status: range ? 206 : 200, headers, ...(method === 'GET' && { range: range ?? whole }) }
}

function matches(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header.split(',').some(tag => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}

/** What a response that makes no progress is given, in ms: a client may be slow to unpack, but not this slow. */
const patience = 120_000

const largeBuffer = 512 * 1024
const smallBuffer = 64 * 1024

/** Above this many responses at once each has small buffers, so that memory stays bounded. */
const fewResponses = 24

/** Sends bodies, with buffers that serve one response after another. */
export class BodySender {
  readonly #large: Buffer[] = []
  readonly #small: Buffer[] = []
  #active = 0

  /**
   * Sends all that `reader` has as the body of a response whose head is written, and ends it. The next piece is read
   * while the last is on its way.
   * @returns the bytes that were handed to the connection; if the reader fails, the connection is broken off, so that
   *   the client sees that it does not have all
   */
  async send(response: ServerResponse, reader: Reader): Promise<{ bytes: number; error?: unknown }> {
    const spare = this.#active++ < fewResponses ? this.#large : this.#small
    const size = spare === this.#large ? largeBuffer : smallBuffer
    const buffers = [0, 1].map(() => spare.pop() ?? Buffer.allocUnsafeSlow(size)) as [Buffer, Buffer]
    let bytes = 0
    let writing: Promise<void> | undefined
    const onClose = () => reader.cancel()
    // Not the response: behind another answer on the same connection it has none of its own, and never closes.
    const connection = response.req.socket
    connection.once('close', onClose)
    if (connection.destroyed) reader.cancel()
    try {
      response.flushHeaders()
      for (let turn = 0; ; turn ^= 1) {
        const buffer = buffers[turn as 0 | 1]
        const count = await reader.read(buffer)
        await writing
        writing = undefined
        if (count === 0) break
        bytes += count
        writing = write(response, count < buffer.length ? buffer.subarray(0, count) : buffer)
        writing.catch(() => {})
      }
      response.end()
      // A buffer that is given back may be overwritten at once: only when its bytes have left.
      for (const buffer of buffers) if (spare.length < 2 * fewResponses) spare.push(buffer)
      return { bytes }
    } catch (error) {
      response.destroy()
      return { bytes, error }
    } finally {
      this.#active--
      connection.off('close', onClose)
      reader.close()
    }
  }
}

/** Resolves once the bytes have left for the kernel, so that their buffer can be used again. */
function write(response: ServerResponse, bytes: Buffer): Promise<void> {
  const { socket } = response
  const connection = response.req.socket
  if (connection.destroyed) return Promise.reject(new Error('the client has left'))
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => connection.destroy(), patience)
    const onClose = () => finish(new Error('the client has left'))
    const finish = (error?: Error | null) => {
      clearTimeout(timer)
      connection.off('close', onClose)
      if (error) reject(error)
      else resolve()
    }
    connection.once('close', onClose)
    // The head has announced the length, so the bytes can go past node:http, which would look at each piece again.
    // Behind another answer on the same connection there is no socket yet.
    if (socket) socket.write(bytes, finish)
    else response.write(bytes, finish)
  })
}

/** Calls `done` once the answer has left or never will: the client may still have to receive it. */
export function whenOver(
  { request: { socket }, response }: { readonly request: IncomingMessage; readonly response: ServerResponse },
  done: () => void,
): void {
  if (response.closed || socket.destroyed) return void done()
  const onClose = () => {
    response.off('close', onClose)
    socket.off('close', onClose)
    done()
  }
  response.once('close', onClose)
  // Behind another answer on the same connection it has none of its own, and never closes.
  socket.once('close', onClose)
}
