import { sharedBuffer } from './hash-thread.ts'

/** What {@link takeBuffer} gives, in bytes. */
const bufferSize = 256 * 1024

/** Buffers kept for who takes the next: fresh memory costs more than the copy. */
const spare: Buffer[] = []
const mostSpare = 64

/** A buffer to gather bytes in that are to be written and hashed. */
export function takeBuffer(): Buffer {
  return spare.pop() ?? sharedBuffer(bufferSize)
}

/** Nobody looks at the buffer any more. */
export function giveBack(buffer: Buffer): void {
  if (spare.length < mostSpare) spare.push(buffer)
}

/** What `Uint8Array.set()` does, which is slow where the memory is shared. */
export function copyBytes(from: Uint8Array, count: number, into: Uint8Array, at: number): void {
  Buffer.from(from.buffer).copy(into, at, from.byteOffset, from.byteOffset + count)
}
