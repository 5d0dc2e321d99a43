/** Numbers in the order of a priority that may change: the lowest is first. */
export class Heap {
  readonly #items: number[] = []
  readonly #places = new Map<number, number>()
  readonly #priorities = new Map<number, number>()

  get first(): number | undefined {
    return this.#items[0]
  }

  priorityOf(item: number): number | undefined {
    return this.#priorities.get(item)
  }

  /** Adds it, or moves it to where it belongs now. */
  set(item: number, priority: number): void {
    this.#priorities.set(item, priority)
    const place = this.#places.get(item) ?? this.#items.push(item) - 1
    this.#sink(this.#rise(item, place), item)
  }

  delete(item: number): void {
    const place = this.#places.get(item)
    if (place === undefined) return
    this.#places.delete(item)
    this.#priorities.delete(item)
    const last = this.#items.pop()!
    if (last !== item) this.#sink(this.#rise(last, place), last)
  }

  #rise(item: number, from: number): number {
    let place = from
    for (; place > 0; ) {
      const parent = (place - 1) >>> 1
      if (this.#at(parent) <= this.#priorities.get(item)!) break
      this.#put(this.#items[parent]!, place)
      place = parent
    }
    this.#put(item, place)
    return place
  }

  #sink(from: number, item: number): void {
    let place = from
    for (;;) {
      let child = 2 * place + 1
      if (child >= this.#items.length) break
      if (child + 1 < this.#items.length && this.#at(child + 1) < this.#at(child)) child++
      if (this.#at(child) >= this.#priorities.get(item)!) break
      this.#put(this.#items[child]!, place)
      place = child
    }
    this.#put(item, place)
  }

  #at(place: number): number {
    return this.#priorities.get(this.#items[place]!)!
  }

  #put(item: number, place: number): void {
    this.#items[place] = item
    this.#places.set(item, place)
  }
}
