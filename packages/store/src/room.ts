import type { Digest } from '@shoal/oci/digest'
import { DiskError } from './disk-error.ts'

/** Sees to it that there is room for what arrives. Sizes in bytes. */
export interface Room {
  /** Makes room for a blob that begins to arrive. @throws NoRoomError if it must pass through */
  make(digest: Digest, size: number): Promise<void>
  /** Whether a blob that has arrived is to be kept; if so, there is room for it. */
  admits(digest: Digest, size: number, kind: 'manifest' | 'blob'): Promise<boolean>
}

/** Thrown for a blob that there is no room for: it passes through, and is not stored. */
export class NoRoomError extends DiskError {
  /** `blob`: it is too large for any store of this size; `disk`: the disk has too little left, and nothing may go. */
  readonly lacks: 'blob' | 'disk'

  constructor(lacks: NoRoomError['lacks'], message: string) {
    super(new Error(message))
    this.lacks = lacks
  }
}
