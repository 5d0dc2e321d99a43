import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { NetworkNamespace } from '../network-namespace.ts'
import { plainEnvironment, root } from '../shoal-process.ts'

/** What an agent can be asked to do: input and output go as JSON. */
type Calls = Readonly<Record<string, (input: never) => unknown>>

type Asked = { readonly id: number; readonly call: string; readonly input: unknown }
type Answered = { readonly id: number; readonly output?: unknown; readonly error?: string }

/** The side of the program: does what it is asked on stdin, many things at once, until that ends. */
export function serveCalls(calls: Calls): void {
  const lines = createInterface({ input: process.stdin })
  lines.on('line', line => void answer(calls, JSON.parse(line) as Asked))
  lines.on('close', () => process.exit())
}

async function answer(calls: Calls, { id, call, input }: Asked): Promise<void> {
  let answered: Answered
  try {
    answered = { id, output: await calls[call]?.(input as never) }
  } catch (error) {
    answered = { id, error: error instanceof Error ? error.message : String(error) }
  }
  process.stdout.write(`${JSON.stringify(answered)}\n`)
}

/** A program in a network namespace that is asked to do things there: to start one each time takes too long. */
export class Agent<C extends Calls> implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve: (output: unknown) => void; reject: (error: Error) => void }>()
  #asked = 0
  #complaint = ''

  /** @param program a file of this folder that calls {@link serveCalls} */
  constructor(namespace: NetworkNamespace, program: string, args: readonly string[] = []) {
    const inside = namespace.inside(process.execPath, [join(root, 'test', 'lan', program), ...args])
    this.#child = spawn('ip', inside, { env: plainEnvironment(), stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#complaint += text))
    this.#child.stdin?.on('error', () => {})
    this.#child.once('error', error => this.#end(error))
    this.#child.once('close', () => this.#end(new Error(`${program} has ended:\n${this.#complaint}`)))
    if (this.#child.stdout) {
      const lines = createInterface({ input: this.#child.stdout })
      lines.on('line', line => this.#hear(JSON.parse(line) as Answered))
    }
  }

  /** @throws what it says that went wrong */
  call<K extends keyof C & string>(call: K, input: Parameters<C[K]>[0]): Promise<Awaited<ReturnType<C[K]>>> {
    const id = ++this.#asked
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    if (this.#child.exitCode !== null || this.#child.signalCode !== null)
      reject(new Error(`it has ended:\n${this.#complaint}`))
    this.#waiting.set(id, { resolve, reject })
    this.#child.stdin?.write(`${JSON.stringify({ id, call, input } satisfies Asked)}\n`)
    return promise as Promise<Awaited<ReturnType<C[K]>>>
  }

  #hear({ id, output, error }: Answered): void {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    if (error === undefined) waiting?.resolve(output)
    else waiting?.reject(new Error(error))
  }

  #end(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const closed = once(this.#child, 'close')
    this.#child.stdin?.end()
    await closed
  }
}
