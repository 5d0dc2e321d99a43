import type { Policy } from '../keeping.ts'
import { Shelf } from '../shelf.ts'

/** Least recently used goes first. */
export const lru: Policy = machine => {
  const shelf = new Shelf(machine)
  return {
    has: blob => shelf.has(blob),
    hit: blob => shelf.renew(blob),
    miss(blob) {
      if (!shelf.fits(blob)) return
      while (shelf.lacks(blob)) shelf.remove(shelf.oldest!)
      shelf.add(blob)
    },
  }
}
