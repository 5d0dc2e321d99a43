import type { RangeSet } from '@shoal/oci/range-set'
import type { Ingest } from './ingest.ts'
import type { HeldBlob } from './store.ts'

/** Parts that are compared at once, and that may wait for it: each takes up an open file, and room on the disk. */
const mostAtOnce = 2
const mostWaiting = 16

const pieceSize = 256 * 1024

type Comparison = { readonly part: Ingest; readonly open: () => Promise<HeldBlob | undefined> }

/**
 * Parts that several had given, and that were not the blob. Once that is there, they are compared with it: only those who
 * gave other bytes are told so.
 */
export class WrongParts {
  readonly #waiting: Comparison[] = []
  readonly #running = new Set<Promise<void>>()
  #closed = false

  /**
   * Compares a part in the background, and closes it.
   * @param open opens the blob; what differs from it is wrong
   */
  compare(part: Ingest, open: Comparison['open']): void {
    if (this.#closed || this.#waiting.length === mostWaiting) void closed(part)
    else this.#waiting.push({ part, open })
    this.#next()
  }

  /** Ends what is under way; who was wrong in the rest is not found out. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(this.#waiting.splice(0).map(({ part }) => closed(part)))
    await Promise.all(this.#running)
  }

  #next(): void {
    if (this.#running.size === mostAtOnce) return
    const comparison = this.#waiting.shift()
    if (!comparison) return
    const running = this.#run(comparison).finally(() => {
      this.#running.delete(running)
      this.#next()
    })
    this.#running.add(running)
  }

  async #run({ part, open }: Comparison): Promise<void> {
    try {
      const blob = await open()
      if (!blob) return
      try {
        for (const [giver, ranges] of part.ledger.givers)
          if (await this.#differs(part, blob, ranges)) giver.wrong(`gave other bytes than those of ${part.digest}`)
      } finally {
        blob.close()
      }
    } catch {
      // What a disk cannot read is nobody's fault.
    } finally {
      await closed(part)
    }
  }

  async #differs(part: Ingest, blob: HeldBlob, ranges: RangeSet): Promise<boolean> {
    const [given, right] = [Buffer.allocUnsafe(pieceSize), Buffer.allocUnsafe(pieceSize)]
    for (const range of ranges) {
      const reader = blob.read(range)
      try {
        for (let at = range.start, count: number; (count = await reader.read(right)) > 0; at += count) {
          if (this.#closed) return false
          for (let filled = 0, more: number; filled < count; filled += more) {
            more = await part.read(given.subarray(filled), count - filled, at + filled)
            if (more === 0) throw new Error(`the part file of ${part.digest} is shorter than what was written to it`)
          }
          if (given.compare(right, 0, count, 0, count) !== 0) return true
        }
      } finally {
        reader.close()
      }
    }
    return false
  }
}

async function closed(part: Ingest): Promise<void> {
  // It has no name any more, and nobody reads it.
  await part.close().catch(() => {})
}
