import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Internet } from '../scripts/internet/internet.ts'
import { type Answer, fetchWhole } from './world.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** How a command ended. */
export type Ended = { readonly status: number | null; readonly stdout: string; readonly stderr: string }

/** The checkout. */
export const root = fileURLToPath(new URL('..', import.meta.url))

/** The command as users have it in a checkout. */
export const shoalBin = join(root, 'node_modules', '.bin', 'shoal')

/** For whatever a test waits for, in ms. */
const longest = 30_000

/** Waits until `look` gives something. @throws with what `missing` says, when it takes too long */
export async function until<T>(
  look: () => T | undefined | Promise<T | undefined>,
  missing: () => string,
  ms = longest,
): Promise<T> {
  const deadline = performance.now() + ms
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(missing())
    await setTimeout(25)
  }
}

/** No system takes the ports of outgoing connections from these. `npm test` gives what runs side by side ports apart. */
const [firstPort = 0, lastPort = 0] = (process.env['TEST_PORTS'] ?? '10000-29999').split('-').map(Number)

/** Ports that are free now. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) {
    const port = randomInt(firstPort, lastPort + 1)
    if (await isFree(port)) ports.add(port)
  }
  return [...ports]
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

/** This process's environment as a shell of a user's has it: without what npm and the settings of a Shoal add. */
export function plainEnvironment(more: Environment = {}): Environment {
  const added = /^(?:npm_|NODE_PATH$|INIT_CWD$|SHOAL_|DOCKER_|XDG_)/i
  const own = Object.entries(process.env).filter(([name]) => !added.test(name))
  const path = (process.env['PATH'] ?? '').split(delimiter).filter(folder => !folder.includes('node_modules'))
  return { ...Object.fromEntries(own), PATH: path.join(delimiter), ...more }
}

/** Runs a command to its end. */
export async function run(
  command: string,
  args: readonly string[],
  { env, cwd = root }: { readonly env: Environment; readonly cwd?: string },
): Promise<Ended> {
  const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = outputOf(child)
  const [status] = (await once(child, 'close')) as [number | null]
  return { status, ...output }
}

/** A program that goes on until it is stopped. What is left of it when the test ends is killed. */
export class RunningProcess implements AsyncDisposable {
  readonly output: { readonly stdout: string; readonly stderr: string }
  readonly #child: ChildProcess
  readonly #group: boolean
  readonly #ended: Promise<number | null>

  /** @param group it has children of its own, such as npm's, that are to be killed with it */
  constructor(
    command: string,
    args: readonly string[],
    { env, cwd = root, group = false }: { readonly env: Environment; readonly cwd?: string; readonly group?: boolean },
  ) {
    this.#group = group
    this.#child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: group })
    this.output = outputOf(this.#child)
    this.#ended = new Promise((resolve, reject) => {
      this.#child.once('close', resolve)
      this.#child.once('error', reject)
    })
    this.#ended.catch(() => {})
  }

  get pid(): number {
    return this.#child.pid!
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** @returns the exit status. @throws if it has not ended within `ms` */
  async end(ms = longest): Promise<number | null> {
    const patience = new AbortController()
    const late = setTimeout(ms, 'late' as const, { signal: patience.signal }).catch(() => 'late' as const)
    const status = await Promise.race([this.#ended, late])
    patience.abort()
    if (status === 'late') throw new Error(`${this.#child.spawnfile} has not ended within ${ms} ms`)
    return status
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) this.#child.kill('SIGKILL')
    if (this.#group) killGroup(this.pid)
    await this.#ended.catch(() => {})
  }
}

export type ShoalOptions = {
  /** Whom it asks. */
  readonly internet: Internet
  /** Further settings, by environment variable. */
  readonly env?: Environment
}

/** A daemon in a process of its own, started as users do, with ports and a data folder that nobody else has. */
export class ShoalProcess implements AsyncDisposable {
  readonly folder: string
  readonly env: Environment
  readonly mirror: string
  readonly admin: string
  #process: RunningProcess | undefined

  private constructor(folder: string, env: Environment) {
    this.folder = folder
    this.env = env
    this.mirror = `http://${env['SHOAL_MIRROR_LISTEN']}`
    this.admin = `http://${env['SHOAL_ADMIN_LISTEN']}`
  }

  /** All but the daemon itself: ports, folders and the environment. */
  static async prepare({ internet: { hub, gcr, ca }, env = {} }: ShoalOptions): Promise<ShoalProcess> {
    const [mirror, admin] = await freePorts(2)
    const folder = await mkdtemp(join(tmpdir(), 'shoal-process-'))
    await mkdir(join(folder, 'home'))
    const settings = {
      SHOAL_DATA_DIR: join(folder, 'data'),
      SHOAL_MIRROR_LISTEN: `127.0.0.1:${mirror}`,
      SHOAL_ADMIN_LISTEN: `127.0.0.1:${admin}`,
      SHOAL_SWARM_ENABLED: 'false',
      SHOAL_UPSTREAMS_DOCKER_IO_ENDPOINTS: `${gcr.url},${hub.url}`,
      ...(ca !== undefined && { SHOAL_UPSTREAMS_DOCKER_IO_CA: ca }),
    }
    return new ShoalProcess(folder, plainEnvironment({ HOME: join(folder, 'home'), ...settings, ...env }))
  }

  static async start(options: ShoalOptions): Promise<ShoalProcess> {
    const shoal = await ShoalProcess.prepare(options)
    try {
      await shoal.start()
    } catch (error) {
      await shoal[Symbol.asyncDispose]()
      throw error
    }
    return shoal
  }

  /** Starts the daemon, and waits until it is ready. */
  async start(program = shoalBin): Promise<void> {
    // A published program takes the Node of the PATH; the workspace's is new enough.
    const env = { ...this.env, PATH: `${join(root, 'node_modules', '.bin')}${delimiter}${this.env['PATH']}` }
    await this.#start(new RunningProcess(program, ['start'], { env }), longest)
  }

  /** `npm start` in another checkout, where everything may have to be installed first. */
  async npmStart(checkout: string, env: Environment): Promise<void> {
    const options = { env: { ...this.env, ...env }, cwd: checkout, group: true }
    await this.#start(new RunningProcess('npm', ['start'], options), 5 * 60_000)
  }

  async #start(started: RunningProcess, patience: number): Promise<void> {
    this.#process = started
    const { output } = started
    await until(
      async () => {
        if (!started.running) throw new Error(`the daemon has ended:\n${output.stderr}`)
        const answer = await fetchWhole('GET', `${this.admin}/readyz`).catch(() => undefined)
        return answer?.status === 200 ? answer : undefined
      },
      () => `the daemon does not become ready:\n${output.stdout}${output.stderr}`,
      patience,
    )
  }

  get process(): RunningProcess {
    if (!this.#process) throw new Error('the daemon has not been started')
    return this.#process
  }

  /** Sends a signal. @returns the exit status. @throws if that takes longer than a supervisor would wait, 5 s */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.process.kill(signal)
    return this.process.end(5000)
  }

  /** Runs another command with the same settings. */
  run(args: readonly string[], env: Environment = {}): Promise<Ended> {
    return run(shoalBin, args, { env: { ...this.env, ...env } })
  }

  /** Asks the mirror. */
  get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return fetchWhole('GET', this.mirror + path, headers)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]()
    await rm(this.folder, { recursive: true, force: true })
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

function outputOf(child: ChildProcess): { stdout: string; stderr: string } {
  const output = { stdout: '', stderr: '' }
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (output.stdout += text))
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (output.stderr += text))
  return output
}
