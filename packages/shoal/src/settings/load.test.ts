import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createToken } from '@shoal/swarm/network'
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { bytes, duration } from '../quantity.ts'
import { SettingsError } from './error.ts'
import { settingKeys } from './key.ts'
import { type LoadedSettings, loadSettings } from './load.ts'

const test = suite<{ folder: string; file: string }>('settings/load')

test.before.each(async context => {
  context.folder = await mkdtemp(join(tmpdir(), 'shoal-settings-'))
  context.file = join(context.folder, 'config.toml')
})
test.after.each(context => rm(context.folder, { recursive: true }))

/** Loads `toml` as the config file of a user whose home is `folder`. */
async function load(
  { folder, file }: { folder: string; file: string },
  toml: string | null,
  env: Record<string, string> = {},
  argvFlags: Record<string, unknown> = {},
): Promise<LoadedSettings> {
  if (toml !== null) await writeFile(file, toml)
  const home = { HOME: folder, USERPROFILE: folder, APPDATA: folder, LOCALAPPDATA: folder }
  return loadSettings({ argvFlags, env: { ...home, ...env }, ...(toml === null ? {} : { configFile: file }) })
}

async function problems(...args: Parameters<typeof load>): Promise<readonly string[]> {
  try {
    await load(...args)
  } catch (error) {
    assert.instance(error, SettingsError)
    return (error as SettingsError).problems
  }
  return []
}

test('nothing set gives the defaults', async context => {
  const { settings, origins } = await load(context, null)
  assert.equal(settings.mirror, {
    listen: { host: '127.0.0.1', port: 3474 },
    cached_only: false,
    tls_cert: null,
    tls_key: null,
    users_file: null,
  })
  assert.equal(settings.store, { max_size: { bytes: 50e9 }, min_free: { percent: 5 }, prefetch: true })
  assert.is(settings.tags.ttl, 5000)
  assert.equal(settings.upstreams['docker.io']?.endpoints, ['https://mirror.gcr.io', 'https://registry-1.docker.io'])
  if (process.platform !== 'win32') assert.is(settings.data_dir, join(context.folder, '.local/share/shoal'))
  assert.equal(new Set(Object.values(origins)), new Set(['default']))
})

test('flags win over the environment, which wins over the file', async context => {
  const toml = '[mirror]\nlisten = "127.0.0.1:1"\n[admin]\nlisten = "127.0.0.1:1"\n[tags]\nttl = "1m"\n'
  const env = { SHOAL_MIRROR_LISTEN: '127.0.0.1:2', SHOAL_ADMIN_LISTEN: '127.0.0.1:2' }
  const { settings, origins } = await load(context, toml, env, {
    mirrorListen: '127.0.0.1:3',
    json: true,
    adminListen: undefined,
  })
  assert.equal([settings.mirror.listen.port, settings.admin.listen.port, settings.tags.ttl], [3, 2, 60_000])
  assert.is(origins['mirror.listen'], 'flag --mirror-listen')
  assert.is(origins['admin.listen'], 'env SHOAL_ADMIN_LISTEN')
  assert.is(origins['tags.ttl'], `file ${context.file}:6`)
})

test('every key can be set by its variable and by its flag', async context => {
  for (const { key, env, flag, default: fallback } of settingKeys) {
    const value = Array.isArray(fallback)
      ? key.includes('endpoints')
        ? 'http://a:1,https://b'
        : 'a, b:1'
      : String(fallback)
    if (value === '') continue
    assert.is((await load(context, null, { [env]: value })).origins[key], `env ${env}`)
    assert.is((await load(context, null, {}, { [flag]: value })).origins[key], `flag ${flag}`)
  }
  const { settings } = await load(context, null, {
    SHOAL_SWARM_BOOTSTRAP: 'a, b:1',
    SHOAL_SWARM_MDNS: 'false',
    SHOAL_SWARM_MAX_UPLOADS: '3',
  })
  assert.equal([settings.swarm.bootstrap, settings.swarm.mdns, settings.swarm.max_uploads], [['a', 'b:1'], false, 3])
})

test('an upstream keeps the defaults it does not set', async context => {
  const toml =
    '[upstreams."docker.io"]\nusername = "me"\npassword_file = "secret"\n[upstreams."ghcr.io"]\nshare = true\n'
  const { upstreams } = (await load(context, toml)).settings
  assert.equal(upstreams['docker.io']?.endpoints.length, 2)
  assert.is(upstreams['docker.io']?.password_file, join(context.folder, 'secret'))
  assert.equal(upstreams['ghcr.io']?.endpoints, ['https://ghcr.io'])
})

test('a registry that only the environment or a flag names', async context => {
  const env = { SHOAL_UPSTREAMS_GHCR_IO_ENDPOINTS: 'http://127.0.0.1:9', SHOAL_UPSTREAMS_LOCALHOST_5000_SHARE: 'true' }
  const { upstreams } = (await load(context, null, env, { 'upstreams-10-0-0-1-5000-ca': '~/ca.pem' })).settings
  assert.equal(upstreams['ghcr.io']?.endpoints, ['http://127.0.0.1:9'])
  assert.is(upstreams['localhost:5000']?.share, true)
  assert.is(upstreams['10.0.0.1:5000']?.ca, join(context.folder, 'ca.pem'))
  const dashed = await load(context, '[upstreams."my-reg.lan"]', { SHOAL_UPSTREAMS_MY_REG_LAN_SHARE: '1' })
  assert.is(dashed.settings.upstreams['my-reg.lan']?.share, true)
})

test('every problem is named, with its line, key and what was expected', async context => {
  const toml = [
    'data_dirs = "x"',
    '[store]',
    'max_sise = "1GB"',
    'min_free = "many"',
    'ttl = "5s"',
    '[mirror]',
    'listen = "localhost"',
    'cached_only = "yes"',
    'tls_cert = "a.pem"',
    '[swarm]',
    'bootstrap = ["fine", "no t"]',
    'token = 5',
    '[upstreams."docker.io"]',
    'endpoints = ["https://me:pw@hub/v2/"]',
    'username = "me"',
    '[upstreams.localthing]',
    '[cache]',
  ].join('\n')
  const found = await problems(
    context,
    toml,
    { SHOAL_STORE_MAX_SIZ: '1GB', SHOAL_TAGS_TTL: 'soon' },
    { adminListen: '1' },
  )
  const at = (line: number) =>
    found.find(problem => problem.startsWith(`${context.file}:${line}: `)) ?? `nothing for line ${line}`
  assert.match(at(1), 'data_dirs: unknown key; did you mean data_dir?')
  assert.match(at(3), 'store.max_sise: unknown key; did you mean max_size?')
  assert.match(at(4), 'store.min_free: expected a size such as "50GB", "50GiB" or "20%", got "many"')
  assert.match(at(5), 'store.ttl: unknown key; did you mean tags.ttl?')
  assert.match(at(7), 'mirror.listen: expected an address such as')
  assert.match(at(8), 'mirror.cached_only: expected true or false, got "yes"')
  assert.match(at(9), 'mirror.tls_cert: needs tls_key too')
  assert.match(at(11), 'swarm.bootstrap[1]: expected "host", "host:port", "[IPv6]:port" or a multiaddr')
  assert.match(at(12), /swarm\.token: expected a whole token[^5]*$/)
  assert.match(at(14), 'upstreams."docker.io".endpoints[0]: expected http://')
  assert.match(at(15), 'upstreams."docker.io".username: needs password_file too')
  assert.match(at(16), 'upstreams.localthing: expected a registry')
  assert.match(at(17), 'cache: unknown key')
  const all = found.join('\n')
  assert.match(all, 'SHOAL_STORE_MAX_SIZ: unknown variable; did you mean SHOAL_STORE_MAX_SIZE?')
  assert.match(all, 'SHOAL_TAGS_TTL: tags.ttl: expected a duration such as')
  assert.match(all, '--admin-listen: admin.listen: expected an address')
  assert.is(found.length, 16)
})

test('no two can listen at one address, unless each takes any port', async context => {
  const both = '[mirror]\nlisten = "127.0.0.1:5"\n[admin]\nlisten = " 127.0.0.1:5"\n'
  assert.equal(await problems(context, both), [
    `${context.file}:4: admin.listen: 127.0.0.1:5 has the port of mirror.listen; give each a port of its own`,
  ])
  assert.equal(await problems(context, null, { SHOAL_MIRROR_LISTEN: '127.0.0.1:3475' }), [
    'SHOAL_MIRROR_LISTEN: mirror.listen: 127.0.0.1:3475 has the port of admin.listen; give each a port of its own',
  ])
  assert.equal(await problems(context, both.replaceAll(':5', ':0')), [])
  assert.equal(await problems(context, both.replace('127', '128')), [])
  const swarm = '[swarm]\nlisten = "0.0.0.0:3474"\ntransfer_listen = "[::]:5"\n'
  assert.equal(await problems(context, swarm), [
    `${context.file}:2: swarm.listen: 0.0.0.0:3474 has the port of mirror.listen; give each a port of its own`,
  ])
  assert.equal(await problems(context, swarm.replace('3474', '5')), [
    `${context.file}:3: swarm.transfer_listen: [::]:5 has the port of swarm.listen; give each a port of its own`,
  ])
  assert.equal(await problems(context, `${swarm}enabled = false\n`), [])
})

test('a variable whose section is misspelt is refused', async context => {
  for (const [given, meant] of [
    ['SHOAL_MIROR_LISTEN', 'SHOAL_MIRROR_LISTEN'],
    ['SHOAL_DATADIR', 'SHOAL_DATA_DIR'],
    ['SHOAL_UPSTREAM_DOCKER_IO_CA', 'SHOAL_UPSTREAMS_DOCKER_IO_CA'],
  ] as const)
    assert.equal(await problems(context, null, { [given]: 'x' }), [
      `${given}: unknown variable; did you mean ${meant}?`,
    ])
})

test('a value of another layer is blamed on that layer', async context => {
  const found = await problems(context, '[swarm]\nbootstrap = ["a"]\n', { SHOAL_SWARM_BOOTSTRAP: 'no t' })
  assert.match(found.join('\n'), /^SHOAL_SWARM_BOOTSTRAP: swarm\.bootstrap\[0\]/)
})

test('a peer that cannot be dialled is refused with its line', async context => {
  const good = [
    'desk',
    'desk:1',
    '10.0.0.7',
    'fd00::7',
    '[fd00::7]:1',
    '/ip6/fd00::7/tcp/1',
    '/dns/desk/tcp/1/p2p/12D3KooW',
  ]
  assert.equal(await problems(context, `[swarm]\nbootstrap = ${JSON.stringify(good)}`), [])
  for (const bad of [
    'desk:0',
    'desk:70000',
    '/ip4/999.0.0.5/tcp/1',
    '/ip4/10.0.0.5/tcp/70000',
    '/ip4/10.0.0.5/udp/1',
  ]) {
    const found = await problems(context, `[swarm]\nbootstrap = ["fine", "${bad}"]`)
    assert.match(found.join(), `${context.file}:2: swarm.bootstrap[1]: expected "host", `, bad)
  }
})

test('what is no table is refused', async context => {
  for (const toml of [
    'mirror = 5',
    '[[mirror]]',
    'upstreams = []',
    '[upstreams]\n"docker.io" = 1',
    'upstreams."docker.io" = "x"',
  ]) {
    assert.match(
      (await problems(context, toml, { SHOAL_MIRROR_LISTEN: '127.0.0.1:1' })).join(),
      'expected a table',
      toml,
    )
  }
  for (const toml of ['__proto__.x = 1', '[__proto__]', '[upstreams.__proto__]', 'mirror = {__proto__ = 1}']) {
    assert.match((await problems(context, toml)).join(), 'unknown key', toml)
  }
})

test('endpoints are bare URLs', async context => {
  const of = (url: string) => `[upstreams."docker.io"]\nendpoints = [${JSON.stringify(url)}]`
  for (const url of [
    'ftp://a',
    'a.b',
    'https://',
    'https://a/v2',
    'https://a?x',
    'https://u@a',
    'https://a b',
    'http:a',
    '',
  ]) {
    assert.is((await problems(context, of(url))).length, 1, url)
  }
  for (const url of ['http://127.0.0.1:5000', 'https://a/', 'http://[::1]:80'])
    assert.is((await problems(context, of(url))).length, 0, url)
  assert.match((await problems(context, '[upstreams."docker.io"]\nendpoints = []')).join(), 'at least one URL')
})

test('a syntax error names its line', async context => {
  assert.match((await problems(context, '[mirror]\nlisten = \n')).join(), /config\.toml:[23]: not TOML: /)
})

test('a config file that was asked for must exist, the usual ones need not', async context => {
  const given = loadSettings({ argvFlags: {}, env: {}, configFile: join(context.folder, 'none.toml') })
  await given.then(
    () => assert.unreachable(),
    error => assert.match(error.message, 'none.toml: there is no such file'),
  )
  const usual = process.platform === 'win32' ? join(context.folder, 'shoal') : join(context.folder, '.config/shoal')
  await mkdir(usual, { recursive: true })
  await writeFile(join(usual, 'config.toml'), '\uFEFF[tags]\r\nttl = "9s"\r\n')
  assert.is((await load(context, null)).settings.tags.ttl, 9000)
})

test("a pod's service variables are not settings", async context => {
  const env = {
    SHOAL_SERVICE_HOST: '10.0.0.1',
    SHOAL_PORT: 'tcp://10.0.0.1:3474',
    SHOAL_MIRROR_SERVICE_HOST: '10.0.0.1',
    SHOAL_MIRROR_SERVICE_PORT_HTTP: '3474',
    SHOAL_MIRROR_PORT: 'tcp://10.0.0.1:3474',
    SHOAL_MIRROR_PORT_3474_TCP_ADDR: '10.0.0.1',
    SHOAL_HOME: '/opt',
  }
  assert.equal(await problems(context, null, env), [])
})

test('a token of a network is whole, and never shown', async context => {
  const token = createToken()
  assert.is((await load(context, `swarm.token = "${token}"`)).settings.swarm.token, token)
  const other = token[20] === 'x' ? 'y' : 'x'
  for (const wrong of [token.slice(0, -1), `${token.slice(0, 20)}${other}${token.slice(21)}`, 'hush']) {
    const [problem = ''] = await problems(context, null, { SHOAL_SWARM_TOKEN: wrong })
    assert.match(problem, 'SHOAL_SWARM_TOKEN: swarm.token: expected a whole token as "shoal network create" prints it')
    assert.not.match(problem, wrong.slice(-4))
  }
})

test('any valid values survive the way through the file', async context => {
  const values = fc.record({
    port: fc.nat(65535).filter(port => port !== 3475),
    size: fc.nat(),
    ttl: fc.nat(),
    flag: fc.boolean(),
    uploads: fc.integer({ min: 1, max: 1000 }),
    token: fc.constant(null).map(createToken),
    authority: fc.constantFrom('after', 'before', 'never'),
    registry: fc.domain(),
    endpoints: fc.array(
      fc.webUrl({ withFragments: false }).map(url => new URL(url).origin),
      { minLength: 1 },
    ),
  })
  const check = async (v: typeof values extends fc.Arbitrary<infer T> ? T : never) => {
    const q = JSON.stringify
    const toml = `mirror = {listen = "127.0.0.1:${v.port}", cached_only = ${v.flag}}
      swarm.token = ${q(v.token)}\nswarm.max_uploads = ${v.uploads}
      [store]\nmax_size = ${q(bytes.format(v.size))}
      [tags]\nttl = ${q(duration.format(v.ttl))}\nauthority = ${q(v.authority)}
      [upstreams.${q(v.registry)}]\nendpoints = ${q(v.endpoints)}`
    const { mirror, swarm, store, tags, upstreams } = (await load(context, toml)).settings
    assert.equal(
      [mirror.listen.port, mirror.cached_only, swarm.token, swarm.max_uploads],
      [v.port, v.flag, v.token, v.uploads],
    )
    assert.equal([store.max_size, tags.ttl, tags.authority], [{ bytes: v.size }, v.ttl, v.authority])
    assert.equal(upstreams[v.registry]?.endpoints, v.endpoints)
  }
  await fc.assert(fc.asyncProperty(values, check))
})

test('garbage is refused with a SettingsError, never with another', async context => {
  const words = [
    '[',
    ']',
    '=',
    '"',
    '.',
    '\n',
    'mirror',
    'listen',
    'upstreams',
    'docker.io',
    '{',
    '}',
    ',',
    '1',
    'true',
    '1979-05-27',
    'nan',
  ]
  const garbage = fc.oneof(
    fc.string(),
    fc.array(fc.constantFrom(...words), { maxLength: 12 }).map(parts => parts.join('')),
  )
  const table = fc
    .tuple(fc.constantFrom(...settingKeys.map(({ key }) => key)), fc.json())
    .map(([key, value]) => `${key} = ${value}`)
  const env = fc.dictionary(fc.constantFrom(...settingKeys.map(({ env }) => env)), fc.string())
  const flags = fc.dictionary(fc.constantFrom(...settingKeys.map(({ flag }) => flag)), fc.anything())
  const check = async (toml: string, env: Record<string, string>, flags: Record<string, unknown>) =>
    void (await problems(context, toml, env, flags))
  await fc.assert(fc.asyncProperty(fc.oneof(garbage, table), env, flags, check), { numRuns: 300 })
})

test.run()
