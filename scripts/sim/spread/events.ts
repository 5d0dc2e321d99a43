/** Something that is to happen. */
class Event implements Disposable {
  readonly time: number
  readonly order: number
  run: (() => void) | undefined

  constructor(time: number, order: number, run: () => void) {
    this.time = time
    this.order = order
    this.run = run
  }

  [Symbol.dispose](): void {
    this.run = undefined
  }
}

/** What happens, in the order of a clock that stands still between two events. Times in ms. */
export class Events {
  now = 0
  readonly #heap: Event[] = []
  #count = 0

  /** @param time not before now; what is to happen at the same time happens in the order in which it was said */
  at(time: number, run: () => void): Disposable {
    const event = new Event(Math.max(time, this.now), this.#count++, run)
    const heap = this.#heap
    let i = heap.length
    for (; i > 0; ) {
      const parent = (i - 1) >>> 1
      if (!before(event, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = event
    return event
  }

  after(ms: number, run: () => void): Disposable {
    return this.at(this.now + ms, run)
  }

  /** Lets the next event happen. @returns whether there was one */
  step(): boolean {
    const event = this.#take()
    if (!event) return false
    this.now = event.time
    event.run?.()
    return true
  }

  /** Lets all happen until `over`, or until a time. */
  run(until: number, over: () => boolean = () => false): void {
    while (!over() && this.#heap.length > 0 && this.#heap[0]!.time <= until) this.step()
  }

  #take(): Event | undefined {
    const heap = this.#heap
    const top = heap[0]
    const last = heap.pop()
    if (!top || !last || heap.length === 0) return top
    const { length } = heap
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= length) break
      if (child + 1 < length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
    return top
  }
}

function before(a: Event, b: Event): boolean {
  return a.time < b.time || (a.time === b.time && a.order < b.order)
}
