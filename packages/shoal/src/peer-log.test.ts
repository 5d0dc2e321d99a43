import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createLog } from './log.ts'
import { PeerLog } from './peer-log.ts'

const id = '12D3KooWA'

/** A log whose lines are kept: warnings are 40, what is worth knowing 30. */
function kept() {
  const lines: { level: number; msg: string }[] = []
  let time = 0
  const log = new PeerLog(
    createLog(line => lines.push(JSON.parse(line))),
    () => time,
  )
  return { log, lines, pass: (ms: number) => (time += ms), said: () => lines.map(({ msg }) => msg) }
}

test('who comes, goes and is banned is told, with the remedy', () => {
  const { log, lines } = kept()
  log.joined({ id, name: 'ada', address: '192.168.1.7:3476' })
  log.left({ id, name: 'ada' }, undefined)
  log.left({ id: '12D3KooWB', name: '' }, 'it did not answer')
  log.banned({ id, name: 'ada', reason: 'wrong bytes', at: 0, until: null })
  log.banned({ id: '12D3KooWB', name: 'bob', reason: 'a drip', at: 0, until: 3_600_000 })
  assert.equal(
    lines.map(({ level, msg }) => [level, msg]),
    [
      [30, 'peer ada has joined, at 192.168.1.7:3476'],
      [30, 'peer ada has left'],
      [30, 'peer 12D3KooWB has left: it did not answer'],
      [40, `peer ada is banned: wrong bytes; to lift it: shoal peers --unban ${id}`],
      [40, 'peer bob is banned until 1970-01-01T01:00:00.000Z: a drip; to lift it: shoal peers --unban 12D3KooWB'],
    ],
  )
})

test('a peer that comes and goes all the time is told of thrice in ten minutes, a warning once', () => {
  const { log, said, pass } = kept()
  const comeAndGo = () => {
    log.joined({ id, name: 'ada', address: '192.168.1.7:3476' })
    log.left({ id, name: 'ada' }, undefined)
    log.warning('nobody answers')
  }
  for (let times = 0; times < 10; times++) comeAndGo()
  assert.is(said().length, 7)
  pass(10 * 60_000)
  comeAndGo()
  assert.is(said().length, 10)
})

test('a crowd does not fill the log', () => {
  const { log, lines, pass } = kept()
  for (let n = 0; n < 5000; n++) log.joined({ id: `12D3KooW${n}`, name: 'x', address: '10.0.0.1:1' })
  assert.is(lines.length, 40)
  assert.match(lines.at(-1)?.msg ?? '', 'shoal peers')
  pass(60_000)
  log.banned({ id, name: 'ada', reason: 'wrong bytes', at: 0, until: null })
  assert.is(lines.length, 41)
})

test('names do not steer a terminal', () => {
  const { log, said } = kept()
  log.joined({ id, name: '\u001B[2J\u202Eada\n', address: '10.0.0.1:1' })
  assert.is(said()[0], 'peer \uFFFD[2J\uFFFDada\uFFFD has joined, at 10.0.0.1:1')
})

test.run()
