import type { Events } from './events.ts'

/** Something that bytes go through, so many at a time. */
export class Link {
  /** In bytes/ms. */
  capacity: number
  readonly flows: Flow[] = []
  /** While rates are worked out: what is not given to a flow yet, and to how many flows it is to be given. */
  left = 0
  open = 0
  share = 0
  used = false

  /** @param rate in Mbit/s */
  constructor(rate: number) {
    this.capacity = rate * 125
  }
}

/** Bytes on their way. */
export class Flow implements Disposable {
  readonly links: readonly Link[]
  readonly size: number
  readonly done: () => void
  /** Where it stands in the list of each of its links. */
  readonly places: number[] = []
  place = 0
  /** Bytes still to come, when rates were last worked out. */
  left: number
  /** In bytes/ms. */
  rate = -1
  /** When rates were last worked out for it. */
  turn = 0
  over = false
  readonly #flows: Flows

  constructor(flows: Flows, size: number, links: readonly Link[], done: () => void) {
    this.#flows = flows
    this.size = size
    this.left = size
    this.links = links
    this.done = done
  }

  /** Bytes that have come. */
  get come(): number {
    return this.size - this.#flows.leftOf(this)
  }

  [Symbol.dispose](): void {
    this.#flows.stop(this)
  }
}

/** Bytes that share links fairly, as water would: max-min, worked out anew when something has changed. */
export class Flows {
  readonly #events: Events
  readonly #quantum: number
  readonly #flows: Flow[] = []
  #links: Link[] = []
  #at = 0
  #turn = 0
  #due = false

  /** @param quantum how long rates stay as they are at least, in ms */
  constructor(events: Events, quantum: number) {
    this.#events = events
    this.#quantum = quantum
  }

  start(bytes: number, links: readonly Link[], done: () => void): Flow {
    const flow = new Flow(this, bytes, links, done)
    flow.place = this.#flows.push(flow) - 1
    links.forEach((link, i) => {
      flow.places[i] = link.flows.push(flow) - 1
    })
    this.changed()
    return flow
  }

  stop(flow: Flow): void {
    if (flow.over) return
    flow.left = this.leftOf(flow)
    flow.over = true
    flow.rate = 0
    const last = this.#flows.pop()!
    if (last !== flow) {
      this.#flows[flow.place] = last
      last.place = flow.place
    }
    flow.links.forEach((link, i) => {
      const other = link.flows.pop()!
      if (other === flow) return
      const place = flow.places[i]!
      link.flows[place] = other
      other.places[other.links.indexOf(link)] = place
    })
    this.changed()
  }

  leftOf(flow: Flow): number {
    if (flow.over || flow.rate <= 0) return flow.left
    return Math.max(0, flow.left - flow.rate * (this.#events.now - this.#at))
  }

  /** A capacity, or a flow, is not what it was. */
  changed(): void {
    if (this.#due) return
    this.#due = true
    this.#events.at(this.#at + this.#quantum, () => {
      this.#due = false
      this.#share()
    })
  }

  #share(): void {
    const { now } = this.#events
    const past = now - this.#at
    this.#at = now
    this.#turn++
    for (const flow of this.#flows) {
      if (flow.rate > 0) flow.left = Math.max(0, flow.left - flow.rate * past)
      flow.rate = -1
    }
    this.#fill()
    this.#expect()
  }

  /** Gives each flow its rate: the fullest link first, what it can give to each; then the others, from what is left. */
  #fill(): void {
    const links: Link[] = []
    for (const link of this.#links) link.used = false
    for (const flow of this.#flows)
      for (const link of flow.links) {
        if (link.used) continue
        link.used = true
        link.left = link.capacity
        link.open = link.flows.length
        link.share = link.left / link.open
        links.push(link)
      }
    this.#links = links
    const heap = links.slice()
    for (let i = (heap.length >>> 1) - 1; i >= 0; i--) sink(heap, i)
    while (heap.length > 0) {
      const link = heap[0]!
      if (link.open > 0) {
        // Shares only grow as others are given theirs.
        const share = link.left / link.open
        if (share > link.share * (1 + 1e-9)) {
          link.share = share
          sink(heap, 0)
          continue
        }
        for (const flow of link.flows) {
          if (flow.rate >= 0) continue
          flow.rate = share
          for (const other of flow.links) {
            other.left = Math.max(0, other.left - share)
            other.open--
          }
        }
      }
      const last = heap.pop()!
      if (heap.length > 0) {
        heap[0] = last
        sink(heap, 0)
      }
    }
  }

  /** Foresees who will be through before rates are worked out again. */
  #expect(): void {
    const { now } = this.#events
    let first = Number.POSITIVE_INFINITY
    for (const flow of this.#flows) if (flow.rate > 0) first = Math.min(first, flow.left / flow.rate)
    const horizon = Math.max(first, this.#quantum) + 1e-9
    const turn = this.#turn
    for (const flow of this.#flows) {
      const ms = flow.rate > 0 ? flow.left / flow.rate : Number.POSITIVE_INFINITY
      if (ms > horizon) continue
      flow.turn = turn
      this.#events.at(now + ms, () => {
        if (flow.over || flow.turn !== turn || this.#turn !== turn) return
        this.stop(flow)
        flow.left = 0
        flow.done()
      })
    }
  }
}

function sink(heap: Link[], i: number): void {
  const { length } = heap
  const link = heap[i]!
  for (;;) {
    let child = 2 * i + 1
    if (child >= length) break
    if (child + 1 < length && heap[child + 1]!.share < heap[child]!.share) child++
    if (heap[child]!.share >= link.share) break
    heap[i] = heap[child]!
    i = child
  }
  heap[i] = link
}
