import { Heap } from '../heap.ts'
import type { Keeping, Policy } from '../keeping.ts'
import { Shelf } from '../shelf.ts'

/**
 * What was asked for least for its size goes first, and what has gone is what everything else is measured by from then
 * on (Cherkasova, HPL-98-69R1, 1998; Dilley and Arlitt, IEEE Internet Computing, 1999): the priority is
 * age + requests / size^power.
 */
function greedyDual(power: number): Policy {
  return (machine): Keeping => {
    const shelf = new Shelf(machine)
    const queue = new Heap()
    const requests = new Map<number, number>()
    let age = 0
    const rank = (blob: number) => {
      const count = (requests.get(blob) ?? 0) + 1
      requests.set(blob, count)
      queue.set(blob, age + count / machine.sizes[blob]! ** power)
    }
    return {
      has: blob => shelf.has(blob),
      hit: rank,
      miss(blob) {
        if (!shelf.fits(blob)) return
        while (shelf.lacks(blob)) {
          const victim = queue.first!
          age = queue.priorityOf(victim)!
          queue.delete(victim)
          requests.delete(victim)
          shelf.remove(victim)
        }
        shelf.add(blob)
        rank(blob)
      },
    }
  }
}

/** As published: all misses cost the same, and a hit is a hit. */
export const gdsf = greedyDual(1)

/** What does best here of the powers. */
export const gdsfRoot = greedyDual(0.5)

/** LFU with dynamic ageing (Arlitt et al., 1999): the same where size does not count. */
export const lfuDa = greedyDual(0)
