import type { ByteRange } from '@shoal/oci/byte-range'
import type { Reader } from './reader.ts'
import { SourceError } from './source.ts'

/** What a reader asks of its transfer. */
export type TransferReaderEvents = {
  visible(reader: TransferReader): number
  /** Told when it has had more bytes. */
  had(): void
  /** What is in memory; undefined if it must come from the file. */
  recent(buffer: Uint8Array, length: number, position: number): number | undefined
  /** Undefined if they are to be read anew. */
  file(buffer: Uint8Array, length: number, position: number): Promise<number | undefined>
  wait(): Promise<void>
  wake(): void
  wanted(position: number): void
  left(reader: TransferReader): void
}

/** Follows what arrives of one range, at its own pace. */
export class TransferReader implements Reader {
  position: number
  readonly end: number
  /** Whether it has had bytes, or is about to. */
  started = false
  /** Whether it waits for bytes. */
  waits = false
  readonly #events: TransferReaderEvents
  #failure: Error | undefined

  constructor(range: ByteRange, events: TransferReaderEvents) {
    this.position = range.start
    this.end = range.end
    this.#events = events
  }

  async read(buffer: Uint8Array): Promise<number> {
    for (;;) {
      if (this.#failure) throw this.#failure
      if (this.position === this.end) return 0
      const ready = Math.min(this.#events.visible(this) - this.position, buffer.length)
      if (ready > 0) {
        this.started = true
        const count =
          this.#events.recent(buffer, ready, this.position) ?? (await this.#events.file(buffer, ready, this.position))
        if (this.#failure) throw this.#failure
        if (count === undefined) continue
        if (count === 0) throw new SourceError('broken', 'the part file is shorter than what was written to it')
        this.position += count
        this.#events.had()
        return count
      }
      const change = this.#events.wait()
      this.waits = true
      this.#events.wanted(this.position)
      await change
      this.waits = false
    }
  }

  fail(error: Error): void {
    this.#failure ??= error
  }

  cancel(): void {
    this.fail(new SourceError('revoked', 'the reader was cancelled'))
    this.#events.wake()
  }

  close(): void {
    this.#events.left(this)
  }
}
