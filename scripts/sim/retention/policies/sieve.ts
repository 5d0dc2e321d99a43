import type { Policy } from '../keeping.ts'
import { Shelf } from '../shelf.ts'

const none = -1

/**
 * SIEVE (Zhang et al., NSDI 2024): a hand goes from the oldest to the newest, over and over, spares what was asked for
 * since it last came by, and drops the first that was not.
 */
export const sieve: Policy = machine => {
  const shelf = new Shelf(machine)
  const newer = new Int32Array(machine.sizes.length).fill(none)
  const older = new Int32Array(machine.sizes.length).fill(none)
  const visited = new Uint8Array(machine.sizes.length)
  let [oldest, newest, hand] = [none, none, none]

  const append = (blob: number) => {
    older[blob] = newest
    newer[blob] = none
    if (newest === none) oldest = blob
    else newer[newest] = blob
    newest = blob
  }
  const unlink = (blob: number) => {
    const [before, after] = [older[blob]!, newer[blob]!]
    if (before === none) oldest = after
    else newer[before] = after
    if (after === none) newest = before
    else older[after] = before
  }
  const evict = () => {
    let blob = hand === none ? oldest : hand
    for (; visited[blob] === 1; ) {
      visited[blob] = 0
      blob = newer[blob] === none ? oldest : newer[blob]!
    }
    hand = newer[blob]!
    unlink(blob)
    shelf.remove(blob)
  }
  return {
    has: blob => shelf.has(blob),
    hit: blob => {
      visited[blob] = 1
    },
    miss(blob) {
      if (!shelf.fits(blob)) return
      while (shelf.lacks(blob)) evict()
      visited[blob] = 0
      append(blob)
      shelf.add(blob)
    },
  }
}
