import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { BootstrapError, BootstrapPeer, type Lookup } from './bootstrap.ts'

const peerId = '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp'
const nothing: Lookup = () => Promise.reject(new Error('ENOTFOUND'))

async function addresses(text: string, lookup = nothing): Promise<readonly string[]> {
  const found = await new BootstrapPeer(text, lookup).addresses()
  return found.map(({ host, port, peerId }) => `${host} ${port}${peerId === undefined ? '' : ` ${peerId}`}`)
}

test('an address is taken as it is', async () => {
  const cases: Record<string, string> = {
    '10.0.0.5': '10.0.0.5 3476',
    '203.0.113.5:4000': '203.0.113.5 4000',
    'fd00::5': 'fd00::5 3476',
    '[fd00::5]': 'fd00::5 3476',
    '[fe80::5%eth0]:4000': 'fe80::5%eth0 4000',
    '/ip4/10.0.0.5/tcp/4000': '10.0.0.5 4000',
    '/ip4/10.0.0.5': '10.0.0.5 3476',
    '/ip6/fd00::5/tcp/3476': 'fd00::5 3476',
    '/ip6zone/eth0/ip6/fe80::5/tcp/3476': 'fe80::5%eth0 3476',
    [`/ip4/10.0.0.5/tcp/3476/p2p/${peerId}`]: `10.0.0.5 3476 ${peerId}`,
    '[::ffff:10.0.0.5]:1': '10.0.0.5 1',
  }
  for (const [text, address] of Object.entries(cases)) assert.equal(await addresses(text), [address], text)
})

test('a name is resolved anew each time', async () => {
  const answers = [['10.0.0.1', '10.0.0.1', 'fd00::1'], ['10.0.0.2']]
  const peer = new BootstrapPeer('desk.example:4000', async () => answers.shift() ?? [])
  assert.equal(await peer.addresses(), [
    { host: '10.0.0.1', port: 4000 },
    { host: 'fd00::1', port: 4000 },
  ])
  assert.equal(await peer.addresses(), [{ host: '10.0.0.2', port: 4000 }])
  assert.equal(await peer.addresses(), [])
})

test('a multiaddr says which family is meant', async () => {
  const asked: string[] = []
  const lookup: Lookup = async (host, family) => {
    asked.push(`${host} ${family}`)
    return ['10.0.0.1']
  }
  for (const text of ['/dns/desk/tcp/1', '/dns4/desk/tcp/1', '/dns6/desk/tcp/1', 'desk']) await addresses(text, lookup)
  assert.equal(asked, ['desk 0', 'desk 4', 'desk 6', 'desk 0'])
  assert.equal(await addresses(`/dns4/desk/tcp/9/p2p/${peerId}`, lookup), [`10.0.0.1 9 ${peerId}`])
})

test('while one look-up is under way there is no second', async () => {
  let asked = 0
  const answer = Promise.withResolvers<string[]>()
  const peer = new BootstrapPeer('desk', () => {
    asked++
    return answer.promise
  })
  const both = [peer.addresses(), peer.addresses()]
  answer.resolve(['10.0.0.1'])
  assert.equal(await Promise.all(both), Array(2).fill([{ host: '10.0.0.1', port: 3476 }]))
  assert.is(asked, 1)
})

test('a name that nobody knows, or that has senseless addresses, is nowhere', async () => {
  assert.equal(await addresses('desk'), [])
  assert.equal(await addresses('desk', async () => ['', 'desk', '10.1']), [])
})

test('what names no peer is refused', () => {
  const wrong = [
    '',
    'a b',
    'http://a',
    'a:0',
    'a:65536',
    'a:b',
    '[10.0.0.1]:1',
    '[fd00::5',
    ':1',
    'a..b',
    '/',
    '/ip4/10.0.0.5/udp/1',
  ]
  for (const text of [
    ...wrong,
    '/ip4/x/tcp/1',
    '/tcp/1',
    '/ip4/10.0.0.5/tcp/0',
    '/dnsaddr/a.example',
    '/ip4/10.0.0.5/tcp/1/ws',
    '/dns4/a b/tcp/1',
  ])
    assert.throws(
      () => new BootstrapPeer(text),
      (error: unknown) => error instanceof BootstrapError && error.code === 'BOOTSTRAP_INVALID',
      text,
    )
})

test.run()
