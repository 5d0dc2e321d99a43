import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Internet } from '../../scripts/internet/internet.ts'
import { type Ended, plainEnvironment, root, run, ShoalProcess } from '../shoal-process.ts'

function done({ status, stdout, stderr }: Ended): string {
  assert.is(status, 0, stdout + stderr)
  return stdout
}

/** The files of the checkout as they are, with what is installed linked: what is built there is gone with it. */
async function copyOfCheckout(to: string): Promise<void> {
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']
  const files = done(await run('git', args, { env: plainEnvironment() })).split('\0')
  for (const file of files) if (file !== '' && existsSync(join(root, file))) await cp(join(root, file), join(to, file))
  await symlink(join(root, 'node_modules'), join(to, 'node_modules'))
  // Links of the workspace's packages to each other, and, past the link above, to what they depend on.
  for (const name of await readdir(join(to, 'packages'))) {
    const from = join(root, 'packages', name, 'node_modules')
    if (existsSync(from))
      await cp(from, join(to, 'packages', name, 'node_modules'), { recursive: true, verbatimSymlinks: true })
  }
}

test('what is published installs by npm, and runs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-published-'))
  try {
    const bin = join(root, 'node_modules', '.bin')
    const plain = plainEnvironment()
    // Of the Node versions on this machine the workspace's is new enough.
    const env = { ...plain, PATH: `${bin}:${plain['PATH']}` }
    const [checkout, packed] = [join(folder, 'checkout'), join(folder, 'packed')]
    await copyOfCheckout(checkout)
    done(await run(join(bin, 'tsc'), ['-b', 'packages/shoal'], { env, cwd: checkout }))
    const packages = await readdir(join(checkout, 'packages'))
    for (const name of packages) {
      const cwd = join(checkout, 'packages', name)
      done(await run('npx', ['-y', 'pnpm@12.21.0', 'pack', '--pack-destination', packed], { env, cwd }))
    }
    const tarballs = (await readdir(packed)).map(name => join(packed, name))
    assert.is(tarballs.length, packages.length)
    const contents = done(await run('tar', ['-tzf', tarballs.find(path => /\/shoal-\d/.test(path)) ?? ''], { env }))
    assert.match(contents, 'package/dist/main.js\n')
    assert.not.match(contents, /\.test\.|tsbuildinfo|package\/src\//)

    const cwd = join(folder, 'somewhere')
    await mkdir(cwd)
    await writeFile(join(cwd, 'package.json'), '{"private": true}\n')
    done(await run('npm', ['install', '--no-audit', '--no-fund', ...tarballs], { env, cwd }))
    assert.match(done(await run('npx', ['shoal', '--version'], { env, cwd })), /^\d+\.\d+\.\d+\n$/)
    assert.match(done(await run('npx', ['shoal', 'config'], { env, cwd })), /^\[mirror\]$/m)

    await using internet = await Internet.open()
    await using shoal = await ShoalProcess.prepare({ internet })
    await shoal.start(join(cwd, 'node_modules', '.bin', 'shoal'))
    assert.is((await shoal.get('/v2/library/busybox/manifests/latest')).status, 200)
    assert.is(await shoal.stop(), 0)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test.run()
