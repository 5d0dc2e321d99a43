import { setImmediate as turn } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import { prefixesOf } from './digest-prefix.ts'
import { mostOfPeer } from './holdings.ts'
import { type HoldingsMessage, mostPrefixes } from './message.ts'

/** For how long changes are gathered before they are told, in ms. */
const gathering = 100

/** Between the beginnings of two snapshots, in ms, however often a peer asks. */
const snapshotEvery = 10_000

/** What peers may have. */
export type Shareable = {
  /** All of it. Is gone through piece by piece, and may meanwhile change, as the keys of a Map may. */
  digests(): Iterable<Digest>
  /** Calls `listener` at each change, from now on until disposed of. What is both added and removed is gone. */
  onChange(
    listener: (change: { readonly added: readonly Digest[]; readonly removed: readonly Digest[] }) => void,
  ): Disposable
}

export type AnnouncerOptions = {
  readonly sharing: Shareable
  /** Never throws. @returns a promise to wait for before sending more, which never rejects */
  readonly send: (message: HoldingsMessage) => Promise<void> | undefined
  /** In ms, never going back. */
  readonly now: () => number
  /** Calls `then` after so many ms, unless disposed of before. @default setTimeout */
  readonly after?: (ms: number, then: () => void) => Disposable
}

/** Tells one peer what it may have: all of it first, then what changes. */
export class Announcer {
  readonly #options: AnnouncerOptions
  readonly #after: (ms: number, then: () => void) => Disposable
  #seq = 0
  #subscription: Disposable | undefined
  /** What has changed, and whether it is there now. */
  #changes = new Map<Digest, boolean>()
  /** Until the changes are told. */
  #gathering: Disposable | undefined
  /** Until the next snapshot, which a peer has asked for. */
  #waiting: Disposable | undefined
  #snapshotAt = 0
  #snapshotDue = false
  #changesDue = false
  #telling = false
  #stopped = false

  constructor(options: AnnouncerOptions) {
    this.#options = options
    this.#after = options.after ?? ((ms, then) => setTimeout(then, ms).unref())
  }

  /** Begins, with a snapshot. */
  start(): void {
    // Before the snapshot: no change is lost between the two.
    this.#subscription = this.#options.sharing.onChange(({ added, removed }) => this.#changed(added, removed))
    this.#beginSnapshot()
  }

  /** Sends a snapshot again: now, or when the last one is old enough. */
  resync(): void {
    if (this.#stopped || this.#snapshotDue || this.#waiting) return
    const wait = this.#snapshotAt + snapshotEvery - this.#options.now()
    if (wait <= 0) return void this.#beginSnapshot()
    this.#waiting = this.#after(wait, () => {
      this.#waiting = undefined
      this.#beginSnapshot()
    })
  }

  stop(): void {
    this.#stopped = true
    for (const held of [this.#subscription, this.#gathering, this.#waiting]) held?.[Symbol.dispose]()
    this.#changes.clear()
  }

  #beginSnapshot(): void {
    this.#snapshotDue = true
    void this.#tell()
  }

  #changed(added: readonly Digest[], removed: readonly Digest[]): void {
    for (const digest of added) this.#changes.set(digest, true)
    for (const digest of removed) this.#changes.set(digest, false)
    this.#gathering ??= this.#after(gathering, () => {
      this.#gathering = undefined
      this.#changesDue = true
      void this.#tell()
    })
  }

  async #tell(): Promise<void> {
    if (this.#telling) return
    this.#telling = true
    while (!this.#stopped && (this.#snapshotDue || this.#changesDue)) {
      if (this.#snapshotDue) await this.#tellAll()
      else await this.#tellChanges()
    }
    this.#telling = false
  }

  async #tellAll(): Promise<void> {
    this.#snapshotDue = false
    this.#snapshotAt = this.#options.now()
    const digests = Iterator.from(this.#options.sharing.digests())
    // Beyond that no peer would keep it.
    let left = mostOfPeer
    for (let [reset, more] = [true, true]; more && !this.#stopped; reset = false) {
      const part = take(digests, Math.min(mostPrefixes, left))
      left -= part.length
      more = part.length === mostPrefixes && left > 0
      await this.#send({ reset, more, add: part, remove: [] })
    }
    digests.return?.()
  }

  async #tellChanges(): Promise<void> {
    this.#changesDue = false
    const changes = this.#changes.entries()
    this.#changes = new Map()
    for (let more = true; more && !this.#stopped; ) {
      const part = take(changes, mostPrefixes)
      more = part.length === mostPrefixes
      const add = part.filter(([, there]) => there).map(([digest]) => digest)
      const remove = part.filter(([, there]) => !there).map(([digest]) => digest)
      if (part.length > 0) await this.#send({ reset: false, more: false, add, remove })
    }
  }

  async #send(message: {
    reset: boolean
    more: boolean
    add: readonly Digest[]
    remove: readonly Digest[]
  }): Promise<void> {
    const [add, remove] = [prefixesOf(message.add), prefixesOf(message.remove)]
    const accepted = this.#options.send({ ...message, t: 'holdings', seq: ++this.#seq, add, remove })
    // Clients come first: their requests get a turn between two parts.
    await (accepted ?? turn())
  }
}

function take<Item>(items: Iterator<Item>, most: number): Item[] {
  const taken: Item[] = []
  while (taken.length < most) {
    const { done, value } = items.next()
    if (done) break
    taken.push(value)
  }
  return taken
}
