import { type Digest, isDigest } from './digest.ts'
import { dockerHub, formatName, type Name, NameError, parseName } from './name.ts'

/** What a user types to name an image: a repository with a tag, a digest, or both (then the digest decides). */
export type Reference = { readonly name: Name; readonly tag?: string; readonly digest?: Digest }

// OCI distribution-spec 1.1, "Pulling manifests".
const tagPattern = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/

// Docker takes these for an image's id, not for a name, unless a registry comes first.
const idPattern = /^[0-9a-f]{64}$/

export function isTag(text: string): boolean {
  return tagPattern.test(text)
}

/**
 * Reads `nginx`, `nginx:1.27`, `ghcr.io/a/b@sha256:…` and so on, as Docker does (distribution/reference,
 * normalize.go): the first part is a registry if it has a dot, a colon or is `localhost`; else Docker Hub is meant.
 * Without tag and digest the tag is `latest`.
 * @throws NameError
 */
export function parseReference(text: string): Reference {
  if (idPattern.test(text)) throw new NameError(`"${text}" is an image's id, not its name`)
  const at = text.indexOf('@')
  const digest = at < 0 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !isDigest(digest)) throw new NameError(`"${digest.slice(0, 80)}" is no digest`)
  const rest = at < 0 ? text : text.slice(0, at)
  const colon = rest.indexOf(':', rest.lastIndexOf('/') + 1)
  const tag = colon < 0 ? undefined : rest.slice(colon + 1)
  if (tag !== undefined && !isTag(tag)) throw new NameError(`"${tag.slice(0, 80)}" is no tag`)
  const path = colon < 0 ? rest : rest.slice(0, colon)
  const slash = path.indexOf('/')
  const first = path.slice(0, Math.max(slash, 0))
  const name =
    slash > 0 && (/[.:]/.test(first) || first.toLowerCase() === 'localhost')
      ? parseName(first, path.slice(slash + 1))
      : parseName(dockerHub, path)
  return {
    name,
    ...(tag === undefined && digest === undefined ? { tag: 'latest' } : tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  }
}

/** The same of text that need not be one: then undefined. */
export function readReference(text: string): Reference | undefined {
  try {
    return parseReference(text)
  } catch (error) {
    if (error instanceof NameError) return undefined
    throw error
  }
}

/** The whole reference with nothing left out, `docker.io/library/nginx:latest`. {@link parseReference} reads it back. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`
  return `${formatName(reference.name)}${tag}${digest}`
}

/** As Docker shows it: `nginx:latest` for `docker.io/library/nginx:latest`. */
export function familiarReference(reference: Reference): string {
  return formatReference(reference).replace(/^docker\.io\/(?:library\/(?=[^/]+$))?/, '')
}
