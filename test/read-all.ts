import type { Reader } from '@shoal/store/reader'

/** All that a reader gives, in reads of at most `size` bytes. Closes it, also if it fails. */
export async function readAll(reader: Reader, size = 100_000): Promise<Buffer> {
  const pieces: Buffer[] = []
  try {
    for (;;) {
      const buffer = Buffer.alloc(size)
      const count = await reader.read(buffer)
      if (count === 0) return Buffer.concat(pieces)
      pieces.push(buffer.subarray(0, count))
    }
  } finally {
    reader.close()
  }
}
