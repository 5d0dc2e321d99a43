import { mock } from 'node:test'
import type { LimitMessage } from '@shoal/swarm/message'
import type { Registry } from '@shoal/upstream/registry'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MirrorWorld, name, never } from '../../../test/mirror-world.ts'
import { imageOf } from '../../../test/scripted-registry.ts'
import { createLog } from './log.ts'
import { OfficeLimits } from './office-limits.ts'

const hub = 'registry-1.docker.io'
const shared = { shared: true }

/** An office's limits, what is told to peers and to the log, and a clock. */
function office(registries: ReadonlyMap<string, Registry> = new Map()) {
  mock.timers.enable({ apis: ['setTimeout'] })
  const clock = { now: Date.parse('2026-08-01T12:00:00Z') }
  const told: LimitMessage[] = []
  const lines: { level: number; msg: string }[] = []
  const limits = new OfficeLimits({
    registries,
    log: createLog(line => lines.push(JSON.parse(line))),
    tell: limit => void told.push(limit),
    now: () => clock.now,
  })
  return {
    limits,
    told,
    clock,
    lines,
    said: () => lines.splice(0).map(({ level, msg }) => `${level === 40 ? 'warning' : 'info'}: ${msg}`),
    /** The hub says how many are left. */
    left: (remaining: number, source: string | undefined = '192.0.2.1') =>
      limits.said(shared, hub, { limit: 100, remaining, window: 21_600, source, at: clock.now }),
    pass(ms: number) {
      clock.now += ms
      mock.timers.tick(ms)
    },
    [Symbol.dispose]() {
      limits[Symbol.dispose]()
      mock.timers.reset()
    },
  }
}

test('the log says once that a limit comes near, once that it is reached, and once that it is over', () => {
  using w = office()
  for (const remaining of [100, 50, 11]) w.left(remaining)
  assert.equal(w.said(), [])
  for (const remaining of [10, 9, 9]) w.left(remaining)
  assert.equal(w.said(), [
    `warning: ${hub} gives all behind 192.0.2.1 10 more pulls of 100, until 2026-08-01T18:00:00.000Z at the latest: manifests come from peers first, and tags are checked as ever`,
  ])
  // As pulls are forgotten one by one, some come back.
  for (const remaining of [0, 0, 1, 0, 11, 10, 0]) w.left(remaining)
  assert.equal(w.said(), [
    `warning: ${hub} gives all behind 192.0.2.1 no more pulls, until 2026-08-01T18:00:00.000Z at the latest: what is held here or by peers is served, and tags are checked as ever`,
  ])
  for (const remaining of [99, 98]) w.left(remaining)
  assert.equal(w.said(), [`info: ${hub} gives all behind 192.0.2.1 pulls as ever: 99 of 100 are left`])
  w.left(10)
  assert.is(w.said().length, 1)
})

test('peers are told what has changed, at most once a second, and at once if the end has come nearer', () => {
  using w = office()
  const remaining = () => w.told.splice(0).map(({ remaining }) => remaining)
  w.left(60)
  w.left(60)
  w.left(59)
  w.left(58)
  assert.equal(remaining(), [60])
  w.pass(1000)
  assert.equal(remaining(), [58])
  w.left(57)
  w.left(10)
  w.left(9)
  w.left(0)
  assert.equal(remaining(), [10, 0])
  w.pass(5000)
  assert.equal(remaining(), [])
})

test('who joins is told what is known, and how old it is', () => {
  using w = office()
  assert.equal(w.limits.known, [])
  w.left(60)
  w.pass(7000)
  const [{ key, ...rest } = { key: new Uint8Array() }] = w.limits.known
  assert.is(key.length, 8)
  assert.equal(rest, { t: 'limit', limit: 100, remaining: 60, window: 21_600, age: 7000 })
  w.pass(21_593_000)
  assert.equal(w.limits.known, [], 'what is older than the window is no longer so')
})

test('neither is whom a registry counts told, nor anything of a registry that may not be shared', () => {
  using w = office()
  w.left(60)
  assert.not(Buffer.from(w.told[0]?.key ?? []).includes('192.0.2'))
  w.limits.said({ shared: false }, 'registry.example', {
    limit: 100,
    remaining: 5,
    window: 60_000,
    source: 'alice',
    at: w.clock.now,
  })
  w.limits.said(shared, 'other.example', { limit: 1, remaining: 1, window: 60_000, source: undefined, at: w.clock.now })
  assert.is(w.told.length, 1)
  assert.is(w.limits.known.length, 1)
  assert.is(w.said().length, 1, 'the log says it all the same')
})

test('what a peer says is heard if the registry counts both together', async () => {
  await using world = await MirrorWorld.open()
  const { registry } = world.remote
  const { label } = registry.authority
  world.remote.put(name.repository, 'latest', imageOf('app'))
  world.remote.remaining = 80
  world.remote.source = '192.0.2.1'
  await registry.authority.head(name, 'latest', never)
  /** What this machine has heard once a peer has told it that. */
  const hears = (source: string, host = label) => {
    using w = office(new Map([[registry.host, registry]]))
    // The endpoint has a clock of its own.
    w.clock.now = Date.now() + 1000
    w.limits.said(shared, host, { limit: 100, remaining: 60, window: 21_600, source, at: w.clock.now })
    for (const message of w.told) w.limits.heard(message)
    return registry.authority.state.heard?.remaining
  }
  assert.is(hears('192.0.2.2'), undefined)
  assert.is(hears('192.0.2.1', 'other.example'), undefined)
  assert.is(hears('192.0.2.1'), 60)
})

test.run()
