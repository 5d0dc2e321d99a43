import type { NetworkInterfaceInfo } from 'node:os'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { neighbourhood } from './swarm.ts'

const at = (cidr: string, internal = false): NetworkInterfaceInfo => {
  const address = cidr.split('/')[0] ?? ''
  const rest = { netmask: '', mac: '', internal, cidr }
  return address.includes(':') ? { family: 'IPv6', address, scopeid: 0, ...rest } : { family: 'IPv4', address, ...rest }
}

const isNeighbour = neighbourhood({
  lo: [at('127.0.0.1/8', true), at('::1/128', true)],
  eth0: [at('192.168.1.2/24'), at('fd00::2/64'), at('fe80::2/64')],
})

for (const address of ['192.168.1.7:3476', '[fd00::7]:3476', '[fe80::7%eth0]:3476'])
  test(`${address} is a neighbour`, () => assert.ok(isNeighbour(address)))

for (const address of [
  '192.168.1.2:4476',
  '[fd00::2]:4476',
  '127.0.0.1:4476',
  '[::1]:4476',
  '192.168.2.7:3476',
  '[fd01::7]:3476',
  '',
])
  test(`${address || 'nowhere'} is none`, () => assert.not(isNeighbour(address)))

test.run()
