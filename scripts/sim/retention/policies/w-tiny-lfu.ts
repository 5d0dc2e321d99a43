import type { Policy } from '../keeping.ts'
import { Shelf } from '../shelf.ts'

/** What the window has of the capacity, and what of the rest is for blobs that were asked for again. */
const windowPart = 0.01
const protectedPart = 0.8

/** Requests that are counted of a blob; and after how many of all they are halved, for each blob that there is place for. */
const mostCounted = 15
const countedFor = 10

/**
 * W-TinyLFU (Einziger, Friedman, Manes, ACM TOS 2017), with sizes taken into account by aggregated victims (Einziger,
 * Eytan, Friedman, Manes, ACM TOS 2022): what leaves a small LRU window comes in only if it was asked for more often than
 * all together that would have to go for it. Requests are counted exactly, where the paper has a sketch.
 */
export const wTinyLfu: Policy = machine => {
  const shelf = new Shelf(machine)
  const { capacity, sizes } = machine
  const windowBytes = windowPart * capacity
  const [window, probation, guarded] = [new Queue(sizes), new Queue(sizes), new Queue(sizes)]
  const counts = new Map<number, number>()
  const places = (capacity * sizes.length) / sizes.reduce((sum, size) => sum + size, 0)
  let counted = 0

  const count = (blob: number) => {
    counts.set(blob, Math.min((counts.get(blob) ?? 0) + 1, mostCounted))
    const kept = window.size + probation.size + guarded.size
    if (++counted < countedFor * Math.max(places, kept)) return
    counted >>>= 1
    for (const [each, count] of counts) {
      if (count > 1) counts.set(each, count >>> 1)
      else counts.delete(each)
    }
  }
  const countOf = (blob: number) => counts.get(blob) ?? 0
  /** Whether it comes in. */
  const admit = (blob: number): boolean => {
    let lacks = sizes[blob]! + probation.bytes + guarded.bytes - (capacity - windowBytes)
    const victims: number[] = []
    let requests = 0
    for (const queue of [probation, guarded])
      for (const victim of queue) {
        if (lacks <= 0) break
        victims.push(victim)
        lacks -= sizes[victim]!
        requests += countOf(victim)
        if (requests >= countOf(blob)) return false
      }
    if (lacks > 0) return false
    for (const victim of victims) {
      probation.delete(victim)
      guarded.delete(victim)
      shelf.remove(victim)
    }
    probation.add(blob)
    return true
  }
  return {
    has: blob => shelf.has(blob),
    hit(blob) {
      count(blob)
      if (window.has(blob)) window.add(blob)
      else {
        probation.delete(blob)
        guarded.add(blob)
        for (const oldest of guarded) {
          if (guarded.bytes <= protectedPart * (capacity - windowBytes)) break
          guarded.delete(oldest)
          probation.add(oldest)
        }
      }
    },
    miss(blob) {
      count(blob)
      if (!shelf.fits(blob)) return
      if (sizes[blob]! > windowBytes) {
        if (admit(blob)) shelf.add(blob)
        return
      }
      window.add(blob)
      shelf.add(blob)
      for (const oldest of window) {
        if (window.bytes <= windowBytes) break
        window.delete(oldest)
        if (!admit(oldest)) shelf.remove(oldest)
      }
    },
  }
}

/** Blobs from that which was added first to that which was last. */
class Queue {
  readonly #blobs = new Set<number>()
  readonly #sizes: readonly number[]
  #bytes = 0

  constructor(sizes: readonly number[]) {
    this.#sizes = sizes
  }

  get size(): number {
    return this.#blobs.size
  }

  get bytes(): number {
    return this.#bytes
  }

  [Symbol.iterator](): Iterator<number> {
    return this.#blobs.values()
  }

  has(blob: number): boolean {
    return this.#blobs.has(blob)
  }

  /** Becomes the last. */
  add(blob: number): void {
    this.delete(blob)
    this.#blobs.add(blob)
    this.#bytes += this.#sizes[blob]!
  }

  delete(blob: number): void {
    if (this.#blobs.delete(blob)) this.#bytes -= this.#sizes[blob]!
  }
}
