import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Content } from './content.ts'
import type { Exchange } from './exchange.ts'
import type { Images } from './images.ts'
import { isRead } from './registry.ts'

/** How long a signed address holds, in seconds. */
const validity = 1200

/** The CDN behind Docker Hub: blobs, at signed addresses that the registry redirects to. */
export class Cdn {
  readonly #images: Images
  #key = randomBytes(32)

  constructor(images: Images) {
    this.#images = images
  }

  /** The path and query of a blob. */
  sign({ digest }: Content): string {
    const hex = digest.slice('sha256:'.length)
    const path = `/registry-v2/docker/registry/v2/blobs/sha256/${hex.slice(0, 2)}/${hex}/data`
    const expires = String(Math.floor(Date.now() / 1000) + validity)
    return `${path}?${new URLSearchParams({ Expires: expires, Signature: this.#signature(path, expires) })}`
  }

  /** Every address that was given out is void from now on. */
  expire(): void {
    this.#key = randomBytes(32)
  }

  async handle(exchange: Exchange): Promise<void> {
    const { url, request } = exchange
    if (!isRead(exchange)) return sendXml(exchange, 405, 'MethodNotAllowed')
    // Amazon S3 and Cloudflare R2 take it for a second way of signing, and allow one only.
    if (request.headers.authorization !== undefined) return sendXml(exchange, 400, 'InvalidArgument')
    const expires = url.searchParams.get('Expires') ?? ''
    const signature = Buffer.from(url.searchParams.get('Signature') ?? '')
    const expected = Buffer.from(this.#signature(url.pathname, expires))
    const valid = signature.length === expected.length && timingSafeEqual(signature, expected)
    if (!valid || Number(expires) * 1000 < Date.now()) return sendXml(exchange, 403, 'AccessDenied')
    const digest = `sha256:${url.pathname.split('/').at(-2)}`
    for (const { blobs } of this.#images.repositories.values()) {
      const content = blobs.get(digest)
      if (!content) continue
      return exchange.sendContent(content, { 'content-type': 'application/octet-stream', etag: `"${digest}"` })
    }
    await sendXml(exchange, 404, 'NoSuchKey')
  }

  #signature(path: string, expires: string): string {
    return createHmac('sha256', this.#key).update(`${path} ${expires}`).digest('base64url')
  }
}

async function sendXml(exchange: Exchange, status: number, code: string): Promise<void> {
  await exchange.send(status, { 'content-type': 'application/xml' }, `<Error><Code>${code}</Code></Error>`)
}
