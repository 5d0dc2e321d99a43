import { once } from 'node:events'
import { open } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import type { Fault } from './fault.ts'

/** Offsets into a content; `to` is the first byte that's no part of it. */
export type Span = { from: number; to: number }

const chunkSize = 512 * 1024
/** How often a slow body goes on, in ms. */
const tick = 50
/** What an endless body goes on with. */
const zeros = Buffer.alloc(64 * 1024)

/**
 * Writes a part of a content as the body, whose headers have been written, and ends it; `sent` hears of each chunk. It
 * reads a file into two buffers in turn, one chunk ahead of the socket. Resolves to whether the socket took it all.
 */
export async function writeBody(
  response: ServerResponse,
  source: Buffer | string,
  { from, to }: Span,
  options: { fault: Fault | undefined; signal: AbortSignal; sent: (bytes: number) => void },
): Promise<boolean> {
  const { fault, signal, sent } = options
  const end = fault?.kind === 'cut' || fault?.kind === 'stall' ? Math.min(to, from + fault.at) : to
  const step = fault?.kind === 'slow' ? Math.max(1, Math.round((fault.bytesPerSecond * tick) / 1000)) : chunkSize
  response.flushHeaders()
  const reader = await openReader(source, Math.min(step, chunkSize, end - from))
  try {
    let written = Promise.resolve(true)
    for (let at = from; at < end && !signal.aborted; ) {
      let chunk = await reader.read(at, Math.min(step, chunkSize, end - at))
      if (fault?.kind === 'corrupt' && fault.at >= at && fault.at < at + chunk.length) {
        chunk = Buffer.from(chunk)
        chunk[fault.at - at]! ^= 0xff
      }
      if (fault?.kind === 'slow') await setTimeout((chunk.length / fault.bytesPerSecond) * 1000, undefined, { signal })
      if (!(await written) || signal.aborted) return false
      sent(chunk.length)
      written = write(response, chunk, signal)
      at += chunk.length
    }
    if (!(await written)) return false
    while (fault?.kind === 'endless') {
      if (!(await write(response, zeros, signal))) return false
      sent(zeros.length)
    }
  } finally {
    await reader.close()
  }
  if (end < to && fault?.kind === 'stall' && !signal.aborted) await once(signal, 'abort')
  if (end < to) response.destroy()
  else response.end()
  return end === to
}

type Reader = { read(at: number, length: number): Promise<Buffer>; close(): Promise<void> }

async function openReader(source: Buffer | string, size: number): Promise<Reader> {
  if (typeof source !== 'string') {
    return { read: async (at, length) => source.subarray(at, at + length), close: async () => {} }
  }
  const file = await open(source)
  let [next, other] = [Buffer.allocUnsafe(size), Buffer.allocUnsafe(size)]
  return {
    async read(at, length) {
      ;[next, other] = [other, next]
      const { bytesRead } = await file.read(other, 0, length, at)
      if (bytesRead === 0) throw new Error(`${source} is shorter than it was`)
      return other.subarray(0, bytesRead)
    },
    close: () => file.close(),
  }
}

/**
 * Resolves when the chunk is out and its buffer free, or, to false, the connection gone: a TLS connection that is
 * destroyed forgets the callbacks of its writes.
 */
function write(response: ServerResponse, chunk: Buffer, signal: AbortSignal): Promise<boolean> {
  return new Promise(resolve => {
    const gone = () => resolve(false)
    signal.addEventListener('abort', gone, { once: true })
    response.write(chunk, error => {
      signal.removeEventListener('abort', gone)
      resolve(!error)
    })
  })
}
