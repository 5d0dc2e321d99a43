import { spawn } from 'node:child_process'
import { glob } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'

/**
 * `npm test [-- SUITE …]`: runs the suites, each test file in a process of its own, and closes with one line that counts
 * them all. Suites: check, lint, unit, internet, daemon, swarm, faults, clients, lan; all of them if none is named.
 */

type Count = { passed: number; failed: number; skipped: number }

const root = fileURLToPath(new URL('..', import.meta.url))

/** No file may take longer, in ms. */
const longest = 300_000

const suites: Record<string, { command: readonly string[] } | { files: readonly string[]; parallel: number }> = {
  check: { command: ['tsc', '-p', 'test/tsconfig.json'] },
  lint: { command: ['biome', 'check', '--error-on-warnings', '.'] },
  unit: { files: ['packages/*/src/**/*.test.ts'], parallel: availableParallelism() },
  internet: { files: ['scripts/**/*.test.ts'], parallel: availableParallelism() },
  daemon: { files: ['test/daemon/*.test.ts'], parallel: 1 },
  swarm: { files: ['test/swarm/*.test.ts'], parallel: 1 },
  faults: { files: ['test/faults/*.test.ts'], parallel: 1 },
  clients: { files: ['test/clients/*.test.ts'], parallel: 1 },
  // Its hosts wait more than they work.
  lan: { files: ['test/lan/*.test.ts'], parallel: 2 },
}

function run(command: string, args: readonly string[]): Promise<{ code: number; output: string }> {
  return new Promise(resolve => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
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

async function runFile(file: string): Promise<Count> {
  const begin = Date.now()
  const { code, output } = await run('node', [file])
  const count = countOf(code, output)
  const seconds = ((Date.now() - begin) / 1000).toFixed(1)
  const remarks = [...output.matchAll(/^(?:skipped|measured): .*$/gm)].map(([line]) => `\n  ${line}`).join('')
  console.log(`${count.failed > 0 ? 'FAIL' : 'ok  '} ${file}: ${count.passed} passed in ${seconds} s${remarks}`)
  if (count.failed > 0) console.log(output)
  return count
}

async function runSuite(name: string): Promise<Count> {
  const suite = suites[name]
  if (!suite) throw new Error(`no suite "${name}": there are ${Object.keys(suites).join(', ')}`)
  if ('command' in suite) {
    const [command = '', ...args] = suite.command
    const { code, output } = await run(command, args)
    console.log(`${code === 0 ? 'ok  ' : 'FAIL'} ${name}: ${suite.command.join(' ')}`)
    if (code !== 0) console.log(output)
    return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 }
  }
  const files: string[] = []
  for await (const file of glob(suite.files as string[], { cwd: root, exclude: name => name === 'node_modules' }))
    files.push(file)
  files.sort()
  const total: Count = { passed: 0, failed: 0, skipped: 0 }
  const lanes = Array.from({ length: suite.parallel }, async () => {
    for (let file: string | undefined; (file = files.shift()) !== undefined; ) {
      const count = await runFile(file)
      for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += count[key]
    }
  })
  await Promise.all(lanes)
  return total
}

const total: Count = { passed: 0, failed: 0, skipped: 0 }
try {
  for (const name of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(suites)) {
    const count = await runSuite(name)
    for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += count[key]
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  total.failed++
}
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed > 0 ? 1 : 0
