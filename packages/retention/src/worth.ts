import { halfLife } from './decay.ts'

/** How often something was pulled lately: on this machine, and on all machines together. */
export type Demand = { readonly own: number; readonly office: number }

/** What a pull here counts beside one anywhere in the office: a peer gives almost as fast as this machine's own disk. */
const ownWeight = 0.1

/** What something is taken to be wanted that nobody is known to have pulled: it might be. */
const unknownDemand = 0.05

/** Worth goes down with the size to this power: 1 would be best for requests, and 0 for bytes. */
const sizePower = 0.4

/** How long something may lie before it counts half, in ms. After a half-life, demand has gone down by itself. */
const restful = 24 * 3600 * 1000

/**
 * What it is worth to keep a blob: the one that is worth least goes first.
 * @param size in bytes
 * @param copies how many machines hold it, with this one; the others' demand is for whoever holds the only one
 * @param idle how long ago it was used, in ms
 */
export function worthOf({ own, office }: Demand, size: number, copies: number, idle: number): number {
  const demand = ownWeight * own + (copies <= 1 ? office : 0) + unknownDemand
  const rest = Math.min(Math.max(idle, 0), halfLife) / restful
  return demand / Math.max(size, 1) ** sizePower / (1 + rest)
}
