import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { writeBody } from './body.ts'
import { parseRange } from './byte-range.ts'
import type { Content } from './content.ts'
import type { Fault } from './fault.ts'
import type { Entry } from './log.ts'

/** A request and its answer, kept account of in its log entry, with the fault that it is to suffer. */
export class Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly entry: Entry
  readonly fault: Fault | undefined
  /** Aborted when the connection goes before the answer is out. */
  readonly signal: AbortSignal
  readonly url: URL
  /** Go with every answer. */
  readonly headers: OutgoingHttpHeaders = {}

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    { entry, fault, signal }: { entry: Entry; fault: Fault | undefined; signal: AbortSignal },
  ) {
    this.request = request
    this.response = response
    this.entry = entry
    this.fault = fault
    this.signal = signal
    this.url = new URL(entry.path, 'http://stand-in')
  }

  async send(status: number, headers: OutgoingHttpHeaders, body: string | Buffer = ''): Promise<void> {
    const bytes = Buffer.from(body)
    await this.#answer(status, { ...headers, 'content-length': bytes.length }, bytes, { from: 0, to: bytes.length })
  }

  async sendJson(status: number, headers: OutgoingHttpHeaders, value: unknown): Promise<void> {
    await this.send(status, { 'content-type': 'application/json', ...headers }, JSON.stringify(value))
  }

  /** HTML, chunked: who answers so does not tell the length beforehand. */
  async sendPage(html: string): Promise<void> {
    this.entry.status = 200
    this.response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
    if (this.entry.method !== 'HEAD') this.entry.bytes = Buffer.byteLength(html)
    this.response.end(this.entry.method === 'HEAD' ? undefined : html)
  }

  /** An error as the distribution specification has it ("Error Codes"). */
  async sendError(status: number, code: string, message: string, headers: OutgoingHttpHeaders = {}): Promise<void> {
    await this.sendJson(status, headers, { errors: [{ code, message }] })
  }

  /** A content, or the part of it that `Range` asks for. */
  async sendContent({ source, size }: Content, headers: OutgoingHttpHeaders): Promise<void> {
    const range = this.entry.method === 'GET' ? parseRange(this.entry.range, size) : null
    if (range === 'unsatisfiable') return this.send(416, { 'content-range': `bytes */${size}` })
    const span = range ?? { from: 0, to: size }
    await this.#answer(
      range ? 206 : 200,
      {
        'accept-ranges': 'bytes',
        ...headers,
        'content-length': span.to - span.from,
        ...(range ? { 'content-range': `bytes ${span.from}-${span.to - 1}/${size}` } : {}),
      },
      source,
      span,
    )
  }

  async #answer(
    status: number,
    headers: OutgoingHttpHeaders,
    source: Buffer | string,
    span: { from: number; to: number },
  ): Promise<void> {
    if (this.signal.aborted) return
    const { response, entry, fault, signal } = this
    entry.status = status
    response.writeHead(status, faulty({ ...this.headers, ...headers }, fault))
    if (entry.method === 'HEAD') {
      response.end()
    } else if (!fault && typeof source !== 'string' && source.length <= 65536) {
      const body = source.subarray(span.from, span.to)
      entry.bytes = body.length
      response.end(body)
    } else {
      const sent = (bytes: number) => {
        entry.bytes += bytes
      }
      if (await writeBody(response, source, span, { fault, signal, sent })) entry.finished = true
    }
  }
}

/** The headers as a fault of the body has them. */
function faulty(headers: OutgoingHttpHeaders, fault: Fault | undefined): OutgoingHttpHeaders {
  const { 'content-length': length, ...others } = headers
  if (fault?.kind === 'endless') return others
  if (fault?.kind === 'length') return { ...others, 'content-length': Math.max(0, Number(length) + fault.by) }
  return headers
}
