import { spawn } from 'node:child_process'
import { glob, mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * `npm test [-- SUITE …]`: runs the suites, each test file in a process of its own, and closes with one line that counts
 * them all. Suites: check, lint, unit, internet, daemon, swarm, faults, clients, lan, timed; all of them if none is named.
 */

type Count = { passed: number; failed: number; skipped: number }

const root = fileURLToPath(new URL('..', import.meta.url))

/** No file may take longer, in ms. */
const longest = 600_000

/** How many files run at once, of whichever suites: most of them wait half of their time. */
const lanes = Math.max(2, availableParallelism())

/** Shared out among the lanes, so that no file takes a port that another has in mind: `freePorts`. */
const ports = { first: 10_000, count: 20_000 }

/**
 * One half of the lanes takes files from the beginning, the other from the end, so that those of `lan`, which wait, run
 * beside those of `faults`, which work. They meet among short files, so that all end together.
 */
const suites: Record<string, { command: readonly string[] } | { files: string; alone?: true }> = {
  check: { command: ['tsc', '-p', 'test/tsconfig.json'] },
  lint: { command: ['biome', 'check', '--error-on-warnings', '.'] },
  lan: { files: 'test/lan/*.test.ts' },
  clients: { files: 'test/clients/*.test.ts' },
  internet: { files: 'scripts/**/*.test.ts' },
  unit: { files: 'packages/*/src/**/*.test.ts' },
  swarm: { files: 'test/swarm/*.test.ts' },
  daemon: { files: 'test/daemon/*.test.ts' },
  faults: { files: 'test/faults/*.test.ts' },
  // What they look at depends on speed, of links or of many daemons at once.
  timed: { files: 'test/timed/*.test.ts', alone: true },
}

type Environment = Readonly<Record<string, string>>

function run(command: string, args: readonly string[], more: Environment): Promise<{ code: number; output: string }> {
  return new Promise(resolve => {
    const env = { ...process.env, ...more }
    const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    let output = ''
    child.stdout.on('data', data => (output += data))
    child.stderr.on('data', data => (output += data))
    const timer = setTimeout(() => {
      output += `\nstopped after ${longest / 1000} s\n`
      process.kill(-child.pid!, 'SIGKILL')
    }, longest)
    child.on('error', error => (output += error.message))
    child.on('close', code => {
      clearTimeout(timer)
      resolve({ code: code ?? 1, output })
    })
  })
}

/** Reads uvu's closing lines. A file that ends badly, or runs no test, is one that failed. */
function countOf(code: number, output: string): Count {
  const number = (label: string) => Number(new RegExp(`${label}:\\s+(\\d+)`).exec(output)?.[1] ?? 0)
  const [total, passed, skipped] = [number('Total'), number('Passed'), number('Skipped')]
  const failed = total - passed
  if (total + skipped === 0 || (code !== 0 && failed === 0)) return { passed, failed: failed + 1, skipped }
  return { passed, failed, skipped }
}

async function runFile(file: string, env: Environment): Promise<Count> {
  const begin = Date.now()
  const { code, output } = await run('node', [file], env)
  const count = countOf(code, output)
  const seconds = ((Date.now() - begin) / 1000).toFixed(1)
  const remarks = [...output.matchAll(/(?:^|^[•✘] )((?:skipped|measured): .*)$/gm)]
    .map(([, line]) => `\n  ${line}`)
    .join('')
  console.log(`${count.failed > 0 ? 'FAIL' : 'ok  '} ${file}: ${count.passed} passed in ${seconds} s${remarks}`)
  if (count.failed > 0) console.log(output)
  return count
}

async function runCommand(name: string, [command = '', ...args]: readonly string[], env: Environment): Promise<Count> {
  const { code, output } = await run(command, args, env)
  console.log(`${code === 0 ? 'ok  ' : 'FAIL'} ${name}: ${[command, ...args].join(' ')}`)
  if (code !== 0) console.log(output)
  return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 }
}

type Job = (env: Environment) => Promise<Count>

/** @returns those that run side by side, and those of which each runs alone, after them */
async function jobsOf(named: readonly string[]): Promise<{ jobs: Job[]; alone: Job[] }> {
  const unknown = named.find(name => !(name in suites))
  if (unknown !== undefined) throw new Error(`no suite "${unknown}": there are ${Object.keys(suites).join(', ')}`)
  const [jobs, alone]: [Job[], Job[]] = [[], []]
  for (const [name, suite] of Object.entries(suites)) {
    if (named.length > 0 && !named.includes(name)) continue
    if ('command' in suite) jobs.push(env => runCommand(name, suite.command, env))
    else {
      const files: string[] = []
      for await (const file of glob(suite.files, { cwd: root, exclude: name => name === 'node_modules' }))
        files.push(file)
      const ofSuite = suite.alone ? alone : jobs
      ofSuite.push(...files.sort().map(file => (env: Environment) => runFile(file, env)))
    }
  }
  return { jobs, alone }
}

const total: Count = { passed: 0, failed: 0, skipped: 0 }
// The tests start hundreds of processes with the same code.
const compiled = await mkdtemp(join(tmpdir(), 'shoal-compiled-'))
try {
  const { jobs, alone } = await jobsOf(process.argv.slice(2))
  const share = Math.floor(ports.count / lanes)
  const runLane = async (lane: number, jobs: Job[]) => {
    const first = ports.first + lane * share
    const env = { NODE_COMPILE_CACHE: compiled, TEST_PORTS: `${first}-${first + share - 1}` }
    for (let job: Job | undefined; (job = lane % 2 === 0 ? jobs.shift() : jobs.pop()); ) {
      const count = await job(env)
      for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += count[key]
    }
  }
  await Promise.all(Array.from({ length: lanes }, (_, lane) => runLane(lane, jobs)))
  await runLane(0, alone)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  total.failed++
} finally {
  await rm(compiled, { recursive: true, force: true })
}
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed > 0 ? 1 : 0
