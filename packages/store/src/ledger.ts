import type { ByteRange } from '@shoal/oci/byte-range'
import { RangeSet } from '@shoal/oci/range-set'
import type { Giver } from './source.ts'

/** What has come of a blob, and who gave it. */
export class Ledger {
  readonly have: RangeSet
  /** Those that are not to be read before the whole blob is verified. */
  readonly unproven: RangeSet
  readonly #givers = new Map<Giver, RangeSet>()

  /** @param have what is there from before; nobody knows who gave it */
  constructor(have = new RangeSet(), unproven = new RangeSet()) {
    this.have = have
    this.unproven = unproven
  }

  /** Who gave which bytes, in the order in which they began to. */
  get givers(): ReadonlyMap<Giver, RangeSet> {
    return this.#givers
  }

  add(range: ByteRange, giver?: Giver): void {
    this.have.add(range)
    if (!giver) return
    if (giver.kind === 'peer') this.unproven.add(range)
    const given = this.#givers.get(giver)
    if (given) given.add(range)
    else this.#givers.set(giver, new RangeSet([range]))
  }

  /** The end of the run of bytes from `position` on that may be read now; `position` itself if that may not. */
  readable(position: number): number {
    const [run] = this.unproven.gaps({ start: position, end: this.have.reach(position) })
    return run?.start === position ? run.end : position
  }

  /** The part of it before the byte at `end`. */
  until(end: number): Ledger {
    const part = new Ledger(clip(this.have, end), clip(this.unproven, end))
    for (const [giver, ranges] of this.#givers) {
      const given = clip(ranges, end)
      if (given.total > 0) part.#givers.set(giver, given)
    }
    return part
  }
}

function clip(ranges: RangeSet, end: number): RangeSet {
  const clipped = new RangeSet(ranges)
  clipped.remove({ start: end, end: Number.POSITIVE_INFINITY })
  return clipped
}
