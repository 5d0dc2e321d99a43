// Runs a command of the workspace on a machine that has only Node 20 and npm: brings pnpm, and with it Node 24 and the
// packages, if what is installed is not what the lock file says; then runs the command. Plain JavaScript, for Node 20.
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const pnpm = 'pnpm@12.21.0'
const root = fileURLToPath(new URL('..', import.meta.url))
const bin = join(root, 'node_modules', '.bin')
const windows = process.platform === 'win32'

function read(path) {
  try {
    return readFileSync(join(root, path), 'utf8')
  } catch {
    return undefined
  }
}

function installed() {
  // pnpm keeps a copy of the lock file that it installed from.
  const lock = read('node_modules/.pnpm/lock.yaml')
  return lock !== undefined && lock === read('pnpm-lock.yaml') && read('node_modules/.modules.yaml') !== undefined
}

if (!installed()) {
  console.error('shoal: installing what is missing (once; needs the npm registry)')
  const { status } = spawnSync('npx', ['-y', pnpm, 'install', '--frozen-lockfile'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: windows,
  })
  if (status !== 0) {
    console.error('shoal: the installation failed; see the lines above, and run the same command again')
    process.exit(1)
  }
}

const [command, ...args] = process.argv.slice(2)
const child = spawn(join(bin, windows ? `${command}.cmd` : command), args, {
  cwd: root,
  stdio: 'inherit',
  shell: windows,
  env: { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH ?? ''}` },
})
// A terminal sends Ctrl-C to the whole group; a supervisor signals this process alone.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
// npm sends a signal on to its shell, and dash dies of it without a word: then this process has another parent.
if (process.env.npm_lifecycle_event) {
  const parent = process.ppid
  setInterval(() => {
    if (process.ppid !== parent) child.kill('SIGTERM')
  }, 250).unref()
}
child.on('error', error => {
  console.error(`shoal: ${error.message}`)
  process.exitCode = 1
})
child.on('exit', (code, signal) => {
  process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0)
})
