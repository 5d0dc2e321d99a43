/** Bytes from `start` up to, not including, `end`; `0 <= start < end`. */
export type ByteRange = { readonly start: number; readonly end: number }

/**
 * Reads a `Range` header for content of `size` bytes (RFC 9110, 14.1.2 and 14.2).
 * @returns the one range to answer with 206; `'unsatisfiable'` for 416; `undefined` to answer 200 with the whole: no
 *   header, a unit or syntax that is not known, several ranges, or the last bytes of content that has none (which is
 *   satisfiable, but no `Content-Range` can say so)
 */
export function parseRange(header: string | undefined, size: number): ByteRange | 'unsatisfiable' | undefined {
  const match = header === undefined ? null : /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(header)
  if (!match) return undefined
  const [, first = '', last = ''] = match
  if (first === '') {
    if (last === '') return undefined
    if (Number(last) === 0) return 'unsatisfiable'
    return size > 0 ? { start: Math.max(size - Number(last), 0), end: size } : undefined
  }
  const start = Number(first)
  if (last !== '' && Number(last) < start) return undefined
  if (start >= size) return 'unsatisfiable'
  return { start, end: last === '' ? size : Math.min(Number(last) + 1, size) }
}

/** A `Range` header that asks for `range`; open-ended where it reaches the end of the content. */
export function formatRange(range: ByteRange, size?: number): string {
  return `bytes=${range.start}-${range.end === size ? '' : range.end - 1}`
}

/** A `Content-Range` header (RFC 9110, 14.4). */
export function formatContentRange(range: ByteRange | 'unsatisfiable', size: number): string {
  return range === 'unsatisfiable' ? `bytes */${size}` : `bytes ${range.start}-${range.end - 1}/${size}`
}

/** Reads a 206's `Content-Range`; `size` is undefined where the header says `*`. Undefined for what makes no sense. */
export function parseContentRange(header: string | undefined): { range: ByteRange; size?: number } | undefined {
  const match = header === undefined ? null : /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(header.trim())
  if (!match) return undefined
  const range = { start: Number(match[1]), end: Number(match[2]) + 1 }
  if (range.end <= range.start || !Number.isSafeInteger(range.end)) return undefined
  if (match[3] === '*') return { range }
  const size = Number(match[3])
  return range.end <= size && Number.isSafeInteger(size) ? { range, size } : undefined
}
