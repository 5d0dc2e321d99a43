import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Arrivals } from './arrivals.ts'

class Connection extends EventTarget {
  status = 'open'

  close(): void {
    this.status = 'closed'
    this.dispatchEvent(new Event('close'))
  }
}

const host = '10.0.0.7'

/** Connections from one address, until no more are taken. */
function fill(arrivals: Arrivals, host: string): Connection[] {
  const taken: Connection[] = []
  for (;;) {
    const connection = new Connection()
    if (taken.length > 1000 || !arrivals.take(host, connection)) return taken
    taken.push(connection)
  }
}

test('one address has its places, and no more', () => {
  const arrivals = new Arrivals()
  assert.is(fill(arrivals, host).length, 64)
  assert.ok(arrivals.take('10.0.0.8', new Connection()))
})

test('a place is free again when its connection is closed, once', () => {
  const arrivals = new Arrivals()
  const [first, second] = fill(arrivals, host)
  first?.close()
  first?.close()
  assert.is(fill(arrivals, host).length, 1)
  second?.close()
  assert.is(fill(arrivals, host).length, 1)
})

test('what is closed already takes no place', () => {
  const arrivals = new Arrivals()
  const gone = new Connection()
  gone.close()
  assert.not(arrivals.take(host, gone))
  assert.is(fill(arrivals, host).length, 64)
})

test('on this very machine everybody may connect as often as they like', () => {
  assert.is(fill(new Arrivals(), '127.0.0.1').length, 1001)
})

test.run()
