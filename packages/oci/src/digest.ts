import { createHash, type Hash } from 'node:crypto'

declare const brand: unique symbol

/** A content digest, `sha256:<64 hex>` or `sha512:<128 hex>`, checked by {@link parseDigest}. Usable as a map key. */
export type Digest = string & { readonly [brand]: 'Digest' }

export type DigestAlgorithm = 'sha256' | 'sha512'

const hexLength: Record<DigestAlgorithm, number> = { sha256: 64, sha512: 128 }

/** Thrown for text that is no digest which Shoal can verify. */
export class DigestError extends Error {
  readonly code = 'DIGEST_INVALID'
}

/**
 * Reads a digest (OCI image-spec, descriptor.md#digests): a registered algorithm and lower-case hex of its length.
 * @throws DigestError
 */
export function parseDigest(text: string): Digest {
  const colon = text.indexOf(':')
  const length = hexLength[text.slice(0, colon) as DigestAlgorithm]
  const hex = text.slice(colon + 1)
  if (colon < 0 || length === undefined || !Object.hasOwn(hexLength, text.slice(0, colon)))
    throw new DigestError(`"${text.slice(0, 80)}" is no sha256 or sha512 digest`)
  if (hex.length !== length || !/^[0-9a-f]+$/.test(hex))
    throw new DigestError(`"${text.slice(0, 160)}" needs ${length} lower-case hex digits after the colon`)
  return text as Digest
}

/** Whether {@link parseDigest} accepts the text. */
export function isDigest(text: string): text is Digest {
  try {
    parseDigest(text)
    return true
  } catch {
    return false
  }
}

export function algorithmOf(digest: Digest): DigestAlgorithm {
  return digest.slice(0, digest.indexOf(':')) as DigestAlgorithm
}

export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1)
}

export function digestFrom(algorithm: DigestAlgorithm, hex: string): Digest {
  return parseDigest(`${algorithm}:${hex}`)
}

/** The digest of the whole of `bytes`. @default algorithm sha256 */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return digestFrom(algorithm, createHash(algorithm).update(bytes).digest('hex'))
}

/** An incremental hash that checks for one digest. */
export class DigestHasher {
  readonly digest: Digest
  #hash: Hash

  constructor(digest: Digest) {
    this.digest = digest
    this.#hash = createHash(algorithmOf(digest))
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes)
  }

  /** Whether all that was given hashes to the digest. Ends the hasher. */
  matches(): boolean {
    return this.#hash.digest('hex') === hexOf(this.digest)
  }
}
