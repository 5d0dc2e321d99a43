import type { ByteRange } from './byte-range.ts'

/** A set of bytes, held as sorted ranges that neither overlap nor touch. */
export class RangeSet {
  #ranges: { start: number; end: number }[] = []

  constructor(ranges: Iterable<ByteRange> = []) {
    for (const range of ranges) this.add(range)
  }

  /** The number of bytes in the set. */
  get total(): number {
    return this.#ranges.reduce((sum, range) => sum + range.end - range.start, 0)
  }

  add({ start, end }: ByteRange): void {
    if (end <= start) return
    const first = this.#after(start - 1)
    let next = first
    while (next < this.#ranges.length && this.#ranges[next]!.start <= end) next++
    const [low, high] = [this.#ranges[first], this.#ranges[next - 1]]
    if (next - first === 1 && low && low.start <= start) {
      if (end > low.end) low.end = end
      return
    }
    const merged = next > first ? { start: Math.min(start, low!.start), end: Math.max(end, high!.end) } : { start, end }
    this.#ranges.splice(first, next - first, merged)
  }

  remove({ start, end }: ByteRange): void {
    if (end <= start) return
    this.#ranges = this.#ranges
      .flatMap(range => [
        ...(range.start < start ? [{ start: range.start, end: Math.min(range.end, start) }] : []),
        ...(range.end > end ? [{ start: Math.max(range.start, end), end: range.end }] : []),
      ])
      .filter(range => range.start < range.end)
  }

  /** Whether every byte of `range` is in the set. */
  covers({ start, end }: ByteRange): boolean {
    return end <= start || this.reach(start) >= end
  }

  /** The end of the run of bytes in the set that begins at `position`; `position` itself if that byte is missing. */
  reach(position: number): number {
    const range = this.#ranges[this.#after(position)]
    return range && range.start <= position && position < range.end ? range.end : position
  }

  /** The parts of `within` that are missing, in order. */
  gaps({ start, end }: ByteRange): ByteRange[] {
    const gaps: ByteRange[] = []
    let from = start
    for (let i = this.#after(start); from < end; i++) {
      const range = this.#ranges[i]
      if (!range || range.start >= end) {
        gaps.push({ start: from, end })
        break
      }
      if (range.start > from) gaps.push({ start: from, end: range.start })
      from = range.end
    }
    return gaps
  }

  [Symbol.iterator](): IterableIterator<ByteRange> {
    return this.#ranges.map(({ start, end }) => ({ start, end }))[Symbol.iterator]()
  }

  toJSON(): [number, number][] {
    return this.#ranges.map(({ start, end }) => [start, end])
  }

  /** The index of the first range that ends after `position`. */
  #after(position: number): number {
    let low = 0
    let high = this.#ranges.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#ranges[middle]!.end > position) high = middle
      else low = middle + 1
    }
    return low
  }
}
