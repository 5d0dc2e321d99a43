/** Thrown where the disk took or gave no bytes; who gave them to it is not to blame. */
export class DiskError extends Error {
  readonly code = 'DISK_FAILED'

  /** @param cause the system's error */
  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause })
  }

  static from(error: unknown): DiskError {
    return error instanceof DiskError ? error : new DiskError(error)
  }
}
