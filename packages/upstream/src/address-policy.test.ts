import { SourceError } from '@shoal/store/source'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { AddressPolicy, isPublicAddress } from './address-policy.ts'

const policy = new AddressPolicy([new URL('https://registry-1.docker.io'), new URL('http://mirror.corp:5000')])

const isRefusal = (error: unknown) => error instanceof SourceError && error.code === 'broken'

test('addresses of the public internet', () => {
  for (const address of ['8.8.8.8', '1.1.1.1', '2606:4700::1111', '::ffff:8.8.8.8', '64:ff9b::8.8.8.8'])
    assert.ok(isPublicAddress(address), address)
})

test('addresses that are not', () => {
  const addresses = [
    ...['0.0.0.0', '0.1.2.3', '10.1.2.3', '100.64.0.1', '127.0.0.1', '127.255.255.254', '169.254.169.254'],
    ...['172.16.0.1', '172.31.255.255', '192.0.0.1', '192.0.2.1', '192.168.1.1', '198.18.0.1', '198.51.100.1'],
    ...['203.0.113.1', '224.0.0.1', '240.0.0.1', '255.255.255.255'],
    ...['::', '::1', 'fe80::1', 'fe80::1%eth0', 'fc00::1', 'fd12:3456::1', 'fec0::1', 'ff02::1', '2001:db8::1'],
    // The same by other ways: mapped, compatible, translated, NAT64, 6to4, Teredo.
    ...['::ffff:127.0.0.1', '::ffff:a00:1', '::127.0.0.1', '::ffff:0:127.0.0.1'],
    ...['64:ff9b::127.0.0.1', '64:ff9b::a9fe:a9fe', '64:ff9b:1::10.0.0.1', '2002:7f00:1::', '2001:0:1::'],
  ]
  for (const address of addresses) assert.not(isPublicAddress(address), address)
})

test('text that is no address is not public', () => {
  for (const text of ['', 'localhost', '08.8.8.8.8', '::g', '8.8.8.8/8', '[2606:4700::1]'])
    assert.not(isPublicAddress(text), text)
})

test('an IPv4 address is as public as its mapped form', () => {
  fc.assert(
    fc.property(fc.ipV4(), address => {
      assert.is(isPublicAddress(`::ffff:${address}`), isPublicAddress(address))
      assert.is(isPublicAddress(`64:ff9b::${address}`), isPublicAddress(address))
    }),
  )
})

test('a host that the settings name is allowed on any port; over http only if an endpoint of it is http', () => {
  assert.is(policy.admit(new URL('https://registry-1.docker.io/v2/')), 'named')
  assert.is(policy.admit(new URL('https://registry-1.docker.io:8443/')), 'named')
  assert.is(policy.admit(new URL('http://mirror.corp/')), 'named')
  assert.is(policy.admit(new URL('https://MIRROR.corp:1/')), 'named')
  assert.throws(() => policy.admit(new URL('http://registry-1.docker.io/')), isRefusal)
})

test('other hosts are allowed over https, and checked after DNS', () => {
  assert.is(policy.admit(new URL('https://cdn.example.net/x')), 'public')
  assert.is(policy.admit(new URL('https://8.8.8.8/x')), 'public')
  assert.is(policy.admit(new URL('https://bücher.example/x')), 'public')
  for (const url of ['http://cdn.example.net/', 'ftp://cdn.example.net/', 'file:///etc/passwd', 'data:,x'])
    assert.throws(() => policy.admit(new URL(url)), isRefusal, url)
})

test('an address that is not public is refused, however it is written', () => {
  const hosts = [
    ...['127.0.0.1', '127.1', '0x7f.1', '0x7f000001', '2130706433', '017700000001', '127.0.0.1.', '127%2e0.0.1'],
    ...['[::1]', '[::ffff:127.0.0.1]', '[0:0:0:0:0:ffff:7f00:1]', '[64:ff9b::7f00:1]', '[fe80::1]', '[::]', '0'],
    ...['169.254.169.254', '１２７.0.0.1'],
  ]
  for (const host of hosts) assert.throws(() => policy.admit(new URL(`https://${host}/`)), isRefusal, host)
})

test('a name that is nearly one of the settings is another host', () => {
  for (const host of ['mirror.corp.', 'mirror.corp.example', 'xmirror.corp'])
    assert.throws(() => policy.admit(new URL(`http://${host}/`)), isRefusal, host)
  assert.is(policy.admit(new URL('https://registry-1.docker.io./')), 'public')
})

test('a URL with credentials is refused, and the refusal does not repeat them', () => {
  for (const url of ['https://user:secret@registry-1.docker.io/', 'https://secret@cdn.example.net/?key=secret'])
    assert.throws(
      () => policy.admit(new URL(url)),
      (error: unknown) => isRefusal(error) && !(error as Error).message.includes('secret'),
    )
})

test('a realm belongs to an endpoint of the same registrable domain', () => {
  const belongs = (realm: string, endpoint: string) =>
    policy.realmBelongs(new URL(`https://${realm}/token`), new URL(`https://${endpoint}`))
  assert.ok(belongs('auth.docker.io', 'registry-1.docker.io'))
  assert.ok(belongs('auth.example.co.uk', 'registry.example.co.uk'))
  assert.ok(belongs('localhost:1', 'localhost:2'))
  assert.ok(belongs('127.0.0.1:1', '127.0.0.1:2'))
  assert.ok(belongs('auth.b\u00fccher.example', 'xn--bcher-kva.example'))
  assert.not(belongs('auth.docker.io.evil.example', 'registry-1.docker.io'))
  assert.not(belongs('auth.evil.co.uk', 'registry.example.co.uk'))
  assert.not(belongs('evil.github.io', 'registry.github.io'))
  assert.not(belongs('127.0.0.2', '127.0.0.1'))
  assert.not(belongs('evil.local', 'localhost'))
  assert.not(belongs('[::1]', '[::2]'))
  assert.not(belongs('corp', 'registry'))
})

test.run()
