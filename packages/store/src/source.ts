import type { ByteRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import type { Name } from '@shoal/oci/name'
import type { RangeSet } from '@shoal/oci/range-set'
import type { Visibility } from './index.ts'

/** Content that is looked for. A manifest is a blob that registries serve under another path. */
export type Want = {
  readonly name: Name
  readonly digest: Digest
  readonly kind: 'manifest' | 'blob'
  /** In bytes, where a manifest told it. */
  readonly size?: number
  /** The first byte that is missing: an offer may begin there at once. @default 0 */
  readonly at?: number
  /** Where what is missing ends: an offer may end there. @default the end of it */
  readonly until?: number
  /** Peers who are not to be asked: what they took part in giving was wrong. @default none */
  readonly without?: ReadonlySet<Giver>
}

/** What of the content to ask for at once; undefined for all of it, as always of a manifest. */
export function rangeOf({ kind, at = 0, until, size }: Want): ByteRange | undefined {
  const end = until ?? size ?? Number.MAX_SAFE_INTEGER
  return kind === 'blob' && (at > 0 || end < (size ?? end)) ? { start: at, end } : undefined
}

/** Who gave content. */
export type Origin = {
  readonly kind: 'peer' | 'upstream'
  /** An endpoint's host, or a peer's name. */
  readonly host: string
  readonly visibility: Visibility
}

/** One who gives bytes: an endpoint, or a single peer. The same one is the same object, as long as the process lives. */
export interface Giver {
  /** What peers give is not to be read before the whole blob is verified. */
  readonly kind: Origin['kind']
  /** For logs and errors. */
  readonly label: string
  /** Told once it is certain that bytes it gave, or a size it told, are not those of a digest; maybe more than once. */
  wrong(reason: string): void
}

/** Takes the bytes of one leased range, in order. */
export interface RangeWriter {
  /** How many bytes of the range are still to come; may fall when a part of it is leased to another. */
  readonly room: number
  /**
   * Takes a copy of as much of `bytes` as there is room for.
   * @returns nothing to go on at once; a promise to wait for first
   * @throws SourceError `revoked` if the lease has ended; the disk's error if the bytes could not be written
   */
  write(bytes: Uint8Array): Promise<void> | undefined
  /**
   * Tells who gives what is written from here on, until it is told anew.
   * @param size of the whole blob, in bytes, as that giver says; who differs there need not give any bytes
   * @default {@link Offer.giver}, or the source itself
   */
  from(giver: Giver, size?: number): void
}

/** Somebody who can give a blob, or parts of it. */
export interface Offer {
  readonly origin: Origin
  /** Who says so, and gives what nobody else is named for ({@link RangeWriter.from}). @default the source itself */
  readonly giver?: Giver
  /** In bytes; undefined if it will not be known before the end. */
  readonly size?: number
  /** The `Content-Type` of a manifest. */
  readonly mediaType?: string
  /** What can be had from this offer now. */
  ranges(): RangeSet
  /** Calls `grown` whenever {@link ranges} grows. */
  onGrow(grown: () => void): Disposable
  /**
   * Gets a range and writes it, until it is all there or `into` has no room left.
   * @throws SourceError if it ends early
   */
  fetch(range: ByteRange, into: RangeWriter, signal: AbortSignal): Promise<void>
  /** Ends what the offer holds open. */
  close(): void
}

/** Where content may be found. The order of sources is a list. */
export interface Source {
  /** For logs and errors: an endpoint's host. */
  readonly label: string
  /** Of all that it offers. @default `upstream` */
  readonly kind?: Origin['kind']
  /**
   * @returns an offer; null if the source says that it does not have the content
   * @throws SourceError if it could not say
   */
  find(want: Want, signal: AbortSignal): Promise<Offer | null>
}

/**
 * Why a source gave nothing:
 * `unreachable` (no connection, no name), `timeout`, `denied` (401, 403, a token refused), `limited` (429),
 * `failing` (5xx), `broken` (an answer that makes no sense, or ends early), `skipped` (its circuit is open),
 * `revoked` (the lease was taken back).
 */
export type SourceErrorCode =
  | 'unreachable'
  | 'timeout'
  | 'denied'
  | 'limited'
  | 'failing'
  | 'broken'
  | 'skipped'
  | 'revoked'

export class SourceError extends Error {
  readonly code: SourceErrorCode

  constructor(code: SourceErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
