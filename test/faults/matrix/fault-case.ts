import type { Fault } from '../../../scripts/internet/fault.ts'

export type Phase = 'ping' | 'token' | 'tag' | 'manifest' | 'blob start' | 'blob middle' | 'blob end'

/** What a fault is made of in the world where it happens. */
export type Site = {
  /** The token service of Docker Hub. */
  readonly realm: string
  /** Host and port of a server on this machine that nobody may be sent to. */
  readonly trap: string
  /** The offset into the content from which on the fault holds. */
  readonly at: number
}

/** A way in which a server goes wrong, for as long as it is switched on. */
export type FaultCase = {
  readonly name: string
  /**
   * `position`: at an offset into a body. `body`: the whole of one. `answer`: what stands in the place of an answer, so
   * that it needs no body. `challenge`: an answer that only those give who ask for tokens.
   */
  readonly sort: 'position' | 'body' | 'answer' | 'challenge'
  /** `down`: the port is closed. */
  readonly fault: ((site: Site) => Fault) | 'down'
  /** It happens to the first request only. */
  readonly once?: true
  /** Where the right bytes are had all the same, with nobody else to turn to. */
  readonly overcome: readonly Phase[]
  /** Its time is nearly all waiting. */
  readonly waits?: true
  /** It brings bytes for ever, so that only somebody else who has the content can bring it to an end. */
  readonly unending?: true
}

const blobPhases = ['blob start', 'blob middle', 'blob end'] as const
const never: readonly Phase[] = []
const always: readonly Phase[] = ['token', 'tag', 'manifest', ...blobPhases]

const status =
  (status: number, headers: Record<string, string> = {}) =>
  (): Fault => ({
    kind: 'status',
    status,
    headers,
  })

export const faultCases: readonly FaultCase[] = [
  { name: 'silence', sort: 'answer', fault: () => ({ kind: 'hang' }), waits: true, overcome: never },
  {
    name: 'silence after the head',
    sort: 'position',
    fault: ({ at }) => ({ kind: 'stall', at }),
    waits: true,
    overcome: never,
  },
  {
    name: 'a byte a second',
    sort: 'body',
    fault: () => ({ kind: 'slow', bytesPerSecond: 1 }),
    waits: true,
    overcome: never,
    unending: true,
  },
  // With a Range, Content-Range still says how much comes, and then the blob is whole.
  {
    name: 'shorter than its length',
    sort: 'body',
    fault: () => ({ kind: 'length', by: 10 }),
    waits: true,
    overcome: ['blob middle', 'blob end'],
  },
  { name: 'longer than its length', sort: 'body', fault: () => ({ kind: 'length', by: -10 }), overcome: never },
  {
    name: 'slow',
    sort: 'body',
    fault: () => ({ kind: 'slow', bytesPerSecond: 150_000 }),
    waits: true,
    overcome: always,
  },
  { name: 'late', sort: 'answer', fault: () => ({ kind: 'delay', ms: 500 }), overcome: always },
  { name: 'cut', sort: 'position', fault: ({ at }) => ({ kind: 'cut', at }), overcome: never },
  { name: 'cut once', sort: 'position', fault: ({ at }) => ({ kind: 'cut', at }), once: true, overcome: always },
  { name: 'down', sort: 'answer', fault: 'down', overcome: never },
  { name: 'reset', sort: 'answer', fault: () => ({ kind: 'reset' }), overcome: never },
  { name: 'reset once', sort: 'answer', fault: () => ({ kind: 'reset' }), once: true, overcome: always },
  { name: '500', sort: 'answer', fault: status(500), overcome: never },
  { name: '500 once', sort: 'answer', fault: status(500), once: true, overcome: always },
  { name: '429', sort: 'answer', fault: status(429, { 'retry-after': '1' }), overcome: never },
  { name: '403', sort: 'answer', fault: status(403), overcome: never },
  { name: '404', sort: 'answer', fault: status(404), overcome: never },
  { name: 'wrong bytes', sort: 'position', fault: ({ at }) => ({ kind: 'corrupt', at }), overcome: never },
  // Of a blob it is known how much to take.
  { name: 'endless', sort: 'body', fault: () => ({ kind: 'endless' }), overcome: blobPhases },
  { name: 'redirects in a circle', sort: 'answer', fault: () => ({ kind: 'redirect' }), overcome: never },
  {
    name: 'a redirect to a private address',
    sort: 'answer',
    fault: () => ({ kind: 'redirect', to: 'https://10.0.0.1/' }),
    overcome: never,
  },
  {
    name: 'a redirect to a name for a private address',
    sort: 'answer',
    fault: ({ trap }) => ({ kind: 'redirect', to: `https://${trap}/` }),
    overcome: never,
  },
  { name: "a portal's page", sort: 'answer', fault: () => ({ kind: 'portal' }), overcome: never },
  {
    name: "the way to a portal's page",
    sort: 'answer',
    fault: ({ trap }) => ({ kind: 'portal', login: `http://${trap}/login` }),
    overcome: never,
  },
  {
    name: 'a token that has expired',
    sort: 'challenge',
    fault: ({ realm }) => ({ kind: 'challenge', realm }),
    once: true,
    overcome: always,
  },
  {
    name: 'no token is good',
    sort: 'challenge',
    fault: ({ realm }) => ({ kind: 'challenge', realm }),
    // Who comes without one is sent for one by this, as always.
    overcome: ['token'],
  },
  {
    name: 'tokens from a foreign host',
    sort: 'challenge',
    fault: ({ trap }) => ({ kind: 'challenge', realm: `https://${trap}/token` }),
    overcome: never,
  },
]
