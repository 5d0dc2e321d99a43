import type { ByteRange } from '@shoal/oci/byte-range'
import type { RangeSet } from '@shoal/oci/range-set'
import type { Reader } from './reader.ts'
import type { Giver, Want } from './source.ts'

/** A transfer, as a download sees it that is shared with other machines. */
export interface JointTransfer {
  /** What is there, and nobody has verified yet. */
  readonly have: RangeSet
  /** Has the sources be asked for these ranges, and for no others. */
  fetch(ranges: RangeSet): void
  /**
   * Adds what another machine gave, at the beginning if it is `size` bytes long. Resolves once it can be read; what is
   * there by then is left as it is.
   * @throws SourceError `revoked`, the disk's error
   */
  write(bytes: Uint8Array, start: number, giver: Giver, size: number): Promise<void>
  /** Reads what is there, for who checks it. */
  peek(range: ByteRange): Reader
  /** Whether the sources are likely to answer. */
  line(): boolean
}

/** One download that is shared with other machines that want the same. */
export interface JointDownload {
  /** Bytes have come from the sources. */
  arrived(range: ByteRange): void
  /** The sources have nothing to give any more. */
  exhausted(): void
  /** Whether others are known to fetch it. */
  readonly alive: boolean
  /** It is over here; others may still have it from here if it is whole. */
  end(whole: boolean): void
}

/** Machines that want the same at once, and settle who asks the sources for what. */
export interface JointDownloads {
  /** @returns undefined if this machine had better go by itself */
  join(want: Want, transfer: JointTransfer): JointDownload | undefined
}
