import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bytes, duration, listen, listenIp, type Quantity, rate, size, sizeOn } from './quantity.ts'

const amount = fc.oneof(
  fc.nat(),
  fc.maxSafeNat(),
  fc.nat(999).map(n => n * 1000 ** 3),
  fc.nat(999).map(n => n * 1024 ** 3),
)
const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain(), fc.constant('localhost'))

function roundTrips<T>(quantity: Quantity<T>, values: fc.Arbitrary<T>): void {
  fc.assert(fc.property(values, value => assert.equal(quantity.parse(quantity.format(value)), value)))
}

test('what is formatted parses to the same value', () => {
  roundTrips(bytes, amount)
  roundTrips(
    rate,
    amount.filter(n => n > 0),
  )
  roundTrips(duration, amount)
  roundTrips(
    size,
    fc.oneof(
      amount.map(bytes => ({ bytes })),
      fc.integer({ min: 1, max: 100 }).map(percent => ({ percent })),
    ),
  )
  roundTrips(listen, fc.record({ host, port: fc.nat(65535) }, { noNullPrototype: true }))
})

test('no text makes a parser throw', () => {
  for (const quantity of [bytes, rate, duration, size, listen]) {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.string({ unit: 'grapheme' })), text => void quantity.parse(text)))
  }
})

test('sizes are decimal or binary, as written', () => {
  assert.equal(bytes.parse('50GB'), 50e9)
  assert.equal(bytes.parse('50GiB'), 50 * 2 ** 30)
  assert.equal(bytes.parse('1.5 kb'), 1500)
  assert.equal(bytes.format(50e9), '50GB')
  assert.equal(bytes.format(0), '0B')
  for (const bad of ['', '50', 'GB', '-1GB', '1e9GB', '50XB', 'many', '99999999TB'])
    assert.is(bytes.parse(bad), null, bad)
})

test('a percentage is of the disk', () => {
  assert.equal(size.parse('20%'), { percent: 20 })
  assert.is(sizeOn({ percent: 20 }, 1001), 200)
  assert.is(sizeOn({ bytes: 5 }, 1000), 5)
  for (const bad of ['0%', '101%', '-5%', '%']) assert.is(size.parse(bad), null, bad)
})

test('a rate needs its per second', () => {
  assert.is(rate.parse('20MB/s'), 20e6)
  for (const bad of ['20MB', '20MB/h', '0MB/s', '/s']) assert.is(rate.parse(bad), null, bad)
})

test('durations', () => {
  assert.equal(['5s', '500ms', '2m', '1h', '1.5s', '0s'].map(duration.parse), [5000, 500, 120_000, 3_600_000, 1500, 0])
  for (const bad of ['5', 's', '5d', '-5s']) assert.is(duration.parse(bad), null, bad)
})

test('addresses have a host and a port', () => {
  assert.equal(listen.parse('[::1]:0'), { host: '::1', port: 0 })
  assert.equal(listen.parse('my-host.lan:3474'), { host: 'my-host.lan', port: 3474 })
  const bad = [
    '',
    ':3474',
    '3474',
    'localhost',
    '127.0.0.1:65536',
    '::1:3474',
    '[::1]',
    '[x]:1',
    '1.2.3:80',
    'a b:1',
    'http://a:1',
  ]
  for (const text of bad) assert.is(listen.parse(text), null, text)
})

test('what peers are told has no name', () => {
  assert.equal(listenIp.parse('[::]:3476'), { host: '::', port: 3476 })
  for (const text of ['localhost:3476', '3476']) assert.is(listenIp.parse(text), null, text)
})

test.run()
