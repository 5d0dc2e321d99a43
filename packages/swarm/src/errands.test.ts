import { digestOf } from '@shoal/oci/digest'
import { formatName } from '@shoal/oci/name'
import type { Want } from '@shoal/store/source'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Errands } from './errands.ts'
import type { ErrandMessage } from './message.ts'

const hour = 3_600_000

/** A layer, by its number. */
function errand(index: number, fields: Partial<ErrandMessage> = {}): ErrandMessage {
  const digest = digestOf(Buffer.from(`layer ${index}`))
  return { t: 'errand', name: 'docker.io/library/nginx', digest, kind: 'blob', size: 5, ...fields }
}

/** Errands that go on until a test ends them, and a clock. */
function world() {
  const clock = { now: 0 }
  const begun: Want[] = []
  const ends: ((error?: Error) => void)[] = []
  const run = (want: Want) => {
    begun.push(want)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    ends.push(error => (error ? reject(error) : resolve()))
    return promise
  }
  const errands = new Errands({ run, now: () => clock.now })
  return {
    clock,
    begun,
    receive: (peer: string, message: ErrandMessage) => errands.receive(peer, message),
    /** All that are under way end. */
    async endAll(error?: Error) {
      for (const end of ends.splice(0)) end(error)
      await new Promise(resolve => setImmediate(resolve))
    },
  }
}

test('what a peer asks for is fetched, with the size if it told one', () => {
  const it = world()
  it.receive('bob', errand(1))
  it.receive('bob', errand(2, { kind: 'manifest', size: 0, name: 'registry.office:5000/a/b' }))
  assert.equal(
    it.begun.map(want => ({ ...want, name: formatName(want.name) })),
    [
      { name: 'docker.io/library/nginx', digest: errand(1).digest, kind: 'blob', size: 5 },
      { name: 'registry.office:5000/a/b', digest: errand(2).digest, kind: 'manifest' },
    ],
  )
})

test('what is under way is not begun again, whoever asks; afterwards it is', async () => {
  const it = world()
  it.receive('bob', errand(1))
  it.receive('bob', errand(1))
  it.receive('eve', errand(1))
  assert.is(it.begun.length, 1)
  await it.endAll()
  it.receive('eve', errand(1))
  assert.is(it.begun.length, 2)
})

test('one peer has four at once, all together eight', async () => {
  const it = world()
  for (let index = 0; index < 10; index++) it.receive('bob', errand(index))
  assert.is(it.begun.length, 4)
  for (let index = 10; index < 20; index++) it.receive('eve', errand(index))
  assert.is(it.begun.length, 8)
  it.receive('joe', errand(20))
  assert.is(it.begun.length, 8)
  await it.endAll()
  it.receive('joe', errand(20))
  assert.is(it.begun.length, 9)
})

test('one that fails makes room, too', async () => {
  const it = world()
  for (let index = 0; index < 4; index++) it.receive('bob', errand(index))
  await it.endAll(new Error('the disk is full'))
  it.receive('bob', errand(4))
  assert.is(it.begun.length, 5)
})

test('one peer has five hundred in an hour, and others theirs', async () => {
  const it = world()
  for (let index = 0; index < 510; index++) {
    it.receive('bob', errand(index))
    await it.endAll()
  }
  assert.is(it.begun.length, 500)
  it.receive('eve', errand(600))
  assert.is(it.begun.length, 501)
  it.clock.now += hour
  it.receive('bob', errand(601))
  assert.is(it.begun.length, 501)
  it.clock.now++
  it.receive('bob', errand(601))
  assert.is(it.begun.length, 502)
})

test('a name that is none is passed over, and costs nothing', () => {
  const it = world()
  for (const name of ['nginx', '/nginx', 'docker.io/', 'docker.io/../etc', 'docker.io/UPPER', 'a b/c'])
    it.receive('bob', errand(1, { name }))
  assert.equal(it.begun, [])
})

test.run()
