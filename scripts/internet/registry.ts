import type { OutgoingHttpHeaders } from 'node:http'
import type { Content } from './content.ts'
import { mediaType } from './content.ts'
import type { Exchange } from './exchange.ts'
import type { Referrer } from './images.ts'

// What both registries have in common: the paths and answers of the OCI distribution specification.

export type Route =
  | { kind: 'ping' }
  | { kind: 'manifests' | 'blobs' | 'referrers'; repository: string; reference: string }
  | { kind: 'tags'; repository: string }

export const version: OutgoingHttpHeaders = { 'docker-distribution-api-version': 'registry/2.0' }

export function parseRoute(path: string): Route | null {
  if (path === '/v2/' || path === '/v2') return { kind: 'ping' }
  const match =
    /^\/v2\/([a-z0-9._/-]+)\/(?:(manifests|blobs|referrers)\/([A-Za-z0-9_][A-Za-z0-9._:+-]*)|tags\/list)$/.exec(path)
  if (!match) return null
  const [, repository = '', kind, reference = ''] = match
  if (kind === 'manifests' || kind === 'blobs' || kind === 'referrers') return { kind, repository, reference }
  return { kind: 'tags', repository }
}

export function isRead(exchange: Exchange): boolean {
  return exchange.entry.method === 'GET' || exchange.entry.method === 'HEAD'
}

export async function sendManifest(
  exchange: Exchange,
  content: Content | undefined,
  headers: OutgoingHttpHeaders = {},
): Promise<void> {
  if (!content) return exchange.sendError(404, 'MANIFEST_UNKNOWN', 'manifest unknown', headers)
  const { mediaType, digest, source } = content
  const own = { 'content-type': mediaType, 'docker-content-digest': digest, etag: `"${digest}"` }
  await exchange.send(200, { ...own, ...headers }, source)
}

export async function sendBlob(exchange: Exchange, content: Content | undefined): Promise<void> {
  if (!content) return exchange.sendError(404, 'BLOB_UNKNOWN', 'blob unknown to registry')
  await exchange.sendContent(content, {
    'content-type': 'application/octet-stream',
    'docker-content-digest': content.digest,
    etag: `"${content.digest}"`,
  })
}

/** The tags in lexical order, `n` at a time after `last`, with a link to the next page ("Listing Tags"). */
export async function sendTags(exchange: Exchange, repository: string, tags: Iterable<string>): Promise<void> {
  const query = exchange.url.searchParams
  const last = query.get('last')
  const rest = [...tags].sort().filter(tag => last === null || tag > last)
  const n = query.has('n') ? Number(query.get('n')) : rest.length
  if (!Number.isInteger(n) || n < 0) {
    return exchange.sendError(400, 'PAGINATION_NUMBER_INVALID', 'invalid number of results requested')
  }
  const page = rest.slice(0, n)
  const next = new URLSearchParams({ n: String(n), last: page.at(-1) ?? '' })
  const headers =
    page.length > 0 && page.length < rest.length ? { link: `</v2/${repository}/tags/list?${next}>; rel="next"` } : {}
  await exchange.sendJson(200, headers, { name: repository, tags: page })
}

/** An index of the artifacts that refer to a digest; an empty one if there are none ("Listing Referrers"). */
export async function sendReferrers(exchange: Exchange, referrers: Referrer[]): Promise<void> {
  const type = exchange.url.searchParams.get('artifactType')
  const manifests = referrers.filter(({ artifactType }) => type === null || artifactType === type)
  const headers = {
    'content-type': mediaType.index,
    ...(type === null ? {} : { 'oci-filters-applied': 'artifactType' }),
  }
  await exchange.sendJson(200, headers, { schemaVersion: 2, mediaType: mediaType.index, manifests })
}
