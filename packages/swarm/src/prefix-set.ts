import type { DigestPrefix } from './digest-prefix.ts'

/** Spreads prefixes over 32 bits. */
export type PrefixHash = (prefix: DigestPrefix) => number

/**
 * A hash that nobody else can foresee: peers choose the prefixes that they announce, and could have them all fall on one
 * place of a table.
 * @param random from 0 to 1
 */
export function seededHash(random: () => number): PrefixHash {
  const seed = uint32(random)
  const factor = uint32(random) | 1
  const otherFactor = uint32(random) | 1
  return ({ high, low }) => {
    let hash = Math.imul(high ^ seed, factor)
    hash = Math.imul(hash ^ (hash >>> 16) ^ low, otherFactor)
    hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b)
    return (hash ^ (hash >>> 16)) >>> 0
  }
}

function uint32(random: () => number): number {
  return Math.floor(random() * 2 ** 32)
}

const leastCapacity = 16

/** Prefixes for each place, at most: 8 bytes are all that a place costs, and few neighbours have to be looked at. */
const fullest = 0.7

/**
 * A set of prefixes in one typed array: open addressing with linear probing. What is removed leaves no mark, those behind
 * it move up, so that it stays as fast as it was.
 */
export class PrefixSet {
  readonly #hash: PrefixHash
  /** Two numbers a place, high and low; a place with two zeros is free. */
  #cells = new Uint32Array(2 * leastCapacity)
  /** The number of places, a power of two, less one. */
  #mask = leastCapacity - 1
  #used = 0
  /** Whether the prefix is held that looks like a free place. */
  #zero = false

  constructor(hash: PrefixHash) {
    this.#hash = hash
  }

  get size(): number {
    return this.#used + (this.#zero ? 1 : 0)
  }

  /** @param hash of the prefix, here and below */
  has(prefix: DigestPrefix, hash: number): boolean {
    return isZero(prefix) ? this.#zero : !this.#isFree(this.#find(prefix, hash))
  }

  /** @returns whether it was not there */
  add(prefix: DigestPrefix, hash: number): boolean {
    if (isZero(prefix)) return !this.#zero && (this.#zero = true)
    const place = this.#find(prefix, hash)
    if (!this.#isFree(place)) return false
    this.#cells[2 * place] = prefix.high
    this.#cells[2 * place + 1] = prefix.low
    this.#used++
    if (this.#used > (this.#mask + 1) * fullest) this.#resize(2 * (this.#mask + 1))
    return true
  }

  /** @returns whether it was there */
  delete(prefix: DigestPrefix, hash: number): boolean {
    if (isZero(prefix)) return this.#zero && !(this.#zero = false)
    const cells = this.#cells
    const mask = this.#mask
    let hole = this.#find(prefix, hash)
    if (this.#isFree(hole)) return false
    for (let place = (hole + 1) & mask; !this.#isFree(place); place = (place + 1) & mask) {
      const home = this.#hash(this.#at(place)) & mask
      // Those whose search would not pass the hole stay.
      if (((place - home) & mask) < ((place - hole) & mask)) continue
      cells[2 * hole] = cells[2 * place]!
      cells[2 * hole + 1] = cells[2 * place + 1]!
      hole = place
    }
    cells[2 * hole] = 0
    cells[2 * hole + 1] = 0
    this.#used--
    const capacity = mask + 1
    if (capacity > leastCapacity && this.#used < capacity / 8) this.#resize(capacity / 2)
    return true
  }

  *[Symbol.iterator](): Generator<DigestPrefix> {
    if (this.#zero) yield { high: 0, low: 0 }
    for (let place = 0; place <= this.#mask; place++) if (!this.#isFree(place)) yield this.#at(place)
  }

  /** Where the prefix is, or would be put. */
  #find({ high, low }: DigestPrefix, hash: number): number {
    const cells = this.#cells
    const mask = this.#mask
    let place = hash & mask
    for (;;) {
      const placeHigh = cells[2 * place]!
      const placeLow = cells[2 * place + 1]!
      if ((placeHigh === high && placeLow === low) || (placeHigh | placeLow) === 0) return place
      place = (place + 1) & mask
    }
  }

  #at(place: number): DigestPrefix {
    return { high: this.#cells[2 * place]!, low: this.#cells[2 * place + 1]! }
  }

  #isFree(place: number): boolean {
    return (this.#cells[2 * place]! | this.#cells[2 * place + 1]!) === 0
  }

  #resize(capacity: number): void {
    const before = this.#cells
    this.#cells = new Uint32Array(2 * capacity)
    this.#mask = capacity - 1
    for (let index = 0; index < before.length; index += 2) {
      const prefix = { high: before[index]!, low: before[index + 1]! }
      if (isZero(prefix)) continue
      const place = this.#find(prefix, this.#hash(prefix))
      this.#cells[2 * place] = prefix.high
      this.#cells[2 * place + 1] = prefix.low
    }
  }
}

function isZero({ high, low }: DigestPrefix): boolean {
  return (high | low) === 0
}
