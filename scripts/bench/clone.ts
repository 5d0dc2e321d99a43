import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort, median, timed } from './program.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Seconds from `git clone` to the first request that `npm start` answers: with nothing in npm's and pnpm's caches, and
 * again once it is installed.
 */
export async function clone(folder: string, runs: number): Promise<void> {
  const first: number[] = []
  const again: number[] = []
  for (let run = 0; run < runs; run++) {
    const checkout = join(folder, 'checkout')
    const cloning = await timed('git', ['clone', '-q', root, checkout])
    first.push(cloning + (await firstAnswer(checkout, folder)))
    again.push(await firstAnswer(checkout, folder))
    for (const each of [checkout, join(folder, 'caches')]) await rm(each, { recursive: true })
  }
  console.log(`\nfrom nothing to an answer of GET /v2/, median of ${runs}`)
  console.log(`  git clone, npm start, caches empty  ${median(first).toFixed(1)} s`)
  console.log(`  npm start again                     ${median(again).toFixed(1)} s`)
}

async function firstAnswer(checkout: string, folder: string): Promise<number> {
  const [mirror, admin] = [await freePort(), await freePort()]
  const caches = join(folder, 'caches')
  const env = {
    ...process.env,
    npm_config_cache: join(caches, 'npm'),
    XDG_CACHE_HOME: caches,
    XDG_DATA_HOME: caches,
    XDG_STATE_HOME: caches,
    SHOAL_DATA_DIR: join(folder, 'data'),
    SHOAL_MIRROR_LISTEN: `127.0.0.1:${mirror}`,
    SHOAL_ADMIN_LISTEN: `127.0.0.1:${admin}`,
    SHOAL_SWARM_ENABLED: 'false',
  }
  const begin = performance.now()
  const child = spawn('npm', ['start'], { cwd: checkout, env, stdio: 'ignore', detached: true })
  const exited = once(child, 'exit')
  try {
    while (!(await fetch(`http://127.0.0.1:${mirror}/v2/`).catch(() => undefined))?.ok) {
      if (child.exitCode !== null) throw new Error('npm start ends before it answers')
      await sleep(20)
    }
    return (performance.now() - begin) / 1000
  } finally {
    process.kill(-child.pid!, 'SIGTERM')
    await exited
  }
}
