import type { Inventory, Item } from './inventory.ts'
import { type Demand, worthOf } from './worth.ts'

/** Items that are looked at for each that goes. */
const sampleSize = 64

/** How many of those that must stay are passed over before the choice may pause. */
const mostPassedOver = 250

export type VictimsOptions = {
  readonly inventory: Inventory
  /** How often the item itself was pulled lately, not what needs it. */
  readonly demandOf: (id: string) => Demand
  /** How many machines hold it, as far as was proved, with this one. */
  readonly copiesOf: (id: string) => number
  /** Whether it must stay: it is pinned, or in use. */
  readonly stays: (id: string) => boolean
  /** From 0 to 1. */
  readonly random: () => number
  /** In ms since the epoch. */
  readonly now: number
  /** Only what is worth less than this goes. @default everything may */
  readonly below?: number
}

/** Something that is to go, and why: what it is worth, for whom, and because of what else. */
export type Victim = {
  readonly id: string
  readonly size: number
  readonly worth: number
  readonly demand: Demand
  readonly copies: number
  /** `least`: it was worth least; `incomplete`: it needs something that goes; `alone`: nothing is left that needs it. */
  readonly because: 'least' | 'incomplete' | 'alone'
}

/** How often and when something was wanted, for itself or for what needs it. */
type Use = { readonly demand: Demand; readonly usedAt: number }

/**
 * Chooses what goes, one group after another. Nothing is changed: what has been chosen counts as gone for the rest of
 * the choice.
 *
 * An image is useful only whole: where a layer is worth least, the manifests that need it go, and then what only those
 * needed, the topmost layers first. Another image may still come that is built upon the lower ones.
 */
export class Victims {
  readonly #options: VictimsOptions
  readonly #gone = new Set<Item>()
  readonly #alone: Item[] = []
  readonly #uses = new Map<Item, Use>()
  /** Where the search goes on if samples find nothing that may go. */
  #scanned = 0

  constructor(options: VictimsOptions) {
    this.#options = options
  }

  /**
   * The next to go, in the order in which they must; together, or an image is left in pieces. None if nothing was found
   * yet: then the caller may do something else before it asks again.
   * @returns undefined if nothing more may go
   */
  next(): readonly Victim[] | undefined {
    for (let item: Item | undefined; (item = this.#alone.pop()); ) {
      const group = this.#gone.has(item) ? undefined : this.#groupOf(item)
      if (group) return this.#take(group, 'alone')
    }
    const { random } = this.#options
    const { items } = this.#options.inventory
    const few = items.length <= 2 * sampleSize
    const sample = few ? items : Array.from({ length: sampleSize }, () => items[Math.floor(random() * items.length)]!)
    const { least, dear } = this.#leastOf(sample)
    if (least) return this.#takeLeast(least)
    if (dear > sample.length / 2) return undefined
    // Most of what is there may have to stay.
    const rest = items.slice(this.#scanned, this.#scanned + mostPassedOver)
    for (const item of rest) {
      this.#scanned++
      const { least } = this.#leastOf([item])
      if (least) return this.#takeLeast(least)
    }
    return this.#scanned < items.length ? [] : undefined
  }

  /** The group of the one of some items that is worth least and may go; and how many are worth too much to go. */
  #leastOf(items: readonly Item[]): { readonly least: readonly Item[] | undefined; readonly dear: number } {
    const { stays, below = Number.POSITIVE_INFINITY } = this.#options
    const cheap: { readonly item: Item; readonly worth: number }[] = []
    let dear = 0
    for (const item of items) {
      if (this.#gone.has(item) || stays(item.id)) continue
      const worth = this.worthOf(item)
      if (worth < below) cheap.push({ item, worth })
      else dear++
    }
    cheap.sort((a, b) => a.worth - b.worth || b.item.size - a.item.size)
    for (const { item } of cheap) {
      const least = this.#groupOf(item)
      if (least) return { least, dear }
    }
    return { least: undefined, dear }
  }

  /** An item that is to go, and what goes with it; undefined if some of that must stay. See {@link next}. */
  take(item: Item): readonly Victim[] | undefined {
    const group = this.#gone.has(item) ? undefined : this.#groupOf(item)
    return group && this.#take(group, 'least')
  }

  /** What it is worth to keep an item, also one that is not held yet. */
  worthOf(item: Item): number {
    const { copiesOf, now } = this.#options
    const { demand, usedAt } = this.#useOf(item)
    return worthOf(demand, item.size, copiesOf(item.id), now - usedAt)
  }

  /** Its own demand, and that of all that need it; and when it or one of those was used. */
  #useOf(item: Item): Use {
    const known = this.#uses.get(item)
    if (known) return known
    let { own, office } = this.#options.demandOf(item.id)
    let { usedAt } = item
    // A manifest that claims to contain itself would need a hash that cannot be found.
    for (const parent of this.#options.inventory.parentsOf(item.id)) {
      if (this.#gone.has(parent)) continue
      const use = this.#useOf(parent)
      own += use.demand.own
      office += use.demand.office
      // A client that has a layer already asks for the manifest alone.
      usedAt = Math.max(usedAt, use.usedAt)
    }
    const use = { demand: { own, office }, usedAt }
    this.#uses.set(item, use)
    return use
  }

  /** What goes with an item, in order, itself last; undefined if some of it must stay. */
  #groupOf(item: Item): Item[] | undefined {
    const { inventory, stays } = this.#options
    const group = new Set<Item>()
    const visit = (each: Item): boolean => {
      if (stays(each.id)) return false
      group.add(each)
      for (const parent of inventory.parentsOf(each.id)) {
        if (this.#gone.has(parent) || group.has(parent)) continue
        if (parent.parts?.needs === 'any' && this.#hasOthers(parent, group)) continue
        if (!visit(parent)) return false
      }
      return true
    }
    return visit(item) ? [...group].reverse() : undefined
  }

  /** Whether a manifest still has a part that does not go. */
  #hasOthers({ parts }: Item, group: ReadonlySet<Item>): boolean {
    return (parts?.ids ?? []).some(id => {
      const part = this.#options.inventory.get(id)
      return part !== undefined && !this.#gone.has(part) && !group.has(part)
    })
  }

  #takeLeast(group: readonly Item[]): readonly Victim[] {
    return this.#take(group.length > 1 ? group.slice(0, -1) : group, 'least')
  }

  #take(group: readonly Item[], because: 'least' | 'alone'): readonly Victim[] {
    const { copiesOf } = this.#options
    const victims = group.map((each): Victim => {
      return {
        id: each.id,
        size: each.size,
        worth: this.worthOf(each),
        demand: this.#useOf(each).demand,
        copies: copiesOf(each.id),
        because: each === group.at(-1) ? because : 'incomplete',
      }
    })
    for (const each of group) this.#gone.add(each)
    for (const each of group) this.#leave(each)
    return victims
  }

  /** What a manifest needed that goes is worth less now, or nothing. */
  #leave({ parts }: Item): void {
    const { inventory } = this.#options
    for (const id of parts?.ids ?? []) {
      const part = inventory.get(id)
      if (!part || this.#gone.has(part)) continue
      this.#uses.delete(part)
      this.#leave(part)
      if ([...inventory.parentsOf(id)].every(parent => this.#gone.has(parent))) this.#alone.push(part)
    }
  }
}
