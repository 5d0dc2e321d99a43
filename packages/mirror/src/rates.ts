/** Bodies that tell something of a rate, in bytes. */
const measurable = 1024 * 1024

/** How long a measurement counts, in ms: after this it has half its weight. */
const halfLife = 10 * 60_000

/** What the one before counts for beside a measurement, if it is not old. */
const inertia = 0.7

/**
 * When a machine asks upstream for a blob that it was getting with others: if twice in a row, for so long in ms, all such
 * blobs together come slower than this, in bytes/s, and than this share of what upstream was measured to give. On a slow
 * LAN the line is spared for that long.
 */
const slowFor = 2000
const slowOthers = 1e6
const slowShare = 0.25

/** How fast a blob comes that is got together with others. */
export interface JointPace extends Disposable {
  /**
   * Whether this machine had better ask upstream.
   * @param total bytes that are there
   * @param upstream what that was measured to give, in bytes/s
   */
  isSlow(total: number, upstream: number | undefined): boolean
}

/** How fast upstreams were measured to be, and how many blobs peers give just now. One for all that is being fetched. */
export class Rates {
  /** In ms, never going back. */
  readonly now: () => number
  /** Blobs that come from peers now: each has a part of what they can give. */
  fromPeers = 0
  /** Blobs that are being got together with others now. */
  #joint = 0
  readonly #measured = new Map<string, { readonly rate: number; readonly at: number }>()
  readonly #bodies = new Map<string, number>()

  constructor(now: () => number = () => performance.now()) {
    this.now = now
  }

  /** What an upstream gives in all, in bytes/s; undefined if it has not given anything large yet. */
  of(upstream: string): number | undefined {
    return this.#measured.get(upstream)?.rate
  }

  /** A blob is being got together with others, until that is disposed of. @param begin bytes that are there */
  joint(begin: number): JointPace {
    this.#joint++
    const pace = { at: this.now(), total: begin, slow: 0 }
    return {
      isSlow: (total, upstream) => {
        const now = this.now()
        const time = now - pace.at
        if (time < slowFor) return false
        const rate = ((total - pace.total) / time) * 1000 * this.#joint
        const slow = rate > 0 && rate < slowOthers && rate < (upstream ?? 0) * slowShare
        pace.slow = slow ? pace.slow + 1 : 0
        pace.at = now
        pace.total = total
        return pace.slow > 1
      },
      [Symbol.dispose]: () => void this.#joint--,
    }
  }

  /** A body of an upstream begins. @returns to be told how many bytes came of it, and in how many ms */
  begin(upstream: string): (bytes: number, ms: number) => void {
    const first = this.#count(upstream, 1)
    return (bytes, ms) => {
      const last = this.#count(upstream, -1) + 1
      if (bytes < measurable || ms <= 0) return
      // They share one line.
      const rate = (bytes / ms) * 1000 * ((first + last) / 2)
      const before = this.#measured.get(upstream)
      const at = this.now()
      const weight = before ? inertia * 2 ** ((before.at - at) / halfLife) : 0
      this.#measured.set(upstream, { rate: weight * (before?.rate ?? 0) + (1 - weight) * rate, at })
    }
  }

  #count(upstream: string, change: number): number {
    const count = (this.#bodies.get(upstream) ?? 0) + change
    this.#bodies.set(upstream, count)
    return count
  }
}
