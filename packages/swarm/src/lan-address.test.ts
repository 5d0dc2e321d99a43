import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { isLanAddress, isLoopback, plainAddress } from './lan-address.ts'

test('loopback, private, link-local and unique-local addresses are of the LAN', () => {
  const lan = ['127.0.0.1', '127.9.9.9', '10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.3.4']
  for (const host of [...lan, '::1', 'fe80::1', 'fe80::1%eth0', 'febf::1', 'fd00::5', 'fc00::1'])
    assert.ok(isLanAddress(host), host)
})

test('others are not, nor is what is no address', () => {
  const foreign = [
    '8.8.8.8',
    '100.64.0.1',
    '172.32.0.1',
    '172.15.0.1',
    '192.0.2.1',
    '0.0.0.0',
    '224.0.0.251',
    '255.255.255.255',
  ]
  for (const host of [...foreign, '2001:db8::1', '2600::1', '::', 'ff02::fb', 'fec0::1', '64:ff9b::a00:1'])
    assert.not(isLanAddress(host), host)
  for (const host of [
    '',
    'localhost',
    '10.1',
    '012.0.0.1',
    '0x0a.0.0.1',
    '10.0.0.1:80',
    '%eth0',
    '[::1]',
    '10.0.0.1/8',
  ])
    assert.not(isLanAddress(host), host)
})

test('an IPv4-mapped address is judged as IPv4', () => {
  assert.ok(isLanAddress('::ffff:10.0.0.1'))
  assert.ok(isLanAddress('::ffff:a00:1'))
  assert.not(isLanAddress('::ffff:8.8.8.8'))
  assert.ok(isLoopback('::ffff:127.0.0.1'))
  assert.not(isLoopback('10.0.0.1'))
})

test('a plain address is IPv4 where it can be', () => {
  assert.is(plainAddress('::ffff:10.0.0.1'), '10.0.0.1')
  assert.is(plainAddress('::ffff:a00:1'), '10.0.0.1')
  for (const host of ['10.0.0.1', 'fe80::1%eth0', '::1', '', 'not an address']) assert.is(plainAddress(host), host)
})

test('no text makes it throw', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.ipV6(), fc.ipV4Extended()), text => {
      isLanAddress(text)
      isLoopback(text)
      plainAddress(text)
    }),
  )
})

test.run()
