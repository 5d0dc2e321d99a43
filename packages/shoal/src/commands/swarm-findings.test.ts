import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SwarmReport } from '../admin/swarm.ts'
import { firewallOf, swarmFindings } from './swarm-findings.ts'

const report: SwarmReport = {
  network: 'open',
  ports: { swarm: 3476, transfer: 3477 },
  share: 'public',
  resting: null,
  bootstrap: [],
  peers: { connected: 2, neighbours: 2, away: 0, banned: 0 },
  multicast: { interfaces: [{ name: 'eth0', hearsItself: true }], heard: 2, strangers: 0 },
}
const reached = [{ name: 'ada', swarm: 'ok', transfer: 'ok' }]
const firewall = (ports: readonly string[]) => `open ${ports.join()}`

const found = (...args: Parameters<typeof swarmFindings>) =>
  swarmFindings(...args).map(({ check, result, message, remedy }) =>
    [result, `${check}: ${message}`, ...(remedy === undefined ? [] : [remedy])].join(' | '),
  )

/** The one finding that is not `ok`. */
function trouble(...args: Parameters<typeof swarmFindings>): string {
  const lines = found(...args).filter(line => !line.startsWith('ok '))
  assert.is(lines.length, 1, lines.join('\n'))
  return lines[0] ?? ''
}

test('all is well', () => {
  assert.equal(found(report, reached, firewall), [
    'ok | swarm: 2 peers in the open network of the LAN',
    'ok | multicast: comes through on eth0',
    'ok | ports: peers can connect to port 3476 (swarm.listen)',
    'ok | ports: peers can connect to port 3477 (swarm.transfer_listen)',
  ])
})

test('what is chosen is no trouble', () => {
  assert.equal(found(null, [], firewall), ['ok | swarm: is off (swarm.enabled = false)'])
  const lines = found({ ...report, share: 'none', multicast: null }, reached, firewall)
  assert.ok(lines.every(line => line.startsWith('ok ')))
  assert.match(lines.join('\n'), 'swarm.share = "none"')
  assert.match(lines.join('\n'), 'swarm.mdns = false')
  assert.match(found({ ...report, resting: 'on battery' }, reached, firewall).at(-1) ?? '', 'just now: on battery')
})

test('nobody is there', () => {
  const alone = {
    ...report,
    peers: { connected: 0, neighbours: 0, away: 3, banned: 0 },
    multicast: { ...report.multicast!, heard: 0 },
  }
  const line = trouble(alone, [], firewall)
  assert.match(
    line,
    'warning | swarm: no peer is connected in the open network of the LAN | start Shoal on another machine',
  )
  assert.match(line, 'guest Wi-Fi')
  assert.match(line, 'swarm.bootstrap')
  const named = trouble({ ...alone, bootstrap: ['desk', '10.1.0.7'] }, [], firewall)
  assert.match(named, 'not even one of swarm.bootstrap (desk, 10.1.0.7) | the log says why: see that Shoal runs there')
})

test('others are in another network', () => {
  const line = trouble(
    { ...report, network: 'private:1a2b3c4d', multicast: { ...report.multicast!, strangers: 3 } },
    reached,
    firewall,
  )
  assert.match(line, '3 machines of this LAN are in another network than the private network 1a2b3c4d')
  assert.match(line, 'shoal network join TOKEN')
})

test('multicast is dropped', () => {
  const silent = { ...report, multicast: { ...report.multicast!, heard: 0 } }
  assert.match(trouble(silent, reached, firewall), 'multicast may be dropped | open 5353/udp')
  const afar = { ...silent, peers: { ...report.peers, neighbours: 0 } }
  assert.ok(found(afar, reached, firewall).every(line => line.startsWith('ok ')))
  const deaf = { ...report, multicast: { interfaces: [{ name: 'wlan0', hearsItself: false }], heard: 0, strangers: 0 } }
  assert.match(trouble(deaf, reached, firewall), 'on wlan0 does not even come back to it | open 5353/udp')
  const none = { ...report, multicast: { interfaces: [], heard: 0, strangers: 0 } }
  assert.match(trouble(none, reached, firewall), 'no interface of a LAN')
})

test('a port is closed', () => {
  const closed = [{ name: 'ada', swarm: 'ok', transfer: 'TIMEOUT' }]
  assert.is(
    trouble(report, closed, firewall),
    'problem | ports: ada cannot connect to port 3477 (swarm.transfer_listen) here: TIMEOUT | open 3477/tcp',
  )
  assert.match(trouble(report, [...closed, ...reached], firewall), /^warning .*: TIMEOUT, 1 other could \| open 3477/)
  assert.match(trouble(report, [], firewall), 'no peer that was asked to connect back has answered')
  assert.match(trouble(report, new Error('admin.token cannot be read'), firewall), 'admin.token cannot be read')
})

test('peers are banned', () => {
  const line = trouble({ ...report, peers: { connected: 2, neighbours: 2, away: 0, banned: 1 } }, reached, firewall)
  assert.match(line, 'one peer is banned | "shoal peers" says why')
})

test('the remedy is for the firewall that is there', async () => {
  const root = await mkdtemp(join(tmpdir(), 'shoal-firewall-'))
  try {
    const programs = join(root, 'bin')
    const advice = async (platform: NodeJS.Platform = 'linux') =>
      (await firewallOf(platform, programs, root))(['3477/tcp', '5353/udp'])
    assert.match(await advice(), 'sudo nft add rule inet filter input tcp dport 3477 accept && sudo nft')
    await mkdir(programs)
    await writeFile(join(programs, 'firewall-cmd'), '')
    assert.match(
      await advice(),
      'sudo firewall-cmd --permanent --add-port=3477/tcp --add-port=5353/udp && sudo firewall-cmd --reload',
    )
    await mkdir(join(root, 'etc/ufw'), { recursive: true })
    await writeFile(join(root, 'etc/ufw/ufw.conf'), '# on\nENABLED=yes\n')
    assert.match(await advice(), '"sudo ufw allow 3477/tcp && sudo ufw allow 5353/udp"')
    assert.match(await advice('darwin'), `3477/tcp and 5353/udp in at the system's firewall`)
  } finally {
    await rm(root, { recursive: true })
  }
})

test.run()
