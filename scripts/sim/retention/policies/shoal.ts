import { countOf, type Score } from '@shoal/retention/decay'
import { Inventory } from '@shoal/retention/inventory'
import { mostOfPeer, mostRows, OfficePopularity } from '@shoal/retention/office-popularity'
import { mostImages, Popularity, strongest } from '@shoal/retention/popularity'
import { Victims } from '@shoal/retention/victims'
import type { Demand } from '@shoal/retention/worth'
import { Chance } from '../../spread/chance.ts'
import type { Keeping, Machine, Policy } from '../keeping.ts'

/** How often a machine tells the others what is asked for on it, in ms: the daemon does it more often, it matters little. */
const gossipEvery = 3 * 3600_000

/** The daemon counts pulls of images; a trace's blobs are counted each by itself, and an image has so many of them. */
const blobsOfImage = 8

/** What all machines of an office have told: it is the same for all, so it is there once. */
export const officePopularity = () => new OfficePopularity(blobsOfImage * mostRows)

/** What the daemon does, with its own code. The machines that it is given to are one office. */
export function shoal(told = officePopularity()): Policy {
  return machine => new ShoalMachine(machine, told)
}

class ShoalMachine implements Keeping {
  readonly #machine: Machine
  readonly #numbers: Map<string, number>
  readonly #inventory = new Inventory()
  readonly #own = new Popularity([], blobsOfImage * mostImages)
  readonly #told: OfficePopularity
  /** What of that it has told itself. */
  #toldRows = new Map<string, Score>()
  readonly #chance: Chance
  #toldAt: number

  constructor(machine: Machine, told: OfficePopularity) {
    this.#machine = machine
    this.#told = told
    this.#numbers = new Map(machine.digests.map((digest, blob) => [digest, blob]))
    this.#chance = new Chance(machine.number)
    this.#toldAt = machine.clock()
  }

  has(blob: number): boolean {
    return this.#inventory.get(this.#machine.digests[blob]!) !== undefined
  }

  hit(blob: number): void {
    const now = this.#machine.clock()
    this.#count(blob, now)
    this.#inventory.used(this.#machine.digests[blob]!, now)
  }

  miss(blob: number): void {
    const { digests, sizes, capacity, changed, clock } = this.#machine
    const now = clock()
    const id = digests[blob]!
    const size = sizes[blob]!
    this.#count(blob, now)
    if (size > capacity) return
    this.#inventory.add(id, size, undefined, now)
    let lacks = this.#inventory.bytes - capacity
    if (lacks > 0) {
      const victims = this.#victims(now, id)
      const gone: string[] = []
      while (lacks > 0) {
        const next = victims.next()
        if (!next) break
        for (const victim of next) {
          gone.push(victim.id)
          lacks -= victim.size
        }
      }
      if (lacks > 0) {
        this.#inventory.remove(id)
        return
      }
      for (const victim of gone) {
        this.#inventory.remove(victim)
        changed(this.#numbers.get(victim)!, false)
      }
    }
    changed(blob, true)
  }

  #count(blob: number, now: number): void {
    const { digests } = this.#machine
    this.#own.pulled(digests[blob]!, now)
    if (now - this.#toldAt < gossipEvery) return
    this.#toldAt = now
    const rows = strongest(this.#own, blobsOfImage * mostRows)
    this.#toldRows = new Map(rows.map(({ image, score }) => [image, score]))
    this.#told.merge(String(this.#machine.number), { at: now, rows }, now)
  }

  #victims(now: number, newcomer: string): Victims {
    const { copiesOf } = this.#machine
    const options = {
      inventory: this.#inventory,
      demandOf: (id: string) => this.#demandOf(id, now),
      copiesOf: (id: string) => {
        const { others, keeps } = copiesOf(this.#numbers.get(id)!)
        return keeps ? 1 : 1 + others
      },
      stays: (id: string) => id === newcomer,
      random: () => this.#chance.next(),
      now,
    }
    return new Victims({ ...options, below: new Victims(options).worthOf(this.#inventory.get(newcomer)!) })
  }

  #demandOf(id: string, now: number): Demand {
    const count = (score: Score | undefined) => (score === undefined ? 0 : countOf(score, now))
    const own = count(this.#own.scoreOf(id))
    const others = this.#told.count(id, now) - Math.min(count(this.#toldRows.get(id)), mostOfPeer)
    return { own, office: own + others }
  }
}
