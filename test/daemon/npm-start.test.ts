import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Internet } from '../../scripts/internet/internet.ts'
import { plainEnvironment, root, run, ShoalProcess } from '../shoal-process.ts'

async function pull(
  shoal: ShoalProcess,
  { digest, layers }: { digest: string; layers: readonly { digest: string }[] },
) {
  const manifest = await shoal.get('/v2/library/busybox/manifests/1.35')
  assert.is(manifest.status, 200)
  assert.is(digestOf(manifest.body), digest)
  const layer = await shoal.get(`/v2/library/busybox/blobs/${layers[0]?.digest}`)
  assert.is(layer.status, 200)
  assert.is(digestOf(layer.body), layers[0]?.digest)
}

/** The exit status is that of npm's shell, which the signal may kill. */
async function stop(shoal: ShoalProcess) {
  await shoal.stop()
  assert.match(shoal.process.output.stderr, '"msg":"stopping"')
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

test('npm start in a fresh clone: installs, serves, starts again without network, and changes no file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-clone-'))
  try {
    await using internet = await Internet.open()
    // npm's settings, such as its registry, stay; its caches, and pnpm's, are new.
    const caches = { npm_config_cache: join(folder, 'npm'), XDG_CACHE_HOME: folder, XDG_DATA_HOME: folder }
    const env = { HOME: homedir(), XDG_STATE_HOME: folder, NODE_COMPILE_CACHE: undefined, ...caches }
    await using shoal = await ShoalProcess.prepare({ internet })
    const image = internet.images.image('library/busybox', '1.35')

    const begin = performance.now()
    const checkout = join(folder, 'checkout')
    const cloned = await run('git', ['clone', '-q', root, checkout], { env: plainEnvironment() })
    assert.is(cloned.status, 0, cloned.stderr)
    await shoal.npmStart(checkout, env)
    assert.is((await shoal.get('/v2/')).status, 200)
    const seconds = ((performance.now() - begin) / 1000).toFixed(1)
    console.log(`measured: ${seconds} s from git clone to the first answered request, with empty caches`)
    await pull(shoal, image)
    await stop(shoal)

    await internet.hub.down()
    await internet.gcr.down()
    const offline = { npm_config_registry: 'http://127.0.0.1:1/', HTTPS_PROXY: 'http://127.0.0.1:1/' }
    await shoal.npmStart(checkout, { ...env, ...offline })
    await pull(shoal, image)
    const npx = await run('npx', ['shoal', 'status'], { env: { ...shoal.env, ...env, ...offline }, cwd: checkout })
    assert.is(npx.status, 0, npx.stderr)
    assert.match(npx.stdout, /^served from local: /m)
    await stop(shoal)

    const changed = await run('git', ['status', '--porcelain'], { env: plainEnvironment(), cwd: checkout })
    assert.equal(changed, { status: 0, stdout: '', stderr: '' })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test.run()
