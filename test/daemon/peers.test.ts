import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SwarmReport } from '../../packages/shoal/src/admin/swarm.ts'
import { createToken, networkOf } from '../../packages/swarm/src/network.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { freePorts, run, ShoalProcess, shoalBin, until } from '../shoal-process.ts'
import { announced, connected, Office, type OfficeStatus, statusOf } from '../swarm/office.ts'
import { fetchWhole, World } from '../world.ts'

type Posted = { readonly status: number; readonly body: Record<string, unknown> }

/** Has a daemon do something. */
async function post({ admin, data }: World, name: string, input?: object): Promise<Posted> {
  const authorization = `Bearer ${(await readFile(join(data, 'admin.token'), 'utf8')).trim()}`
  const body = input ? JSON.stringify(input) : null
  const answer = await fetch(`${admin}/api/v1/${name}`, { method: 'POST', headers: { authorization }, body })
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
}

async function swarmOf({ admin }: World): Promise<SwarmReport> {
  return JSON.parse((await fetchWhole('GET', `${admin}/api/v1/swarm`)).body.toString()) as SwarmReport
}

async function metric({ admin }: World, name: string): Promise<number> {
  const text = (await fetchWhole('GET', `${admin}/metrics`)).body.toString()
  const line = text.split('\n').find(line => line.startsWith(`${name} `))
  return Number(line?.slice(name.length))
}

/** Waits until a machine sees nobody. */
async function alone(machine: World): Promise<void> {
  await until(
    async () => ((await statusOf(machine)).peers.some(({ state }) => state === 'connected') ? undefined : true),
    () => 'it still has peers',
  )
}

test('two daemons see each other, and say so', async () => {
  await using office = await Office.open()
  const [first, second] = await office.machinesTogether(2)
  assert.ok(first && second)
  const [mine, theirs] = [await statusOf(first), await statusOf(second)]
  assert.match(mine.peer_id, /^12D3KooW/)
  assert.is(mine.network, 'open')
  const [peer] = mine.peers
  assert.is(peer?.id, theirs.peer_id)
  assert.is(peer?.name, hostname())
  assert.is(peer?.ban, null)
  assert.is(await metric(first, 'shoal_peers'), 1)
  assert.is(await metric(first, 'shoal_banned_peers'), 0)
  assert.equal((await swarmOf(first)).peers, { connected: 1, neighbours: 0, away: 0, banned: 0 })
  const called = await post(first, 'callback')
  assert.equal(called, { status: 200, body: [{ name: hostname(), swarm: 'ok', transfer: 'ok' }] })
})

test('what a peer gives and takes is counted', async () => {
  await using office = await Office.open()
  const [first, second] = await office.machinesTogether(2)
  assert.ok(first && second)
  const { config } = office.internet.images.image('library/forty')
  const path = `/v2/library/forty/blobs/${config.digest}`
  await first.get('/v2/library/forty/manifests/latest')
  await first.get(path)
  await announced(second, 2)
  const { headers, body } = await second.get(path)
  assert.is(headers['cache-status'], 'shoal; fwd=miss; detail=peer')
  assert.is((await statusOf(second)).served.peer.bytes, body.length)
  assert.is(await metric(second, 'shoal_peer_received_bytes_total'), body.length)
  // The peer sees a little later that all has left.
  await until(
    async () => ((await metric(first, 'shoal_peer_sent_bytes_total')) > 0 ? true : undefined),
    () => 'nothing is said to have been sent',
  )
  assert.is(await metric(first, 'shoal_peer_sent_bytes_total'), body.length)
  assert.is(await metric(first, 'shoal_uploads_total{code="200"}'), 1)
})

test('who joins a private network leaves the open one at once, and is still there after a restart', async () => {
  await using office = await Office.open()
  const [first, second] = await office.machinesTogether(2)
  assert.ok(first && second)
  const { peer_id } = await statusOf(first)
  const token = createToken()
  const { name } = networkOf(token)

  assert.equal(await post(first, 'join', { token }), { status: 200, body: { network: name, changed: true } })
  assert.is((await statusOf(first)).network, name)
  await alone(first)
  await alone(second)
  const file = join(first.data, 'swarm', 'network.token')
  assert.is((await stat(file)).mode & 0o777, 0o600)
  assert.equal(await post(first, 'join', { token }), { status: 200, body: { network: name, changed: false } })

  await post(second, 'join', { token })
  await connected(first, 1)
  await first.restart()
  const after = await statusOf(first)
  assert.equal([after.network, after.peer_id], [name, peer_id])
  await connected(first, 1)

  for (const machine of [first, second])
    assert.equal(await post(machine, 'leave'), { status: 200, body: { network: 'open', changed: true } })
  assert.is((await statusOf(first)).network, 'open')
  await connected(first, 1)
  for (const machine of [first, second]) assert.not.match(machine.log.join(''), token.slice(6))
})

test('another network is refused where it cannot be', async () => {
  await using office = await Office.open()
  const token = createToken()
  const settled = await office.machine({ settings: { 'swarm-token': token } })
  assert.is((await statusOf(settled)).network, networkOf(token).name)
  for (const [name, input] of [['join', { token: createToken() }], ['leave']] as const) {
    const { status, body } = await post(settled, name, input)
    assert.is(status, 409)
    assert.match(String(body['error']), 'change swarm.token there')
  }
  const open = await office.machine()
  assert.match(String((await post(open, 'join', { token: token.slice(0, -1) })).body['error']), 'not a whole token')
  assert.is((await post(open, 'join', { token: 'x' })).status, 400)
  assert.is((await post(open, 'join')).status, 400)
  assert.is((await statusOf(open)).network, 'open')
  await using off = await World.open({ shared: office.internet })
  assert.is((await post(off, 'join', { token })).status, 409)
  assert.is((await statusOf(off)).network, null)
})

test('a ban is kept, shown, and lifted by hand', async () => {
  await using office = await Office.open()
  const [first, second] = await office.machinesTogether(2)
  assert.ok(first && second)
  const { peer_id: id } = await statusOf(second)
  await first.daemon.close()
  const book = join(first.data, 'swarm', 'peers.json')
  const kept = JSON.parse(await readFile(book, 'utf8'))
  const ban = { id, name: 'eve', reason: 'wrong bytes', at: 1, until: null }
  await writeFile(book, JSON.stringify({ ...kept, bans: [ban] }))
  await first.start()
  const [banned] = (await statusOf(first)).peers
  assert.equal([banned?.state, banned?.name, banned?.ban?.reason], ['banned', 'eve', 'wrong bytes'])
  assert.is(await metric(first, 'shoal_banned_peers'), 1)
  assert.equal((await post(first, 'unban', { peer: 'adam' })).status, 409)
  assert.equal(await post(first, 'unban', { peer: 'eve' }), { status: 200, body: { id, name: 'eve' } })
  assert.equal((await post(first, 'unban', { peer: 'eve' })).status, 409)
  await connected(first, 1)
})

test('a port of the swarm that is taken is named with its setting', async () => {
  await using internet = await Internet.open()
  for (const setting of ['swarm-listen', 'swarm-transfer-listen']) {
    const holder = createServer()
    const [port = 0, other = 0] = await freePorts(2)
    await new Promise<void>(resolve => holder.listen(port, '127.0.0.1', resolve))
    try {
      const settings = {
        'swarm-enabled': 'true',
        'swarm-listen': `127.0.0.1:${other}`,
        'swarm-transfer-listen': `127.0.0.1:${other + 1}`,
        [setting]: `127.0.0.1:${port}`,
      }
      const error = await World.open({ shared: internet, settings }).catch((error: unknown) => error)
      const key = setting.replace('-', '.').replace('-', '_')
      assert.match(String(error), `127.0.0.1:${port} is taken `)
      assert.match(String(error), `or set ${key} to another port`)
    } finally {
      holder.close()
    }
  }
})

test('a token that is cut short does not make a private machine an open one', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.prepare({ internet, env: { SHOAL_SWARM_ENABLED: 'true' } })
  const folder = join(shoal.folder, 'data', 'swarm')
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'network.token'), createToken().slice(0, 20))
  const { status, stderr } = await shoal.run(['start'])
  assert.is(status, 1)
  assert.match(stderr, /^shoal: .*network\.token is not a whole token: remove it.*\n$/)
})

test('peers, network and doctor speak to the running daemon', async () => {
  await using office = await Office.open()
  const neighbour = await office.machine()
  const { peer_id: id } = await statusOf(neighbour)
  const [swarm, transfer] = await freePorts(2)
  const env = {
    SHOAL_SWARM_ENABLED: 'true',
    SHOAL_SWARM_LISTEN: `127.0.0.1:${swarm}`,
    SHOAL_SWARM_TRANSFER_LISTEN: `127.0.0.1:${transfer}`,
    SHOAL_SWARM_MDNS: 'false',
    SHOAL_SWARM_BOOTSTRAP: `127.0.0.1:${(await swarmOf(neighbour)).ports.swarm}`,
    DOCKER_HOST: 'unix:///nowhere/docker.sock',
  }
  await using shoal = await ShoalProcess.start({ internet: office.internet, env })
  await connected(neighbour, 1)
  assert.match(shoal.process.output.stdout, `\n  peers   open network of the LAN, ports ${swarm} and ${transfer}\n`)

  const said = (await shoal.run(['peers'])).stdout
  assert.match(said, new RegExp(`^NAME .*\n${hostname()} .* connected .*\n$`))
  const [peer] = JSON.parse((await shoal.run(['peers', '--json'])).stdout) as OfficeStatus['peers']
  assert.is(peer?.id, id)
  assert.match((await shoal.run(['status'])).stdout, /^peers: 1 in the open network of the LAN$/m)
  const doctor = (await shoal.run(['doctor'])).stdout
  assert.match(doctor, /^ok {7}swarm: 1 peer in the open network of the LAN$/m)
  assert.match(
    doctor,
    new RegExp(`^ok {7}ports: peers can connect to port ${transfer} \\(swarm\\.transfer_listen\\)$`, 'm'),
  )

  const unknown = await shoal.run(['peers', '--unban', id])
  assert.equal([unknown.status, unknown.stderr], [1, `shoal: ${id} is not banned\n`])

  const token = createToken()
  const { name } = networkOf(token)
  const piped = ['-c', `echo ${token} | "${shoalBin}" network join -`]
  const joined = await run('bash', piped, { env: shoal.env })
  assert.equal([joined.status, joined.stderr], [0, ''])
  assert.is(joined.stdout, `This machine is now in the private network ${name.slice(8)}.\n`)
  const lonely = await shoal.run(['peers'])
  assert.match(lonely.stdout, /^(No peers yet in the private network|NAME )/)
  const left = await shoal.run(['network', 'leave', '--json'])
  assert.equal(JSON.parse(left.stdout), { network: 'open' })
})

test.run()
