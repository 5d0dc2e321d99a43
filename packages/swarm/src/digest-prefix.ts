import { type Digest, hexOf } from '@shoal/oci/digest'

/** So many bytes of a hash tell the blobs of an office apart; who is asked for another blob says that it lacks it. */
export const prefixLength = 8

/** The first 8 bytes of a digest's hash, as two unsigned 32-bit numbers, big-endian. */
export type DigestPrefix = { readonly high: number; readonly low: number }

export function prefixOf(digest: Digest): DigestPrefix {
  const hex = hexOf(digest)
  return { high: Number.parseInt(hex.slice(0, 8), 16), low: Number.parseInt(hex.slice(8, 16), 16) }
}

/** @param offset in bytes; 8 must follow */
export function readPrefix(bytes: Uint8Array, offset: number): DigestPrefix {
  return { high: readUint32(bytes, offset), low: readUint32(bytes, offset + 4) }
}

/** @param offset in bytes; there must be room for 8 */
export function writePrefix({ high, low }: DigestPrefix, bytes: Uint8Array, offset: number): void {
  writeUint32(high, bytes, offset)
  writeUint32(low, bytes, offset + 4)
}

/** The prefixes of some digests, one after another. */
export function prefixesOf(digests: readonly Digest[]): Uint8Array {
  const bytes = new Uint8Array(digests.length * prefixLength)
  for (const [index, digest] of digests.entries()) writePrefix(prefixOf(digest), bytes, index * prefixLength)
  return bytes
}

// Several times as fast as a DataView made for each array.
function readUint32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0
}

function writeUint32(value: number, bytes: Uint8Array, offset: number): void {
  bytes[offset] = value >>> 24
  bytes[offset + 1] = value >>> 16
  bytes[offset + 2] = value >>> 8
  bytes[offset + 3] = value
}
