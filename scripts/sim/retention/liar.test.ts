import assert from 'node:assert/strict'
import { halfLife, scoreOf } from '@shoal/retention/decay'
import { test } from 'uvu'
import { generateTrace } from './generated.ts'
import type { Policy } from './keeping.ts'
import { type Outcome, replay } from './office.ts'
import { officePopularity, shoal } from './policies/shoal.ts'

const peers = 8
const year = 365 * 24 * 3_600_000
const trace = generateTrace(40_000, 3)

/** How often each blob is asked for in all. */
const counts = trace.digests.map(() => 0)
for (const { blob } of trace.requests) counts[blob]!++

/** The large ones that nobody asks for twice: what an office loses most by keeping. */
const junk = trace.digests
  .map((digest, blob) => ({ digest, size: trace.sizes[blob]!, count: counts[blob]! }))
  .filter(({ count }) => count === 1)
  .sort((a, b) => b.size - a.size)
  .map(({ digest }) => digest)

/** What a liar says at a time: of its clock, and of each blob. */
type Lie = (now: number) => { readonly at: number; readonly score: number }

/** An office, and what each machine holds at the end, with a liar among them that tells it again and again. */
function office(lie?: Lie): { readonly outcome: Outcome; readonly held: readonly ReadonlySet<number>[] } {
  const told = officePopularity()
  const honest = shoal(told)
  const held: Set<number>[] = []
  let toldAt = Number.NEGATIVE_INFINITY
  const policy: Policy = machine => {
    const own = new Set<number>()
    held.push(own)
    const keeping = honest({
      ...machine,
      changed: (blob, kept) => {
        machine.changed(blob, kept)
        if (kept) own.add(blob)
        else own.delete(blob)
      },
    })
    return {
      has: blob => keeping.has(blob),
      hit: blob => keeping.hit(blob),
      miss: blob => {
        const now = machine.clock()
        if (lie && now - toldAt > halfLife / 100) {
          toldAt = now
          const { at, score } = lie(now)
          told.merge('liar', { at, rows: junk.map(image => ({ image, score })) }, now)
        }
        keeping.miss(blob)
      },
    }
  }
  const outcome = replay(policy, { trace, peers, capacity: 0.05, days: 30, wrong: 0 })
  return { outcome, held }
}

/** Of what an office holds at the end, by how often it is asked for: the part that another holds, too. */
function shared(a: readonly ReadonlySet<number>[], b: readonly ReadonlySet<number>[]): number {
  const there = new Set(b.flatMap(blobs => [...blobs]))
  let [both, all] = [0, 0]
  for (const blob of new Set(a.flatMap(blobs => [...blobs]))) {
    all += counts[blob]!
    if (there.has(blob)) both += counts[blob]!
  }
  return both / all
}

const lies: Readonly<Record<string, Lie>> = {
  'with huge counts': now => ({ at: now, score: scoreOf(1e300, now) }),
  'with a clock a year ahead': now => ({ at: now + year, score: scoreOf(1e6, now + year) }),
  'whose pulls are from next year': now => ({ at: now, score: scoreOf(1e6, now + year) }),
}

test('whatever one of nine says of the most useless blobs, the others keep nearly all that is asked for', () => {
  const { outcome: fair, held } = office()
  for (const [what, lie] of Object.entries(lies)) {
    const { outcome, held: then } = office(lie)
    assert.ok(fair.hit - outcome.hit < 0.02, `${what}: ${outcome.hit} of requests, not ${fair.hit}`)
    assert.ok(fair.localHit - outcome.localHit < 0.02, `${what}: ${outcome.localHit} on the machine itself`)
    assert.ok(fair.byteHit - outcome.byteHit < 0.05, `${what}: ${outcome.byteHit} of bytes, not ${fair.byteHit}`)
    const kept = shared(held, then)
    assert.ok(kept > 0.9, `${what}: ${kept} of what is asked for is kept as well`)
    assert.notDeepEqual(outcome, fair, `${what}: it is heard`)
    console.log(
      `measured: a liar ${what}: ${[outcome, fair].map(each => JSON.stringify(each)).join(', not ')}; ${kept}`,
    )
  }
})

test.run()
