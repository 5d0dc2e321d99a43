import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { HoldingsInbox } from './holdings-inbox.ts'
import { type HoldingsMessage, MessageError, type MessageErrorCode, mostPrefixes } from './message.ts'

/** An inbox, what it has told of a peer, and how often it has asked. */
function inboxWith() {
  const told: string[] = []
  const clock = { now: 0 }
  let asked = 0
  const timers = new Map<number, () => void>()
  const tell = (verb: string) => (_peer: string, bytes: Uint8Array) => {
    if (bytes.length > 0) told.push(`${verb} ${bytes[0]}`)
  }
  const inbox = new HoldingsInbox({
    peer: 'p',
    holdings: { snapshotBegun: () => void told.push('snapshot'), add: tell('add'), remove: tell('remove') },
    send: () => void asked++,
    now: () => clock.now,
    after(ms, then) {
      timers.set(clock.now + ms, then)
      return { [Symbol.dispose]: () => void timers.delete(clock.now + ms) }
    },
  })
  return { inbox, told, clock, timers, asked: () => asked }
}

const message = (seq: number, more: Partial<HoldingsMessage> = {}): HoldingsMessage => ({
  t: 'holdings',
  seq,
  reset: false,
  more: false,
  add: new Uint8Array(),
  remove: new Uint8Array(),
  ...more,
})

const prefix = (first: number) => Uint8Array.of(first, 0, 0, 0, 0, 0, 0, 0)

function ends(code: MessageErrorCode, receive: () => void): void {
  assert.throws(receive, (error: unknown) => error instanceof MessageError && error.code === code)
}

test('a snapshot and what follows it are told in order, what goes before what comes', () => {
  const { inbox, told, asked } = inboxWith()
  inbox.receive(message(1, { reset: true, more: true, add: prefix(1) }))
  inbox.receive(message(2, { add: prefix(2) }))
  inbox.receive(message(3, { add: prefix(3), remove: prefix(1) }))
  assert.equal(told, ['snapshot', 'add 1', 'add 2', 'remove 1', 'add 3'])
  assert.is(asked(), 0)
})

test('where a number is missing it asks once, and passes over what comes until there is a snapshot', () => {
  for (const seq of [1, 3, 99]) {
    const { inbox, told, timers, asked } = inboxWith()
    inbox.receive(message(1, { reset: true }))
    inbox.receive(message(seq, { add: prefix(1) }))
    inbox.receive(message(seq + 1, { add: prefix(2) }))
    assert.is(asked(), 1)
    inbox.receive(message(seq + 2, { reset: true, add: prefix(3) }))
    inbox.receive(message(seq + 3, { add: prefix(4) }))
    assert.equal(told, ['snapshot', 'snapshot', 'add 3', 'add 4'])
    assert.is(asked(), 1)
    assert.is(timers.size, 0)
  }
})

test('a peer that sends no snapshot is asked again, until the session ends', () => {
  const { inbox, clock, timers, asked } = inboxWith()
  inbox.receive(message(2))
  for (let times = 1; times <= 3; times++) {
    assert.is(asked(), times)
    const [[at, then] = [0, () => {}]] = timers
    timers.delete(at)
    clock.now = at
    then()
  }
  assert.is(clock.now, 45_000)
  inbox.close()
  assert.is(timers.size, 0)
})

test('after its end nothing is told', () => {
  const { inbox, told } = inboxWith()
  inbox.close()
  inbox.receive(message(1, { reset: true, add: prefix(1) }))
  assert.equal(told, [])
})

test('all that is kept of a peer, again every 10 s, and changes every 100 ms are no flood', () => {
  const { inbox, clock } = inboxWith()
  let seq = 0
  for (let second = 0; second < 120; second++) {
    for (let part = 1; second % 10 === 0 && part <= 25; part++)
      inbox.receive(message(++seq, { reset: part === 1, more: part < 25, add: new Uint8Array(8 * mostPrefixes) }))
    for (let tenth = 0; tenth < 10; tenth++) {
      clock.now += 100
      inbox.receive(message(++seq, { add: prefix(1) }))
    }
  }
})

test('messages that have waited while this machine slept are no flood', () => {
  const { inbox } = inboxWith()
  for (let seq = 1; seq <= 500; seq++) inbox.receive(message(seq, { add: prefix(1) }))
})

test('a flood of messages, or of prefixes, ends the session', () => {
  const many = inboxWith()
  ends('FLOOD', () => {
    for (let seq = 1; seq <= 2000; seq++) many.inbox.receive(message(seq, { reset: true }))
  })
  const large = inboxWith()
  const add = new Uint8Array(8 * mostPrefixes)
  ends('FLOOD', () => {
    for (let seq = 1; seq <= 200; seq++) large.inbox.receive(message(seq, { add }))
  })
  const steady = inboxWith()
  ends('FLOOD', () => {
    for (let seq = 1; seq <= 2000; seq++) {
      steady.clock.now += 100
      steady.inbox.receive(message(seq, { add }))
    }
  })
})

test('a snapshot without end ends the session, however slowly it comes', () => {
  const { inbox, clock } = inboxWith()
  ends('ENDLESS', () => {
    for (let seq = 1; seq <= 200; seq++) {
      clock.now += 10_000
      inbox.receive(message(seq, { reset: seq === 1, more: true, add: prefix(1) }))
    }
  })
})

test.run()
