import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Clock ticks a second in /proc (sysconf(_SC_CLK_TCK) is 100 on every Linux that Node runs on). */
const ticks = 100

/** A server that is measured: started here, asked over TCP, and looked at in /proc with its children. */
export class Program implements AsyncDisposable {
  readonly name: string
  readonly #child: ChildProcess

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.#child = child
  }

  /** Starts a program, and waits until `url` is answered. Its output goes to the file `log`. */
  static async start(
    name: string,
    [command, ...args]: readonly [string, ...string[]],
    { url, log, env = {} }: { url: string; log: string; env?: Record<string, string> },
  ): Promise<Program> {
    const output = openSync(log, 'w')
    const child = spawn(command, args, { stdio: ['ignore', output, output], env: { ...process.env, ...env } })
    closeSync(output)
    await once(child, 'spawn')
    const program = new Program(name, child)
    for (let tries = 0; ; tries++) {
      if (await answers(url)) return program
      if (tries > 200 || child.exitCode !== null) {
        await program[Symbol.asyncDispose]()
        throw new Error(`${name} does not answer at ${url}; see ${log}`)
      }
      await sleep(50)
    }
  }

  /** CPU seconds so far, children included. */
  async cpuSeconds(): Promise<number> {
    let sum = 0
    for (const pid of await this.#pids()) {
      const stat = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /s, '').split(' ')
      sum += (Number(stat[11]) + Number(stat[12])) / ticks
    }
    return sum
  }

  /** Resident memory in bytes, now and at its highest. */
  async memory(): Promise<{ now: number; peak: number }> {
    const status = await readFile(`/proc/${this.#child.pid}/status`, 'utf8')
    const kib = (key: string) => Number(new RegExp(`${key}:\\s+(\\d+)`).exec(status)?.[1] ?? 0)
    return { now: kib('VmRSS') * 1024, peak: kib('VmHWM') * 1024 }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await exited
  }

  async #pids(): Promise<number[]> {
    const { pid } = this.#child
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
    return [pid!, ...children.split(' ').filter(Boolean).map(Number)]
  }
}

/** A TCP port that nobody listens at just now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function answers(url: string): Promise<boolean> {
  try {
    await (await fetch(url)).arrayBuffer()
    return true
  } catch {
    return false
  }
}

/** Runs a program to its end. @returns seconds it took; @throws if it fails */
export async function timed(command: string, args: readonly string[], cwd?: string): Promise<number> {
  const begin = performance.now()
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], ...(cwd !== undefined && { cwd }) })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ends with ${code}`)
  return (performance.now() - begin) / 1000
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
