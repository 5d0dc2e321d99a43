/** The longest list, in bytes: more do not fit in the head of a request. */
const longest = 4096

const text = /^[\w-]+$/

/** As a header has it: base64url without padding (RFC 4648, 5). @returns undefined for more than a header may have */
export function formatBits(bits: Uint8Array): string | undefined {
  return bits.length > longest ? undefined : Buffer.from(bits).toString('base64url')
}

/** @returns undefined for what is no such list */
export function parseBits(header: string | undefined): Uint8Array | undefined {
  if (header === undefined || !text.test(header)) return undefined
  const bits = Buffer.from(header, 'base64url')
  return bits.length > longest ? undefined : bits
}
