import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { choose, Provider } from './provider.ts'

const clock = { now: 0 }
const named = (name: string) =>
  new Provider(
    name,
    name,
    () => clock.now,
    () => {},
  )
const megabyte = 1024 * 1024

test('the one that was measured faster is chosen', () => {
  const [slow, fast] = [named('slow'), named('fast')]
  slow.gave(10 * megabyte, 10_000)
  fast.gave(10 * megabyte, 100)
  assert.is(
    choose([slow, fast], 50 * megabyte, () => 0.5),
    fast,
  )
})

test('one that is giving already is passed over for its like', () => {
  const [one, other] = [named('one'), named('other')]
  one.active = 1
  assert.is(
    choose([one, other], 50 * megabyte, () => 0.5),
    other,
  )
})

test('of nobody, nobody is chosen; of one, that one, however it is', () => {
  assert.is(
    choose([], megabyte, () => 0.5),
    undefined,
  )
  const only = named('only')
  for (let count = 0; count < 20; count++) only.failed()
  only.wasBusy()
  assert.is(
    choose([only], megabyte, () => 0.5),
    only,
  )
})

test('for little the nearest is chosen, for much the fastest', () => {
  const [near, fast] = [named('near'), named('fast')]
  near.rtt = 1
  fast.rtt = 20
  near.gave(megabyte, 100)
  fast.gave(megabyte, 10)
  const chosen = (bytes: number) => choose([near, fast], bytes, () => 0.5)
  assert.is(chosen(1000), near)
  assert.is(chosen(100 * megabyte), fast)
})

test('one that failed lately, or is busy, is passed over for its like', () => {
  for (const happens of [(peer: Provider) => peer.failed(), (peer: Provider) => peer.wasBusy()]) {
    const [one, other] = [named('one'), named('other')]
    happens(one)
    assert.is(
      choose([one, other], 50 * megabyte, () => 0.5),
      other,
    )
  }
})

test('one that was busy is as likely again half a second later', () => {
  const [one, other] = [named('one'), named('other')]
  one.wasBusy()
  clock.now += 501
  assert.is(
    choose([one, other], megabyte, () => 0.5),
    one,
  )
})

test('not everybody asks the same one of those who are alike, and nobody one that is far slower', () => {
  const [one, other, slow] = [named('one'), named('other'), named('slow')]
  slow.gave(megabyte, 10_000)
  let seed = 1
  const random = () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647
  const chosen = Array.from({ length: 200 }, () => choose([slow, one, other], 10 * megabyte, random))
  const count = (peer: Provider) => chosen.filter(each => each === peer).length
  assert.ok(count(one) > 50 && count(other) > 50, `${count(one)} and ${count(other)}`)
  assert.is(count(slow), 0)
})

test('a peer that failed rests, longer each time, and is as new once it has given', () => {
  const peer = named('peer')
  peer.failed()
  assert.ok(peer.rests)
  clock.now += 3001
  assert.not(peer.rests)
  peer.failed()
  clock.now += 3001
  assert.ok(peer.rests)
  clock.now += 3000
  assert.not(peer.rests)
  peer.succeeded()
  peer.failed()
  clock.now += 3001
  assert.not(peer.rests)
})

test('one that announces what it lacks is believed less for a while', () => {
  const peer = named('peer')
  for (let count = 0; count < 5; count++) {
    assert.not(peer.disbelieved)
    peer.lacked()
  }
  assert.ok(peer.disbelieved)
  clock.now += 60_001
  assert.not(peer.disbelieved)
})

test('what a peer lacked long ago is forgotten', () => {
  const peer = named('peer')
  for (let count = 0; count < 12; count++) {
    clock.now += 61_000
    peer.lacked()
    assert.not(peer.disbelieved)
  }
})

test('what goes wrong for many downloads at once counts once', () => {
  const peer = named('peer')
  for (let count = 0; count < 8; count++) peer.failed()
  clock.now += 3001
  assert.not(peer.rests)
})

test('few bytes say nothing of a rate', () => {
  const peer = named('peer')
  peer.gave(1000, 1000)
  assert.is(peer.rate, undefined)
  assert.is(peer.receivedBytes, 1000)
})

test.run()
