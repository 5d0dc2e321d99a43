import type { ServerName } from '../../../scripts/internet/log.ts'
import { type FaultCase, faultCases, type Phase } from './fault-case.ts'

/** Servers that suffer the fault together. Only where `gcr` is one of them does mirror.gcr.io have the content. */
type Place = readonly ServerName[]

/** `either`: a client that has had wrong bytes cannot be helped; one that has not is. */
export type Expected = 'right bytes' | 'clean error' | 'either'

/** One fault of one place in one phase of a pull. */
export type Cell = {
  readonly name: string
  readonly faultCase: FaultCase
  readonly place: Place
  readonly phase: Phase
  readonly expected: Expected
  /** Until the answer is over, in ms. */
  readonly deadline: number
}

/** The places that a phase comes by. Shoal answers a ping by itself, so one place is enough: everything. */
const places: Readonly<Record<Phase, readonly Place[]>> = {
  ping: [['gcr', 'hub', 'token', 'cdn']],
  token: [['hub'], ['token']],
  tag: [['gcr'], ['hub'], ['gcr', 'hub']],
  manifest: [['gcr'], ['hub'], ['gcr', 'hub']],
  'blob start': [['gcr'], ['hub'], ['cdn'], ['gcr', 'hub'], ['gcr', 'cdn']],
  'blob middle': [['gcr'], ['hub'], ['cdn'], ['gcr', 'hub'], ['gcr', 'cdn']],
  'blob end': [['gcr'], ['hub'], ['cdn'], ['gcr', 'hub'], ['gcr', 'cdn']],
}

/** Nobody has given a sign of life: the client had better ask elsewhere soon. */
const silentDeadline = 3_000

/** Two fall silent, one after the other, with the answer under way. */
const twiceSilentDeadline = 20_000

const deadline = 15_000

/** A phase of a blob. */
export function ofBlob(phase: Phase): boolean {
  return phase.startsWith('blob')
}

/** Whether the combination can happen. */
function makesSense({ sort, unending }: FaultCase, place: Place, phase: Phase): boolean {
  if (phase === 'ping') return true
  // The answer to a HEAD has no body; nor has a redirect, or a challenge, one that anybody needs.
  const bodies = phase === 'token' ? place.includes('token') : ofBlob(phase) ? !place.includes('hub') : phase !== 'tag'
  if ((sort === 'position' || sort === 'body') && !bodies) return false
  // The others know no tokens.
  if (sort === 'challenge' && (place.includes('token') || place.includes('cdn'))) return false
  return !unending || hasOther(place)
}

/** Whether somebody else has the content, and is well. */
function hasOther(place: Place): boolean {
  return place.length === 1 && place[0] === 'gcr'
}

function expectedOf({ overcome, name }: FaultCase, place: Place, phase: Phase): Expected {
  if (phase === 'ping' || overcome.includes(phase)) return 'right bytes'
  if (!hasOther(place)) return 'clean error'
  return name === 'wrong bytes' && ofBlob(phase) ? 'either' : 'right bytes'
}

function deadlineOf({ name }: FaultCase, place: Place, phase: Phase): number {
  if (name === 'silence after the head' && place.length > 1 && ofBlob(phase)) return twiceSilentDeadline
  const asksAll = place.includes('gcr') && place.includes('hub')
  const nothingCame = phase === 'tag' || phase === 'manifest' || phase === 'blob start'
  return name === 'silence' && asksAll && nothingCame ? silentDeadline : deadline
}

/** All cells, by rule. */
export const cells: readonly Cell[] = faultCases.flatMap(faultCase =>
  (Object.keys(places) as Phase[]).flatMap(phase =>
    places[phase]
      .filter(place => makesSense(faultCase, place, phase))
      .map(place => ({
        name: `${faultCase.name} / ${place.join(' and ')} / ${phase}`,
        faultCase,
        place,
        phase,
        expected: expectedOf(faultCase, place, phase),
        deadline: deadlineOf(faultCase, place, phase),
      })),
  ),
)
