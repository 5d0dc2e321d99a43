import { hash } from 'node:crypto'

/**
 * What a member weighs for a blob, by its digest, or for anything else that has a name: rendezvous hashing (Thaler and
 * Ravishankar, 1998), alike on every machine.
 */
export function weightOf(key: string, member: string): number {
  return hash('sha256', `${key} ${member}`, 'buffer').readUIntBE(0, 6)
}

/** The members in the order in which they are asked about a blob: the first keeps the table of who fetches it. */
export function coordinatorsOf(key: string, members: Iterable<string>, most: number): string[] {
  const ranked = [...members].map(member => ({ member, weight: weightOf(key, member) }))
  ranked.sort((a, b) => b.weight - a.weight || (a.member < b.member ? -1 : 1))
  return ranked.slice(0, most).map(({ member }) => member)
}
