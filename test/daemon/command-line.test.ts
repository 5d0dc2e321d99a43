import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createToken } from '../../packages/swarm/src/network.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import {
  type Ended,
  type Environment,
  freePorts,
  plainEnvironment,
  run,
  ShoalProcess,
  shoalBin,
} from '../shoal-process.ts'
import { fetchWhole } from '../world.ts'

const commands = ['start', 'status', 'peers', 'network', 'ls', 'verify', 'config', 'doctor', 'setup']

/** Where nobody listens, and no Docker is. */
const nobody = { SHOAL_ADMIN_LISTEN: '127.0.0.1:1', DOCKER_HOST: 'unix:///nowhere/docker.sock', HOME: '/nowhere' }

function shoal(args: readonly string[], env: Environment = nobody): Promise<Ended> {
  return run(shoalBin, args, { env: plainEnvironment(env) })
}

/** The command failed with this status, said nothing on stdout, and on stderr lines that are all its own. */
function failed({ status, stdout, stderr }: Ended, expected: { status: number; lines: number }): string {
  assert.is(status, expected.status, stdout + stderr)
  assert.is(stdout, '')
  const lines = stderr.trimEnd().split('\n')
  assert.is(lines.length, expected.lines, stderr)
  for (const line of lines) assert.match(line, /^shoal: \S/)
  return stderr
}

function done({ status, stdout, stderr }: Ended): string {
  assert.is(status, 0, stdout + stderr)
  assert.is(stderr, '')
  return stdout
}

test('--help lists the commands, and each has its own', async () => {
  const help = done(await shoal(['--help']))
  for (const command of commands) {
    assert.match(help, new RegExp(`^ {2}${command} `, 'm'))
    const own = done(await shoal([command, '--help']))
    assert.match(own, `Usage: shoal ${command}`)
    for (const flag of ['--config', '--json']) assert.match(own, flag)
  }
  assert.match(done(await shoal(['--version'])), /^\d+\.\d+\.\d+\n$/)
})

test('no command at all is wrong usage, and shows the help', async () => {
  const { status, stdout, stderr } = await shoal([])
  assert.is(status, 2)
  assert.is(stdout, '')
  assert.is(stderr.match(/^Usage: shoal/gm)?.length, 1)
})

const wrong: [args: string[], message: string][] = [
  [['swimm'], `unknown command 'swimm'`],
  [['ls', '--nope'], `unknown option '--nope'`],
  [['status', 'now'], 'too many arguments'],
  [['ls', '--config'], `'--config <file>' argument missing`],
  [['setup'], `missing required argument 'client'`],
  [['setup', 'dokcer'], 'no set-up for "dokcer"'],
  [['peers', '--unban'], `'--unban <peer>' argument missing`],
  [['network'], `missing required argument 'action'`],
  [['network', 'jion'], '"network jion" is not known: use create, join, leave'],
  [['network', 'join'], 'name the token, or "-"'],
  [['network', 'join', 'shoal-abc'], 'this is not a whole token'],
  [['network', 'create', 'x'], '"network create" takes no token'],
  [['network', 'leave', 'x'], '"network leave" takes no token'],
]
for (const [args, message] of wrong) {
  test(`wrong usage: shoal ${args.join(' ')}`, async () => {
    assert.match(failed(await shoal(args), { status: 2, lines: 1 }), message)
  })
}

test('settings that cannot be used are named with their place, for every command', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-settings-'))
  try {
    const file = join(folder, 'shoal.toml')
    await writeFile(file, '[store]\nmax_sizes = "1GB"\nmin_free = "many"\n')
    for (const command of ['start', 'status', 'ls', 'config', 'doctor']) {
      const said = failed(await shoal([command, '--config', file]), { status: 2, lines: 2 })
      assert.match(said, `${file}:2: store.max_sizes: unknown key; did you mean max_size?`)
      assert.match(said, `${file}:3: store.min_free: expected a size`)
    }
    await writeFile(file, '[store\n')
    assert.match(failed(await shoal(['config', '--config', file]), { status: 2, lines: 1 }), `${file}:2: not TOML`)
    const absent = await shoal(['config', '--config', join(folder, 'none.toml')])
    assert.match(failed(absent, { status: 2, lines: 1 }), 'there is no such file')
    const variable = await shoal(['config'], { SHOAL_TAGS_TTL: 'soon' })
    assert.match(failed(variable, { status: 2, lines: 1 }), 'SHOAL_TAGS_TTL: tags.ttl: expected a duration')
    const flag = await shoal(['start', '--mirror-listen', 'here'])
    assert.match(failed(flag, { status: 2, lines: 1 }), '--mirror-listen: mirror.listen: expected an address')
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('config shows the settings in force, and where each comes from', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-settings-'))
  try {
    const file = join(folder, 'shoal.toml')
    await writeFile(file, '[tags]\nttl = "7s"\n')
    const env = { SHOAL_STORE_MAX_SIZE: '3GB' }
    const shown = done(await shoal(['config', '--config', file], env))
    assert.match(shown, new RegExp(`^\\[tags\\]\nttl = "7s" +# file ${file}:2$`, 'm'))
    assert.match(shown, /^max_size = "3GB" +# env SHOAL_STORE_MAX_SIZE$/m)
    assert.match(shown, /^listen = "127\.0\.0\.1:3474" +# default$/m)
    const json = JSON.parse(done(await shoal(['config', '--json', '--config', file], env)))
    assert.is(json.settings.tags.ttl, '7s')
    assert.is(json.origins['store.max_size'], 'env SHOAL_STORE_MAX_SIZE')
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('a reader that has seen enough is no error', async () => {
  // Without pipefail the status would be that of true.
  const args = ['-c', `set -o pipefail; "${shoalBin}" config | true`]
  const { status, stdout, stderr } = await run('bash', args, { env: plainEnvironment() })
  assert.equal([status, stdout, stderr], [0, '', ''])
})

test('network create prints a new token each time, and needs nothing', async () => {
  const env = { ...nobody, SHOAL_DATA_DIR: '/nowhere/data' }
  const first = done(await shoal(['network', 'create'], env))
  assert.match(first, /^shoal-[\w-]{48}\n$/)
  const { token } = JSON.parse(done(await shoal(['network', 'create', '--json'], env)))
  assert.match(token, /^shoal-[\w-]{48}$/)
  assert.is.not(`${token}\n`, first)
})

test('network join says where the settings have the token that decides', async () => {
  const env = { ...nobody, SHOAL_SWARM_TOKEN: createToken() }
  for (const args of [['join', createToken()], ['leave']]) {
    const said = failed(await shoal(['network', ...args], env), { status: 1, lines: 1 })
    assert.match(said, 'swarm.token says which network this machine is in: change it at SHOAL_SWARM_TOKEN')
    assert.not.match(said, env.SHOAL_SWARM_TOKEN)
  }
})

test('without a daemon commands say in one line how to come by one', async () => {
  const networks = [['network', 'join', createToken()], ['network', 'leave'], ['peers'], ['peers', '--unban', 'ada']]
  for (const args of [['status'], ['ls'], ['status', '--json'], ['ls', '--json'], ...networks]) {
    const said = failed(await shoal(args), { status: 1, lines: 1 })
    assert.match(said, 'no shoal daemon answers at http://127.0.0.1:1: start one with "shoal start"')
  }
})

test('setup without an engine says where it looked, and changes nothing', async () => {
  const said = failed(await shoal(['setup', 'docker']), { status: 1, lines: 1 })
  assert.match(said, 'no Docker engine answers at unix:///nowhere/docker.sock: start Docker')
})

test('start says where everything is; stdout has nothing else, and stderr is JSON lines', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.start({ internet })
  await shoal.get('/v2/library/forty/manifests/latest')
  assert.is(await shoal.stop(), 0)
  const { stdout, stderr } = shoal.process.output
  assert.match(stdout, /^shoal \d+\.\d+\.\d+\n( {2}\w+ +\S.*\n){4}$/)
  assert.match(stdout, `\n  mirror  ${shoal.mirror}\n`)
  assert.match(stdout, `\n  admin   ${shoal.admin} `)
  assert.match(stdout, `\n  data    ${join(shoal.folder, 'data')}  (0 blobs, 0 B of 50 GB)\n`)
  assert.match(stdout, 'shoal setup docker')
  const messages = stderr
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line).msg)
  assert.ok(messages.includes('request answered from upstream'))
  assert.is(messages.at(-1), 'stopping')
})

test('status, ls and doctor tell about the running daemon, also in JSON', async () => {
  await using internet = await Internet.open()
  const env = { DOCKER_HOST: nobody.DOCKER_HOST }
  await using shoal = await ShoalProcess.start({ internet, env })
  assert.is(done(await shoal.run(['ls'])), 'No images yet: they come with the first pull.\n')
  assert.equal(JSON.parse(done(await shoal.run(['ls', '--json']))), [])

  const { manifest, digest, config, layers } = internet.images.image('library/forty')
  await shoal.get('/v2/library/forty/manifests/latest')
  assert.match(done(await shoal.run(['ls'])), /^forty:latest .* no platform yet /m)
  for (const { digest } of [config, ...layers]) await shoal.get(`/v2/library/forty/blobs/${digest}`)
  assert.match(done(await shoal.run(['ls'])), new RegExp(`^IMAGE .*\nforty:latest +${digest.slice(0, 19)} .* any `))
  const [image] = JSON.parse(done(await shoal.run(['ls', '--json'])))
  assert.is(image.image, 'docker.io/library/forty:latest')
  assert.is(image.complete, true)
  const bytes = [manifest, config, ...layers].reduce((sum, { size }) => sum + size, 0)
  assert.is(image.bytes, bytes)

  const said = done(await shoal.run(['status']))
  assert.match(said, /^shoal \d.* online$/m)
  assert.match(said, /^store: 42 blobs, /m)
  assert.match(said, new RegExp(`^docker\\.io +${internet.gcr.url} +in use `, 'm'))
  const status = JSON.parse(done(await shoal.run(['status', '--json'])))
  assert.equal({ ...status.store, max_bytes: 0 }, { blobs: 42, bytes, max_bytes: 0, problem: null })

  const checked = done(await shoal.run(['doctor']))
  assert.match(checked, /^ok {7}daemon: version \d.* is running$/m)
  assert.match(checked, /^warning {2}docker: no Docker engine answers/m)
  assert.match(checked, /^No problem found\.$/m)
  assert.is(JSON.parse(done(await shoal.run(['doctor', '--json']))).problems, 0)
})

test('doctor finds what is wrong, and what to do about it', async () => {
  await using internet = await Internet.open()
  const env = { DOCKER_HOST: nobody.DOCKER_HOST }
  await using shoal = await ShoalProcess.prepare({ internet, env })
  await internet.hub.down()
  const { status, stdout, stderr } = await shoal.run(['doctor'])
  assert.equal([status, stderr], [1, ''])
  assert.match(stdout, /^PROBLEM {2}daemon: is not running\n {10}-> start it with "shoal start"$/m)
  assert.match(stdout, /^ok {7}upstream docker\.io: /m)
  assert.match(
    stdout,
    /^PROBLEM {2}upstream docker\.io: .* cannot be reached \(ECONNREFUSED\)\n {10}-> check the line/m,
  )
  assert.match(stdout, /^2 problems found\.$/m)
  const json = await shoal.run(['doctor', '--json'])
  assert.is(json.status, 1)
  assert.is(JSON.parse(json.stdout).problems, 2)
})

test('a second daemon on the same data folder, or port, is refused', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.start({ internet })
  const [mirror, admin] = await freePorts(2)
  const ports = { SHOAL_MIRROR_LISTEN: `127.0.0.1:${mirror}`, SHOAL_ADMIN_LISTEN: `127.0.0.1:${admin}` }
  const said = failed(await shoal.run(['start'], ports), { status: 1, lines: 1 })
  assert.match(said, join(shoal.folder, 'data'))
  if (process.platform === 'linux') {
    const elsewhere = { SHOAL_DATA_DIR: join(shoal.folder, 'other'), SHOAL_ADMIN_LISTEN: `127.0.0.1:${admin}` }
    const taken = failed(await shoal.run(['start'], elsewhere), { status: 1, lines: 1 })
    assert.match(taken, ' is taken by another shoal (pid ')
  }
  assert.is((await fetchWhole('GET', `${shoal.admin}/readyz`)).status, 200)
})

test('a port that is taken is named with its holder, and with the setting for another', async () => {
  await using internet = await Internet.open()
  await using shoal = await ShoalProcess.prepare({ internet })
  for (const [key, variable] of [
    ['mirror.listen', 'SHOAL_MIRROR_LISTEN'],
    ['admin.listen', 'SHOAL_ADMIN_LISTEN'],
  ] as const) {
    const address = shoal.env[variable] ?? ''
    const holder = createServer()
    await new Promise<void>(resolve => holder.listen(Number(address.split(':')[1]), '127.0.0.1', resolve))
    try {
      const said = failed(await shoal.run(['start']), { status: 1, lines: 1 })
      const by = process.platform === 'linux' ? `by .* \\(pid ${process.pid}\\)` : 'by '
      assert.match(said, new RegExp(`${address} is taken ${by}: stop it, or set ${key} to another port`))
    } finally {
      holder.close()
    }
  }
})

test('doctor names who has a port that the daemon would want', async () => {
  if (process.platform !== 'linux') return
  const holder = createServer()
  await new Promise<void>(resolve => holder.listen(0, '127.0.0.1', resolve))
  try {
    const { port } = holder.address() as AddressInfo
    const env = { ...nobody, SHOAL_SWARM_TRANSFER_LISTEN: `0.0.0.0:${port}` }
    const taken = `swarm.transfer_listen: 0.0.0.0:${port} is taken by `
    assert.match((await shoal(['doctor'], env)).stdout, taken)
    assert.not.match((await shoal(['doctor'], { ...env, SHOAL_SWARM_ENABLED: 'false' })).stdout, taken)
  } finally {
    holder.close()
  }
})

test('files of settings that are not what they should be are named', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-settings-'))
  try {
    const file = join(folder, 'file.pem')
    await writeFile(file, 'nothing\n')
    const [mirror, admin] = await freePorts(2)
    const env = {
      SHOAL_DATA_DIR: folder,
      SHOAL_MIRROR_LISTEN: `127.0.0.1:${mirror}`,
      SHOAL_ADMIN_LISTEN: `127.0.0.1:${admin}`,
    }
    const tls = await shoal(['start'], { ...env, SHOAL_MIRROR_TLS_CERT: file, SHOAL_MIRROR_TLS_KEY: file })
    const pem = `SHOAL_MIRROR_TLS_CERT: mirror.tls_cert: ${file} and ${file} are not a certificate and its key in PEM: `
    assert.match(failed(tls, { status: 2, lines: 1 }), pem)
    const none = join(folder, 'none')
    for (const [variable, key, more] of [
      ['SHOAL_UPSTREAMS_DOCKER_IO_CA', 'upstreams."docker.io".ca', {}],
      [
        'SHOAL_UPSTREAMS_DOCKER_IO_PASSWORD_FILE',
        'upstreams."docker.io".password_file',
        { SHOAL_UPSTREAMS_DOCKER_IO_USERNAME: 'me' },
      ],
      ['SHOAL_MIRROR_USERS_FILE', 'mirror.users_file', {}],
      ['SHOAL_MIRROR_TLS_CERT', 'mirror.tls_cert', { SHOAL_MIRROR_TLS_KEY: file }],
      ['SHOAL_MIRROR_TLS_KEY', 'mirror.tls_key', { SHOAL_MIRROR_TLS_CERT: file }],
    ] as const) {
      const missing = await shoal(['start'], { ...env, ...more, [variable]: none })
      assert.is(failed(missing, { status: 2, lines: 1 }), `shoal: ${variable}: ${key}: there is no file ${none}\n`)
    }
    const config = join(folder, 'shoal.toml')
    await writeFile(config, '[mirror]\nusers_file = "."\n')
    const unreadable = failed(await shoal(['start', '--config', config], env), { status: 2, lines: 1 })
    assert.is(unreadable, `shoal: ${config}:2: mirror.users_file: ${folder} cannot be read (EISDIR)\n`)
  } finally {
    await rm(folder, { recursive: true })
  }
})

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`${signal} ends the daemon with status 0, also in the middle of a transfer`, async () => {
    await using internet = await Internet.open()
    const { layers } = await internet.add({ repository: 'library/slow', tag: 'latest', layers: [2_000_000] })
    internet.hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'slow', bytesPerSecond: 10_000 } : undefined)
    await using shoal = await ShoalProcess.start({ internet })
    const arriving = shoal.get(`/v2/library/slow/blobs/${layers[0]?.digest}`).catch(error => error)
    while (internet.log.requests({ server: 'cdn' }).length === 0)
      await new Promise(resolve => internet.log.once('request', resolve))
    assert.is(await shoal.stop(signal), 0)
    assert.instance(await arriving, Error)
  })
}

test.run()
