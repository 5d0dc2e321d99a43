import { abortable } from '@shoal/store/abortable'
import type { Reader } from '@shoal/store/reader'

/** How far a pace may run ahead of its rate, in s: after a rest this much goes at once. */
const burst = 1 / 8

export type PaceOptions = {
  /** Bytes a second. */
  readonly rate: number
  /** In ms, never going back. */
  readonly now: () => number
  /** Calls `then` after so many ms. @default setTimeout */
  readonly after?: (ms: number, then: () => void) => void
}

/** Keeps those who share it to so many bytes a second in all. Turns are given in the order in which they are asked for. */
export class Pace {
  readonly #rate: number
  readonly #now: () => number
  readonly #after: (ms: number, then: () => void) => void
  /** When all that was let go has had its time, in ms. */
  #paid = Number.NEGATIVE_INFINITY

  constructor({ rate, now, after = (ms, then) => void setTimeout(then, ms).unref() }: PaceOptions) {
    this.#rate = rate
    this.#now = now
    this.#after = after
  }

  /** As many bytes as should be taken at a time at most, so that they flow evenly, and all have their turn. */
  get piece(): number {
    return Math.max(1, Math.floor(this.#rate * burst))
  }

  /** @returns nothing to go on at once with so many bytes; a promise to wait for first */
  take(bytes: number): Promise<void> | undefined {
    const now = this.#now()
    const turn = Math.max(this.#paid, now - burst * 1000)
    this.#paid = turn + (bytes / this.#rate) * 1000
    if (turn <= now) return undefined
    return new Promise(resolve => this.#after(turn - now, resolve))
  }
}

/** A reader that reads no faster than a pace allows. */
export function paced(reader: Reader, pace: Pace): Reader {
  const cancelled = new AbortController()
  return {
    async read(buffer) {
      const count = await reader.read(buffer.subarray(0, pace.piece))
      const turn = count > 0 ? pace.take(count) : undefined
      if (turn) await abortable(turn, cancelled.signal)
      return count
    },
    cancel() {
      cancelled.abort()
      reader.cancel()
    },
    close: () => reader.close(),
  }
}
