import { createHash } from 'node:crypto'
import type { Digest } from '@shoal/oci/digest'

/** What a member weighs for a blob: rendezvous hashing (Thaler and Ravishankar, 1998), alike on every machine. */
export function weightOf(digest: Digest, member: string): number {
  return createHash('sha256').update(digest).update(' ').update(member).digest().readUIntBE(0, 6)
}

/** The members in the order in which they are asked about a blob: the first keeps the table of who fetches it. */
export function coordinatorsOf(digest: Digest, members: Iterable<string>, most: number): string[] {
  const ranked = [...members].map(member => ({ member, weight: weightOf(digest, member) }))
  ranked.sort((a, b) => b.weight - a.weight || (a.member < b.member ? -1 : 1))
  return ranked.slice(0, most).map(({ member }) => member)
}
