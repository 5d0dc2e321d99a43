import type { Span } from './body.ts'

/**
 * The one range of a `Range` header (RFC 9110, 14.1.2). `null`: none, or several, or none that is well formed; the
 * header is then ignored (14.2).
 */
export function parseRange(header: string | undefined, size: number): Span | 'unsatisfiable' | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '')
  if (!match) return null
  const [, first, last] = match
  if (!first) {
    if (!last) return null
    return Number(last) === 0 || size === 0 ? 'unsatisfiable' : { from: Math.max(0, size - Number(last)), to: size }
  }
  const from = Number(first)
  if (last && Number(last) < from) return null
  return from >= size ? 'unsatisfiable' : { from, to: last ? Math.min(size, Number(last) + 1) : size }
}
