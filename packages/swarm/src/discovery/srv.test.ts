import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type SrvRecord, type SrvResolver, searchDomains, srvTargets } from './srv.ts'

function resolver(services: Record<string, SrvRecord[]>, hosts: Record<string, string[]>): SrvResolver {
  const find = async <T>(table: Record<string, T>, name: string): Promise<T> => {
    const found = table[name]
    if (found === undefined) throw new Error('ENOTFOUND')
    return found
  }
  return { resolveSrv: name => find(services, name), lookup: host => find(hosts, host) }
}

test('search domains are those of resolv.conf, and of the host', async () => {
  const readResolvConf = async () =>
    '# search no.example\nnameserver 10.0.0.1\nsearch office.example Lab.Office.Example.\ndomain old.example\noptions ndots:1\n'
  assert.equal(await searchDomains({ readResolvConf, hostname: 'desk.floor2.example' }), [
    'office.example',
    'lab.office.example',
    'old.example',
    'floor2.example',
  ])
})

test('what is no domain is left out', async () => {
  const search = `search . local a.local -bad..x ${'x'.repeat(64)}.example ${'y.'.repeat(200)}example ../etc a b c d e f g`
  assert.equal(await searchDomains({ readResolvConf: async () => search, hostname: 'desk' }), [
    'a',
    'b',
    'c',
    'd',
    'e',
    'f',
  ])
  const missing = () => Promise.reject(new Error('ENOENT'))
  assert.equal(await searchDomains({ readResolvConf: missing, hostname: 'desk.local' }), [])
})

test('SRV records lead to addresses of the LAN, those of high priority first', async () => {
  const found = await srvTargets(
    ['office.example', 'none.example'],
    resolver(
      {
        '_shoal._tcp.office.example': [
          { name: 'b.office.example', port: 3476, priority: 20 },
          { name: 'a.office.example', port: 4000, priority: 10 },
          { name: 'gone.office.example', port: 1, priority: 1 },
        ],
      },
      { 'a.office.example': ['10.0.0.1', '8.8.8.8', 'fd00::1'], 'b.office.example': ['::ffff:10.0.0.2', '10.0.0.2'] },
    ),
  )
  assert.equal(found, [
    { host: '10.0.0.1', port: 4000 },
    { host: 'fd00::1', port: 4000 },
    { host: '10.0.0.2', port: 3476 },
  ])
})

test('no service is no target', async () => {
  const none = resolver(
    {
      '_shoal._tcp.a': [
        { name: '.', port: 0, priority: 0 },
        { name: '', port: 5, priority: 0 },
      ],
    },
    {},
  )
  assert.equal(await srvTargets(['a', 'b'], none), [])
  assert.equal(await srvTargets([], none), [])
})

test('a DNS that says a lot is heard in part', async () => {
  const records = Array.from({ length: 500 }, (_, index) => ({ name: `h${index}`, port: 1, priority: 0 }))
  const many: SrvResolver = {
    resolveSrv: async () => records,
    lookup: async host => Array.from({ length: 100 }, (_, index) => `10.${host.slice(1)}.0.${index}`).slice(0, 100),
  }
  assert.ok((await srvTargets(['a', 'b', 'c'], many)).length <= 32 * 8)
})

test.run()
