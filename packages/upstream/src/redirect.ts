import { SourceError } from '@shoal/store/source'

/** Whether a status sends a GET or HEAD to another URL (RFC 9110, 15.4). */
export function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308
}

/** Where a `Location` leads. @throws SourceError `broken` if it leads nowhere */
export function redirectTarget(from: URL, location: string | undefined): URL {
  if (location === undefined || !URL.canParse(location, from.href))
    throw new SourceError('broken', `${from.host} redirects to nowhere`)
  return new URL(location, from)
}
