import { once } from 'node:events'
import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { configCommand } from '../commands/config.ts'
import { doctorCommand, type Finding } from '../commands/doctor.ts'
import { setupCommand } from '../commands/setup.ts'
import { type LoadedSettings, loadSettings } from '../settings/load.ts'
import { daemonJson } from './daemon-json.ts'
import { dockerStatus, mirrorUrl } from './docker.ts'
import { applyChange, planEntry, planRemoval, SetupError } from './file-change.ts'

interface World {
  root: string
  dir: string
  json: string
  hosts: string
  env: Record<string, string>
  engine: Server
  info: Record<string, unknown>
  version: string
  podman: boolean
}
const test = suite<World>('docker')
const url = 'http://127.0.0.1:3474'
const containerd = { DriverStatus: [['driver-type', 'io.containerd.snapshotter.v1']] }
const loaded = await loadSettings({ argvFlags: {}, env: { XDG_CONFIG_HOME: '/nowhere' } })

test.before.each(async world => {
  world.root = await mkdtemp(join(tmpdir(), 'shoal-docker-'))
  world.dir = join(world.root, 'docker')
  world.json = join(world.dir, 'daemon.json')
  world.hosts = join(world.dir, 'certs.d/docker.io/hosts.toml')
  const socket =
    process.platform === 'win32' ? `//./pipe/shoal-${process.pid}-${Date.now()}` : join(world.root, 'd.sock')
  const scheme = process.platform === 'win32' ? 'npipe' : 'unix'
  world.env = { DOCKER_HOST: `${scheme}://${socket}`, HOME: world.root, USERPROFILE: world.root }
  world.info = {}
  world.version = '20.10.24+dfsg1'
  world.podman = false
  world.engine = createServer((request, response) => {
    const version = { Version: world.version, Components: [{ Name: world.podman ? 'Podman Engine' : 'Engine' }] }
    response.end(JSON.stringify(request.url === '/info' ? world.info : version))
  }).listen(socket)
  await once(world.engine, 'listening')
})
test.after.each(async world => {
  await new Promise(resolve => world.engine.close(resolve))
  await rm(world.root, { recursive: true })
})

async function setup(world: World, options: Partial<Parameters<typeof setupCommand>[0]> = {}): Promise<string> {
  const lines: string[] = []
  const args = {
    client: 'docker',
    loaded,
    env: world.env,
    dockerDir: world.dir,
    out: (line: string) => void lines.push(line),
    ...options,
  }
  assert.is(await setupCommand(args), 0)
  return lines.join('\n')
}

async function put(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
}

async function refusal(promise: Promise<unknown>): Promise<SetupError> {
  const error = await promise.then(
    () => null,
    (error: unknown) => error,
  )
  assert.instance(error, SetupError)
  assert.not.match((error as SetupError).message, '\n')
  return error as SetupError
}

const text = (path: string) => readFile(path, 'utf8')
const listenOn = (address: string, more: Record<string, unknown> = {}): Promise<LoadedSettings> =>
  loadSettings({ argvFlags: { mirrorListen: address, ...more }, env: { XDG_CONFIG_HOME: '/nowhere' } })

test('the classic store gets a registry-mirrors entry, once, and loses it again with the folder made for it', async world => {
  const said = await setup(world)
  assert.equal(JSON.parse(await text(world.json)), { 'registry-mirrors': [url] })
  assert.match(said, '+  "registry-mirrors": ["http://127.0.0.1:3474"]')
  assert.match(said, /To put it into force: /)
  assert.match(await setup(world), 'Nothing to change.')
  assert.match(await setup(world), 'has not read that yet')
  world.info = { RegistryConfig: { Mirrors: [`${url}/`] } }
  assert.is(await setup(world), 'Nothing to change.')
  const undone = await setup(world, { undo: true })
  assert.match(undone, `Removed ${world.json}.`)
  if (process.platform !== 'win32') assert.match(undone, 'To put it into force: restart dockerd')
  assert.equal(await readdir(world.root).then(names => names.filter(name => name !== 'd.sock')), [])
  assert.is(await setup(world, { undo: true }), 'Nothing to undo.')
})

test('a dry run shows the diff and writes nothing', async world => {
  await put(world.json, '{}\n')
  const said = await setup(world, { dryRun: true })
  assert.ok(said.startsWith(`--- ${world.json}`))
  assert.match(said, 'Nothing was written')
  assert.is(await text(world.json), '{}\n')
  assert.equal(await readdir(world.dir), ['daemon.json'])
  await setup(world)
  const after = await text(world.json)
  await setup(world, { undo: true, dryRun: true })
  assert.is(await text(world.json), after)
})

test("the user's indentation and line ends stay, and come back byte for byte", async world => {
  const cases = [
    ['{}', `{\n  "registry-mirrors": ["${url}"]\n}`],
    ['{\n\n}\n', `{\n  "registry-mirrors": ["${url}"]\n\n}\n`],
    ['{"a":1}', `{"a":1,"registry-mirrors":["${url}"]}`],
    ['{\r\n\t"a": 1\r\n}\r\n', `{\r\n\t"a": 1,\r\n\t"registry-mirrors": ["${url}"]\r\n}\r\n`],
    ['{\n     "a": 1\n}', `{\n     "a": 1,\n     "registry-mirrors": ["${url}"]\n}`],
    [' { "a": { }  }', ` { "a": { }, "registry-mirrors": ["${url}"]  }`],
    ['{"registry-mirrors": []}', `{"registry-mirrors": ["${url}"]}`],
    ['{"registry-mirrors":["http://b"], "a": 1}', `{"registry-mirrors":["${url}", "http://b"], "a": 1}`],
    ['{"registry-mirrors": [\n   "http://b" ]}', `{"registry-mirrors": [\n   "${url}",\n   "http://b" ]}`],
    ['\uFEFF{"a": 1}\n', `\uFEFF{"a": 1,"registry-mirrors": ["${url}"]}\n`],
    ['', `{\n  "registry-mirrors": ["${url}"]\n}\n`],
  ] as const
  for (const [before, after] of cases) {
    await put(world.json, before)
    await setup(world)
    assert.is(await text(world.json), after)
    assert.is(await text(`${world.json}.before-shoal`), before)
    await setup(world, { undo: true })
    assert.is(await text(world.json), before)
    assert.equal(await readdir(world.dir), ['daemon.json'])
  }
})

test('an entry that is there already is left, with a slash too', async world => {
  const before = `{"registry-mirrors": ["http://b", "${url}/"]}`
  await put(world.json, before)
  assert.match(await setup(world), 'Nothing to change.')
  assert.is(await text(world.json), before)
})

test('undo after an edit takes out only our entry, and leaves the backup', async world => {
  await put(world.json, '{\n  "registry-mirrors": ["http://b"]\n}\n')
  await setup(world)
  await put(world.json, (await text(world.json)).replace('{\n', '{\n  "debug": true,\n'))
  const said = await setup(world, { undo: true })
  assert.is(await text(world.json), '{\n  "debug": true,\n  "registry-mirrors": ["http://b"]\n}\n')
  assert.match(said, `${world.json}.before-shoal`)
  assert.is(await text(`${world.json}.before-shoal`), '{\n  "registry-mirrors": ["http://b"]\n}\n')
  assert.match(await setup(world, { undo: true }), 'Nothing to undo.')
  await setup(world)
  assert.match(await text(`${world.json}.before-shoal`), 'debug')
})

test('undo after an edit of a file of our own keeps the edit, and no note of ours', async world => {
  await setup(world)
  await put(world.json, (await text(world.json)).replace('{\n', '{\n  "debug": true,\n'))
  await setup(world, { undo: true })
  assert.equal(JSON.parse(await text(world.json)), { debug: true })
  assert.equal(await readdir(world.dir), ['daemon.json'])
})

test('another address takes the place of the old one, and undo still restores', async world => {
  const before = '{ "debug": true }'
  await put(world.json, before)
  await setup(world)
  await setup(world, { loaded: await listenOn('127.0.0.1:9') })
  assert.equal(JSON.parse(await text(world.json))['registry-mirrors'], ['http://127.0.0.1:9'])
  assert.is(await text(`${world.json}.before-shoal`), before)
  await setup(world, { undo: true })
  assert.is(await text(world.json), before)
})

test('what it does not understand it refuses, and leaves', async world => {
  for (const bad of [
    '[]',
    '{',
    '{"a": 1,}',
    '"x"',
    '{"registry-mirrors": "http://b"}',
    '{"registry-mirrors": [1]}',
    '{"registry-mirrors": [], "registry-mirrors": []}',
  ]) {
    await put(world.json, bad)
    const error = await refusal(setup(world))
    assert.is(error.code, 'NOT_UNDERSTOOD')
    assert.match(error.message, `${world.json}:1: `)
    assert.is(await text(world.json), bad)
    assert.equal(await readdir(world.dir), ['daemon.json'])
  }
  await writeFile(world.json, Buffer.from([0x7b, 0xff, 0x7d]))
  assert.is((await refusal(setup(world))).code, 'NOT_UNDERSTOOD')
})

test('comments in daemon.json are refused, as dockerd refuses them', async world => {
  for (const bad of [
    '{\n  "a": 1 // one\n}',
    '{"a":\n/* one */ 1}',
    '{"registry-mirrors": [\n  // b\n  "http://b"]}',
  ]) {
    await put(world.json, bad)
    for (const undo of [false, true]) {
      const error = await refusal(setup(world, { undo }))
      assert.is(error.code, 'NOT_UNDERSTOOD')
      assert.match(error.message, `${world.json}:2: JSON has no comments; take this one out`)
    }
    assert.is(await text(world.json), bad)
  }
})

test("Docker 29's containerd store gets a hosts.toml, and loses it with its folders", async world => {
  Object.assign(world, { info: containerd, version: '29.0.1' })
  await put(world.json, '{}')
  const said = await setup(world)
  const lines = [
    'server = "https://registry-1.docker.io"',
    '',
    `[host."${url}"]`,
    '  capabilities = ["pull", "resolve"]',
    '  dial_timeout = "1s"',
  ]
  assert.match(await text(world.hosts), `${lines.join('\n')}\n`)
  assert.is(await text(world.json), '{}')
  assert.match(said, 'Nothing to restart')
  assert.is(await setup(world), 'Nothing to change.')
  assert.equal((await dockerStatus({ settings: loaded.settings, env: world.env, dockerDir: world.dir })).problems, [])
  await setup(world, { undo: true })
  assert.equal(await readdir(world.dir), ['daemon.json'])
})

test("in a hosts.toml of the user's, our table comes first, and undo restores or removes it", async world => {
  Object.assign(world, { info: containerd, version: '29.0.1' })
  for (const eol of ['\n', '\r\n']) {
    const head = ['# ours', 'server = "https://registry-1.docker.io"', '', ''].join(eol)
    const tail = ['# company mirror', '  [host."https://m.example"]', '  capabilities = ["pull"] # x', ''].join(eol)
    await put(world.hosts, head + tail)
    await setup(world)
    const ours = [`[host."${url}"]`, '  capabilities = ["pull", "resolve"]', '  dial_timeout = "1s"', '', ''].join(eol)
    assert.is(await text(world.hosts), head + ours + tail)
    assert.is(await setup(world), 'Nothing to change.')
    await setup(world, { undo: true })
    assert.is(await text(world.hosts), head + tail)
    await setup(world)
    await put(world.hosts, `${await text(world.hosts)}# edited${eol}`)
    await setup(world, { undo: true })
    assert.is(await text(world.hosts), `${head}${tail}# edited${eol}`)
    await unlink(`${world.hosts}.before-shoal`)
  }
  await put(world.hosts, 'server = "https://x"')
  await setup(world)
  assert.match(await text(world.hosts), `server = "https://x"\n\n[host."${url}"]`)
  for (const bad of ['server = ', '[host]\n"https://a" = {}', 'host."https://a".ca = "x"']) {
    await put(world.hosts, bad)
    assert.match((await refusal(setup(world))).message, /hosts\.toml:[12]: /)
    assert.is(await text(world.hosts), bad)
  }
})

test('the containerd store of Docker 28 reads daemon.json', async world => {
  Object.assign(world, { info: containerd, version: '28.5.2' })
  await setup(world)
  assert.equal(await readdir(world.dir).then(names => names.sort()), ['daemon.json', 'daemon.json.before-shoal'])
})

test('Docker Desktop is reached through its own name for this machine', async world => {
  Object.assign(world, { info: { ...containerd, OperatingSystem: 'Docker Desktop' }, version: '29.1.0' })
  await setup(world, { dockerDir: undefined })
  const json = join(world.root, '.docker/daemon.json')
  assert.equal(JSON.parse(await text(json)), { 'registry-mirrors': ['http://host.docker.internal:3474'] })
  assert.match(await setup(world, { dockerDir: undefined, undo: true }), 'restart Docker Desktop')
  assert.is(await stat(join(world.root, '.docker')).catch(() => null), null)
})

test('rootless Docker, Podman, a remote engine and no engine are refused with a remedy', async world => {
  world.info = { SecurityOptions: ['name=seccomp,profile=builtin', 'name=rootless'] }
  assert.match((await refusal(setup(world))).message, 'network of its own')
  world.info = {}
  world.podman = true
  assert.match((await refusal(setup(world))).message, 'shoal setup podman')
  for (const address of ['ssh://host', 'tcp://10.0.0.1:2375', 'nonsense']) {
    assert.is((await refusal(setup(world, { env: { DOCKER_HOST: address } }))).code, 'ENGINE_UNSUPPORTED')
  }
  const gone = { ...world.env, DOCKER_HOST: `${world.env['DOCKER_HOST']}x` }
  const error = await refusal(setup(world, { env: gone }))
  assert.is(error.code, 'ENGINE_UNREACHABLE')
  assert.match(error.message, 'start Docker')
  assert.is((await refusal(setup(world, { client: 'rkt' }))).code, 'CLIENT_UNKNOWN')
})

test('mirrors that dockerd has as flags are not doubled in the file, for it would not start then', async world => {
  world.info = { RegistryConfig: { Mirrors: ['https://m.example/'] } }
  const error = await refusal(setup(world))
  assert.match(error.message, '--docker-dir')
  await put(world.json, '{"registry-mirrors": ["https://m.example"]}')
  await setup(world)
})

test('undo needs no engine', async world => {
  await put(world.json, '{}')
  await setup(world)
  await setup(world, { undo: true, env: { ...world.env, DOCKER_HOST: 'unix:///nowhere' } })
  assert.is(await text(world.json), '{}')
})

test('symlinks and mode are kept', async world => {
  if (process.platform === 'win32') return
  const real = join(world.root, 'real.json')
  await put(real, '{}')
  await chmod(real, 0o640)
  await mkdir(world.dir)
  await symlink('../real.json', world.json)
  await setup(world)
  assert.ok((await lstat(world.json)).isSymbolicLink())
  assert.is((await stat(real)).mode & 0o777, 0o640)
  assert.is((await stat(`${world.json}.before-shoal`)).mode & 0o777, 0o640)
  assert.match(await text(real), url)
})

test('a file that changes between plan and change is left', async world => {
  await put(world.json, '{}')
  const change = await planEntry(daemonJson(world.json), url)
  await put(world.json, '{"a": 1}')
  assert.is((await refusal(applyChange(change!))).code, 'CHANGED_MEANWHILE')
  assert.is(await text(world.json), '{"a": 1}')
})

test('a set-up cut off after the backup leaves nothing behind once undone', async world => {
  await put(world.json, '{}')
  await put(`${world.json}.before-shoal`, '{}')
  assert.match(await setup(world, { undo: true }), 'left over')
  assert.equal(await readdir(world.dir), ['daemon.json'])
})

test('the URL follows mirror.listen', async () => {
  for (const [address, expected] of [
    ['0.0.0.0:1', 'http://127.0.0.1:1'],
    ['[::]:1', 'http://127.0.0.1:1'],
    ['[::1]:1', 'http://[::1]:1'],
    ['10.0.0.1:1', 'http://10.0.0.1:1'],
  ] as const) {
    assert.is(mirrorUrl((await listenOn(address)).settings, false), expected)
  }
  const tls = await listenOn('127.0.0.1:1', { mirrorTlsCert: 'a', mirrorTlsKey: 'b' })
  assert.is(mirrorUrl(tls.settings, false), 'https://127.0.0.1:1')
  const any = (await listenOn('127.0.0.1:0')).settings
  assert.throws(() => mirrorUrl(any, false), /fixed port/)
})

test('the status says what is missing', async world => {
  const status = () => dockerStatus({ settings: loaded.settings, env: world.env, dockerDir: world.dir })
  const said = async () => (await status()).problems.map(({ message, remedy }) => `${message} -> ${remedy}`).join('\n')
  assert.is(await said(), `does not ask ${url} -> run "sudo npx shoal setup docker"`)
  await setup(world)
  assert.match(await said(), /has not read that yet -> \S/)
  world.info = { RegistryConfig: { Mirrors: [`${url}/`] } }
  const { engine, ...rest } = await status()
  assert.is(engine?.version, world.version)
  assert.equal(rest, { mirror: url, file: world.json, configured: true, active: true, problems: [] })
  world.info = { SecurityOptions: ['name=rootless'] }
  assert.match(await said(), /network of its own.* -> use the Docker of the system/)
  world.info = { RegistryConfig: { Mirrors: [`${url}/`] } }
  await setup(world, { undo: true })
  assert.match(await said(), /^dockerd asks Shoal, but .* -> if it was removed there, /)
  world.env['DOCKER_HOST'] = 'unix:///nowhere'
  assert.is((await status()).engine, null)
})

test('doctor names what is wrong, with its remedy, and does not call it right too', async world => {
  const findings = async () => {
    const lines: string[] = []
    const out = (line: string) => void lines.push(line)
    // Upstreams and the daemon are not what this is about.
    const endpoints = ['http://127.0.0.1:1']
    const upstreams = { 'docker.io': { ...loaded.settings.upstreams['docker.io']!, endpoints } }
    const admin = { listen: { host: '127.0.0.1', port: 1 } }
    const settings = { ...loaded.settings, admin, upstreams, data_dir: world.root }
    await doctorCommand({ settings, env: world.env, dockerDir: world.dir, json: true, out })
    const all = JSON.parse(lines.join('')).findings as Finding[]
    return all.filter(({ check }) => check === 'docker').map(({ result, message, remedy }) => [result, message, remedy])
  }
  const docker = `Docker ${world.version}, classic image store`
  const run = 'run "sudo npx shoal setup docker"'
  assert.equal(await findings(), [['warning', `${docker}: does not ask ${url}`, run]])
  world.info = { RegistryConfig: { Mirrors: [`${url}/`] } }
  const [left, ...more] = await findings()
  assert.equal(left?.slice(0, 2), ['problem', `${docker}: dockerd asks Shoal, but ${world.json} does not say so`])
  assert.match(left?.[2] ?? '', 'if it was removed there, ')
  assert.equal(more, [])
  await setup(world)
  assert.equal(await findings(), [['ok', `${docker}: is set up to ask ${url}`, undefined]])
})

test('--json prints one line of JSON', async world => {
  const { applied, changes } = JSON.parse(await setup(world, { json: true }))
  assert.is(applied, true)
  assert.is(changes[0].file, world.json)
  const lines: string[] = []
  assert.is(configCommand({ loaded, json: true, out: line => void lines.push(line) }), 0)
  assert.is(JSON.parse(lines.join('')).settings.mirror.listen, '127.0.0.1:3474')
})

test('any JSON object at any indentation keeps its other keys, and comes back byte for byte', async world => {
  const objects = fc.dictionary(
    fc.string({ unit: 'grapheme' }).filter(key => key !== '__proto__'),
    fc.jsonValue(),
  )
  const mirrors = fc.option(fc.array(fc.webUrl(), { maxLength: 3 }), { nil: undefined })
  const indent = fc.oneof(fc.nat(8), fc.constantFrom('\t', '', ' \t'))
  const check = async (
    object: Record<string, unknown>,
    mirrors: string[] | undefined,
    indent: number | string,
    crlf: boolean,
  ) => {
    const whole = mirrors === undefined ? object : { ...object, 'registry-mirrors': mirrors }
    const before = JSON.stringify(whole, null, indent).replaceAll('\n', crlf ? '\r\n' : '\n')
    await put(world.json, before)
    const file = daemonJson(world.json)
    const change = await planEntry(file, url)
    await applyChange(change!)
    const after = JSON.parse(await text(world.json))
    assert.equal(after, JSON.parse(JSON.stringify({ ...whole, 'registry-mirrors': [url, ...(mirrors ?? [])] })))
    assert.is(await planEntry(file, url), null)
    const edited = JSON.parse(file.remove(`${await text(world.json)}\n`, url))
    assert.equal(edited, JSON.parse(JSON.stringify(mirrors?.length === 0 ? object : whole)))
    await applyChange((await planRemoval(file, [url]))!)
    assert.is(await text(world.json), before)
  }
  await fc.assert(fc.asyncProperty(objects, mirrors, indent, fc.boolean(), check), { numRuns: 150 })
})

test.run()
