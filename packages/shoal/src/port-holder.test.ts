import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { listeningInodes, parseLsof, parseNetstat, portHolder, programOf } from './port-holder.ts'

test('the holder of a port is found', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const holder = await portHolder(port)
  server.close()
  await once(server, 'close')
  if (holder !== null || process.platform === 'linux') assert.is(holder?.pid, process.pid)
  if (process.platform === 'linux') assert.is(holder?.command, 'node port-holder.test.ts')
  assert.is(await portHolder(port), null)
})

test("of /proc/net/tcp, listeners on the port count, connections don't", () => {
  const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0D92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0D92 0100007F:A1B2 01 00000000:00000000 00:00000000 00000000     0        0 5678 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9999 1 0000000000000000 100 0 0 10 0`
  assert.equal(listeningInodes(table, 3474), ['1234'])
})

test('a program is named by its command line', () => {
  for (const [argv, name] of [
    [['/usr/sbin/nginx', '-g', 'daemon off;', ''], 'nginx'],
    [['nginx: master process /usr/sbin/nginx', ''], 'nginx'],
    [['/opt/node/bin/node', '--no-warnings', '/srv/app/main.ts', 'start', ''], 'node main.ts'],
    [['node', '--inspect', ''], 'node'],
    [['node', '/src/packages/shoal/src/main.ts', 'start', ''], 'another shoal'],
    [['/usr/bin/node', '/usr/lib/node_modules/shoal/dist/main.js', 'start', ''], 'another shoal'],
    [['node', '/home/me/x/node_modules/.bin/shoal', 'start', ''], 'another shoal'],
    [['node', '/usr/local/bin/shoal', 'start', ''], 'another shoal'],
    [['/bin/cat', 'shoal/src/main.ts', ''], 'cat'],
    [[''], null],
  ] as const)
    assert.is(programOf(argv), name, argv.join(' '))
})

test("lsof's and netstat's answers", () => {
  assert.equal(parseLsof('p812\ncnginx\nf6\np813\ncnginx\nf6\n'), { pid: 812, command: 'nginx' })
  assert.is(parseLsof(''), null)
  const netstat = [
    '  Proto  Lokale Adresse         Remoteadresse          Status           PID',
    '  TCP    127.0.0.1:50000        127.0.0.1:3474         HERGESTELLT      77',
    '  TCP    127.0.0.1:3474         127.0.0.1:50000        HERGESTELLT      78',
    '  TCP    [::]:3474              [::]:0                 ABHÖREN          812',
  ].join('\r\n')
  assert.is(parseNetstat(netstat, 3474), 812)
  assert.is(parseNetstat(netstat, 80), null)
})

test.run()
