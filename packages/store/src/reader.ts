/** Reads one range of a blob from its start to its end. */
export interface Reader {
  /**
   * Fills as much of `buffer` as there is, waiting for at least one byte.
   * @returns how many bytes; 0 at the end of the range
   */
  read(buffer: Uint8Array): Promise<number>
  /** Makes a {@link read} that waits, and any later one, fail. */
  cancel(): void
  /** Must be called when no {@link read} is under way, also after an error. */
  close(): void
}

/** Something of a known size, in bytes, that is read by position. */
export interface Positioned {
  readonly size: number
  /** Reads up to `length` bytes at `position`; resolves to how many, 0 if there are none. */
  read(buffer: Uint8Array, length: number, position: number): Promise<number>
}

/** Reads all of something; undefined if there is less than it should have. */
export async function readWhole(source: Positioned): Promise<Buffer | undefined> {
  const all = Buffer.allocUnsafeSlow(source.size)
  for (let at = 0, count: number; at < all.length; at += count) {
    count = await source.read(all.subarray(at), all.length - at, at)
    if (count === 0) return undefined
  }
  return all
}

/** Reads on until `into` is full, or there is no more. @returns how many bytes */
export async function fill(into: Uint8Array, reader: Reader): Promise<number> {
  let filled = 0
  for (let count: number; (count = await reader.read(into.subarray(filled))) > 0; ) filled += count
  return filled
}
