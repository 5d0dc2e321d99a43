/** What a manifest points to, and how much of it makes it worth keeping: an image all, an index one platform of those. */
export type Parts = { readonly ids: readonly string[]; readonly needs: 'all' | 'any' }

/** A blob that is held. Sizes in bytes, times in ms since the epoch. */
export type Item = {
  readonly id: string
  readonly size: number
  readonly parts: Parts | undefined
  /** When it was stored, or read last, as far as is known. */
  usedAt: number
  /** Where it stands in {@link Inventory.items}. */
  place: number
}

/** What is held, and which manifest needs what. */
export class Inventory {
  readonly #items = new Map<string, Item>()
  readonly #list: Item[] = []
  /** The manifests that are held and point to something, which need not be held. */
  readonly #parents = new Map<string, Set<Item>>()
  #bytes = 0

  /** In no order that means anything; it changes with what is held. */
  get items(): readonly Item[] {
    return this.#list
  }

  /** Of all items together. */
  get bytes(): number {
    return this.#bytes
  }

  get(id: string): Item | undefined {
    return this.#items.get(id)
  }

  /** The manifests that are held and point to an item. */
  parentsOf(id: string): ReadonlySet<Item> {
    return this.#parents.get(id) ?? none
  }

  /** Adds an item, or takes the place of one: that something is a manifest may be found out later. */
  add(id: string, size: number, parts: Parts | undefined, usedAt: number): void {
    this.remove(id)
    const item: Item = { id, size, parts, usedAt, place: this.#list.length }
    this.#items.set(id, item)
    this.#list.push(item)
    this.#bytes += size
    for (const part of parts?.ids ?? []) {
      const parents = this.#parents.get(part)
      if (parents) parents.add(item)
      else this.#parents.set(part, new Set([item]))
    }
  }

  remove(id: string): void {
    const item = this.#items.get(id)
    if (!item) return
    this.#items.delete(id)
    this.#bytes -= item.size
    const last = this.#list.pop()!
    if (last !== item) {
      this.#list[item.place] = last
      last.place = item.place
    }
    for (const part of item.parts?.ids ?? []) {
      const parents = this.#parents.get(part)
      if (parents?.delete(item) && parents.size === 0) this.#parents.delete(part)
    }
  }

  used(id: string, at: number): void {
    const item = this.#items.get(id)
    if (item) item.usedAt = Math.max(item.usedAt, at)
  }
}

const none: ReadonlySet<Item> = new Set()
