import { copyBytes, giveBack } from './write-buffer.ts'

/** Buffers that are kept: of one transfer, and of all. */
const most = 4
const mostInAll = 32
let inAll = 0

/** Bytes that are in the part file, and still in memory: those at `start`, in a `buffer` that is to be given back. */
export type Recent = { readonly start: number; readonly bytes: Buffer; readonly buffer: Buffer }

/** What was written last, for readers that are close behind. */
export class RecentBytes {
  /** Oldest first. */
  readonly #kept: Recent[] = []

  keep(recent: Recent): void {
    this.#kept.push(recent)
    if (++inAll > mostInAll || this.#kept.length > most) this.#forget(1)
  }

  /** Copies up to `length` bytes from `position` on. @returns how many; undefined if they are not here */
  read(into: Uint8Array, length: number, position: number): number | undefined {
    const recent = this.#kept.find(({ start, bytes }) => start <= position && position < start + bytes.length)
    if (!recent) return undefined
    const from = position - recent.start
    const count = Math.min(length, recent.bytes.length - from)
    copyBytes(recent.bytes.subarray(from), count, into, 0)
    return count
  }

  clear(): void {
    this.#forget(this.#kept.length)
  }

  #forget(count: number): void {
    const forgotten = this.#kept.splice(0, count)
    inAll -= forgotten.length
    for (const { buffer } of forgotten) giveBack(buffer)
  }
}
