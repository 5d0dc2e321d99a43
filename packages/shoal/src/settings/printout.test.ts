import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createToken } from '@shoal/swarm/network'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadSettings } from './load.ts'
import { printSettings, settingsJson } from './printout.ts'

const test = suite<{ folder: string }>('settings/printout')

test.before.each(async context => {
  context.folder = await mkdtemp(join(tmpdir(), 'shoal-settings-'))
})
test.after.each(context => rm(context.folder, { recursive: true }))

/** Loads `toml` as the config file of a user whose home is `folder`. */
async function load({ folder }: { folder: string }, toml: string, env: Record<string, string> = {}) {
  const configFile = join(folder, 'config.toml')
  await writeFile(configFile, toml)
  return loadSettings({
    argvFlags: {},
    env: { HOME: folder, USERPROFILE: folder, LOCALAPPDATA: folder, ...env },
    configFile,
  })
}

test('printing names origins, masks the token, and reads back as the same settings', async context => {
  const toml =
    '[swarm]\nbootstrap = ["a", "/ip4/10.0.0.5/tcp/3476"]\n[store]\nmax_size = "20%"\n[upstreams."ghcr.io"]\nshare = true\n'
  const loaded = await load(context, toml, { SHOAL_TAGS_TTL: '120s' })
  const lines = printSettings(loaded)
  assert.ok(lines.some(line => /^ttl = "2m" +# env SHOAL_TAGS_TTL$/.test(line)))
  assert.equal((await load(context, lines.join('\n'))).settings, loaded.settings)

  const token = createToken()
  const secret = await load(context, '', { SHOAL_SWARM_TOKEN: token })
  assert.is(secret.settings.swarm.token, token)
  assert.not.match(printSettings(secret).join('\n') + JSON.stringify(settingsJson(secret)), token)
  assert.equal(JSON.parse(JSON.stringify(settingsJson(secret))).settings.mirror, {
    listen: '127.0.0.1:3474',
    cached_only: false,
    tls_cert: '',
    tls_key: '',
    users_file: '',
  })
})

test.run()
