import { setImmediate } from 'node:timers/promises'
import { countOf } from '@shoal/retention/decay'
import { Inventory } from '@shoal/retention/inventory'
import { mostRows, OfficePopularity } from '@shoal/retention/office-popularity'
import { Popularity } from '@shoal/retention/popularity'
import { Victims } from '@shoal/retention/victims'
import type { Demand } from '@shoal/retention/worth'
import { Chance } from '../sim/spread/chance.ts'
import { median } from './program.ts'

const images = 10_500
const peers = 20
const needed = 1024 ** 3
const now = Date.UTC(2026, 0, 31)
const day = 24 * 3600 * 1000

/** How long is chosen without a break, in ms; as the daemon does it. */
const sliceTime = 2

/** In ms, and blobs. */
type Choice = { readonly busy: number; readonly longest: number; readonly count: number }

/** What it takes to choose what goes from 100,000 blobs for 1 GiB. */
export async function victims(_folder: string, runs: number): Promise<void> {
  const chance = new Chance(1)
  const inventory = imagesOf(chance)
  const demands = demandsOf(chance)
  console.log(`\nwhat goes of ${inventory.items.length} blobs for 1 GiB, ${peers} peers' rows, median of ${runs}`)
  console.log('                                   ms   longest without a break    blobs')
  for (const [what, pinned] of [
    ['nothing is pinned', 0],
    ['99 of 100 images are pinned', 99],
  ] as const) {
    const stay = new Set(inventory.items.flatMap(({ id }) => (Number(id.split(' ')[1]) % 100 < pinned ? [id] : [])))
    const choices: Choice[] = []
    for (let run = 0; run < runs; run++) choices.push(await choose(inventory, demands, stay, chance))
    const cell = (key: keyof Choice, digits: number, width: number) =>
      median(choices.map(each => each[key]))
        .toFixed(digits)
        .padStart(width)
    console.log(`  ${what.padEnd(28)}${cell('busy', 2, 7)}${cell('longest', 2, 26)}${cell('count', 0, 9)}`)
  }
}

async function choose(
  inventory: Inventory,
  demands: ReadonlyMap<string, Demand>,
  stay: ReadonlySet<string>,
  chance: Chance,
): Promise<Choice> {
  const none: Demand = { own: 0, office: 0 }
  const choice = new Victims({
    inventory,
    demandOf: id => demands.get(id) ?? none,
    copiesOf: id => 1 + (id.length % 3),
    stays: id => stay.has(id),
    random: () => chance.next(),
    now,
  })
  let [freed, count, longest, busy] = [0, 0, 0, 0]
  for (let over = false; !over; await setImmediate()) {
    const begin = performance.now()
    while (!over && performance.now() - begin < sliceTime) {
      const group = choice.next()
      for (const { size } of group ?? []) freed += size
      count += group?.length ?? 0
      over = !group || freed >= needed
    }
    const taken = performance.now() - begin
    busy += taken
    longest = Math.max(longest, taken)
  }
  return { busy, longest, count }
}

/** An index, a manifest, a config, some layers of its own, and those of one of a hundred base images, some much used. */
function imagesOf(chance: Chance): Inventory {
  const inventory = new Inventory()
  const add = (id: string, size: number, parts?: readonly string[]) => {
    const needs = id.startsWith('index') ? 'any' : 'all'
    inventory.add(id, Math.round(size), parts && { ids: parts, needs }, now - chance.next() * 30 * day)
    return id
  }
  const layer = (id: string) => add(id, 10 ** chance.between(2, 8))
  const bases = Array.from({ length: 100 }, (_, base) => [0, 1, 2].map(i => layer(`base ${base} ${i}`)))
  for (let image = 0; image < images; image++) {
    const base = bases[Math.floor(bases.length * chance.next() ** 3)]!
    const own = Array.from({ length: 4 + chance.below(6) }, (_, i) => layer(`layer ${image} ${i}`))
    const manifest = add(`manifest ${image}`, 2000, [add(`config ${image}`, 5000), ...base, ...own])
    // Of the other platforms' manifests none is held.
    add(`index ${image}`, 3000, [manifest, ...[1, 2, 3].map(platform => `absent ${image} ${platform}`)])
  }
  return inventory
}

/** By what is pulled, an index. */
function demandsOf(chance: Chance): ReadonlyMap<string, Demand> {
  const own = new Popularity()
  const office = new OfficePopularity()
  const pick = () => `index ${Math.floor(images * chance.next() ** 4)}`
  for (let pull = 0; pull < images; pull++) own.pulled(pick(), now - chance.next() * 30 * day)
  for (let peer = 0; peer < peers; peer++) {
    const rows = Array.from({ length: mostRows }, () => {
      const image = pick()
      return { image, score: own.scoreOf(image) ?? now }
    })
    office.merge(`peer ${peer}`, { at: now, rows }, now)
  }
  const demands = new Map<string, Demand>()
  for (let image = 0; image < images; image++) {
    const score = own.scoreOf(`index ${image}`)
    const count = score === undefined ? 0 : countOf(score, now)
    const all = count + office.count(`index ${image}`, now)
    if (all > 0) demands.set(`index ${image}`, { own: count, office: all })
  }
  return demands
}
