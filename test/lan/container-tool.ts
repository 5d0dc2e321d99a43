import { createHash } from 'node:crypto'
import { connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import type { Blob, Outline } from './internet-program.ts'

/** How a pull went. */
export type Pulled = {
  /** In ms since 1970. */
  readonly began: number
  readonly ended: number
  /** Why it came to no good end: an answer that was broken off, or not the right bytes. */
  readonly failed: string | undefined
}

export type PullOptions = {
  /** Of the mirror: `http://127.0.0.1:3474`. */
  readonly mirror: string
  readonly image: Outline
  /** @default 'latest' */
  readonly tag?: string
  /** How many layers at a time. @default 3, as dockerd does */
  readonly parallel?: number
  /** Begin so much later, in ms. @default 0 */
  readonly after?: number
  /** Give up when nothing has come for so long, in ms. @default 60_000 */
  readonly patience?: number
}

/** More than a manifest and its headers. */
const bufferSize = 256 * 1024

/** How much of an answer that is no good is told, in bytes. */
const longestSaid = 500

/**
 * Pulls as container tools do: HEAD of the tag, the manifest by its digest, the config, then the layers. Every byte is
 * checked, none is kept. It begins nothing anew. Many of these share a machine: it costs as little as can be.
 */
export async function pull({ mirror, image, tag = 'latest', parallel = 3, after = 0, patience = 60_000 }: PullOptions) {
  const { repository, manifest, config, layers } = image
  await setTimeout(after)
  const began = Date.now()
  const get = (kind: string, blob: Blob) =>
    fetchBlob(new URL(`/v2/${repository}/${kind}/${blob.digest}`, mirror), blob, patience)
  let failed: string | undefined
  try {
    await fetchBlob(new URL(`/v2/${repository}/manifests/${tag}`, mirror), undefined, patience)
    await get('manifests', manifest)
    await get('blobs', config)
    const waiting = [...layers]
    const lanes = Array.from({ length: parallel }, async () => {
      for (let layer: Blob | undefined; (layer = waiting.shift()); ) await get('blobs', layer)
    })
    await Promise.all(lanes)
  } catch (error) {
    failed = error instanceof Error ? error.message : String(error)
  }
  return { began, ended: Date.now(), failed } satisfies Pulled
}

/** GETs a blob and checks it, or, without one, is content with what HEAD says. @throws if anything is not as it should be */
function fetchBlob(url: URL, blob: Blob | undefined, patience: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const hash = createHash('sha256')
    let head = ''
    let headEnded = false
    let length = 0
    let said = ''
    const take = (bytes: Buffer) => {
      if (length === 0) said = bytes.toString('latin1', 0, longestSaid)
      length += bytes.length
      hash.update(bytes)
    }
    const onread = {
      buffer: Buffer.allocUnsafeSlow(bufferSize),
      callback(count: number, buffer: Uint8Array): boolean {
        const bytes = Buffer.from(buffer.buffer, buffer.byteOffset, count)
        if (headEnded) {
          take(bytes)
          return true
        }
        const before = head.length
        head += bytes.toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        if (end < 0) return true
        headEnded = true
        head = head.slice(0, end)
        take(bytes.subarray(end + 4 - before))
        return true
      },
    }
    const end = (error: Error | undefined) => {
      socket.destroy()
      const [status = 'no answer'] = head.split('\r\n', 1)
      const digest = `sha256:${hash.digest('hex')}`
      if (error) reject(new Error(`${url.pathname}: ${error.message}, after ${length} bytes`))
      else if (!/^HTTP\/1\.1 200 /.test(status)) reject(new Error(`${url.pathname}: ${status}: ${said}`))
      else if (blob && length !== blob.size) reject(new Error(`${url.pathname}: ${length} of ${blob.size} bytes`))
      else if (blob && digest !== blob.digest) reject(new Error(`${url.pathname}: bytes of ${digest}`))
      else resolve()
    }
    const socket = connect({ host: url.hostname, port: Number(url.port), onread })
    socket.setTimeout(patience, () => end(new Error(`nothing has come for ${patience} ms`)))
    socket.once('error', end)
    socket.once('end', () => end(undefined))
    const accept = 'accept: application/vnd.oci.image.manifest.v1+json, */*'
    const request = `${blob ? 'GET' : 'HEAD'} ${url.pathname} HTTP/1.1`
    socket.write(
      [request, `host: ${url.host}`, accept, 'user-agent: container-tool', 'connection: close', '', ''].join('\r\n'),
    )
  })
}
