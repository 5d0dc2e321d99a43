import type { Policy } from '../keeping.ts'
import { Shelf } from '../shelf.ts'

/** What the small queue has of the capacity. What has gone from it is remembered until as much has gone as the rest has. */
const smallPart = 0.1

/** Requests that are counted of a blob. */
const mostCounted = 3

/**
 * S3-FIFO (Yang et al., SOSP 2023): what is new waits in a small queue, and only what is asked for twice there, or again
 * soon after it has gone, comes into the main one, which it leaves once a whole round has passed without a request.
 */
export const s3Fifo: Policy = machine => {
  const shelf = new Shelf(machine)
  const { capacity, sizes } = machine
  const [small, main, ghosts] = [new Set<number>(), new Set<number>(), new Set<number>()]
  const counts = new Map<number, number>()
  let [smallBytes, ghostBytes] = [0, 0]

  const forget = (blob: number) => {
    if (ghosts.delete(blob)) ghostBytes -= sizes[blob]!
  }
  const remember = (blob: number) => {
    ghosts.add(blob)
    ghostBytes += sizes[blob]!
    for (const oldest of ghosts) {
      if (ghostBytes <= (1 - smallPart) * capacity) break
      forget(oldest)
    }
  }
  const drop = (blob: number) => {
    counts.delete(blob)
    shelf.remove(blob)
  }
  const evictSmall = () => {
    for (const blob of small) {
      small.delete(blob)
      smallBytes -= sizes[blob]!
      if (counts.get(blob)! > 1) {
        counts.set(blob, 0)
        main.add(blob)
        continue
      }
      drop(blob)
      remember(blob)
      return
    }
  }
  const evictMain = () => {
    for (const blob of main) {
      const count = counts.get(blob)!
      main.delete(blob)
      if (count === 0) {
        drop(blob)
        return
      }
      counts.set(blob, count - 1)
      main.add(blob)
    }
  }
  return {
    has: blob => shelf.has(blob),
    hit: blob => counts.set(blob, Math.min(counts.get(blob)! + 1, mostCounted)),
    miss(blob) {
      if (!shelf.fits(blob)) return
      while (shelf.lacks(blob)) {
        if (smallBytes > smallPart * capacity || main.size === 0) evictSmall()
        else evictMain()
      }
      if (ghosts.has(blob)) {
        forget(blob)
        main.add(blob)
      } else {
        small.add(blob)
        smallBytes += sizes[blob]!
      }
      counts.set(blob, 0)
      shelf.add(blob)
    },
  }
}
