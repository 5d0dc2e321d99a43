import type { Machine } from './keeping.ts'

/** Blobs that are kept, in the order in which they were put there. */
export class Shelf {
  readonly #machine: Machine
  readonly #blobs = new Set<number>()
  #bytes = 0

  constructor(machine: Machine) {
    this.#machine = machine
  }

  get oldest(): number | undefined {
    return this.#blobs.values().next().value
  }

  /** Of all together. */
  get bytes(): number {
    return this.#bytes
  }

  has(blob: number): boolean {
    return this.#blobs.has(blob)
  }

  /** Whether it would fit if nothing else were there. */
  fits(blob: number): boolean {
    return this.#machine.sizes[blob]! <= this.#machine.capacity
  }

  /** Whether others have to go for it. */
  lacks(blob: number): boolean {
    return this.#bytes + this.#machine.sizes[blob]! > this.#machine.capacity
  }

  add(blob: number): void {
    this.#blobs.add(blob)
    this.#bytes += this.#machine.sizes[blob]!
    this.#machine.changed(blob, true)
  }

  remove(blob: number): void {
    if (!this.#blobs.delete(blob)) return
    this.#bytes -= this.#machine.sizes[blob]!
    this.#machine.changed(blob, false)
  }

  /** It becomes the newest. */
  renew(blob: number): void {
    this.#blobs.delete(blob)
    this.#blobs.add(blob)
  }
}
