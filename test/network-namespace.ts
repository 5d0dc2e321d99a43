import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdir, rm, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Environment, RunningProcess } from './shoal-process.ts'

const execute = promisify(execFile)

/** Where `ip netns exec` looks for files that stand in for those of /etc. */
const replacements = '/etc/netns'

/**
 * A host with a network of its own on this machine, and the files of this one. At first it has only its loopback, up.
 * It takes root, and `ip` of iproute2.
 */
export class NetworkNamespace implements AsyncDisposable {
  readonly name: string
  readonly #opened = new AsyncDisposableStack()

  private constructor(name: string) {
    this.name = name
  }

  /** @param nameserver the address of the only one whom it asks for names. @default those of this machine */
  static async open({ nameserver }: { readonly nameserver?: string } = {}): Promise<NetworkNamespace> {
    const namespace = new NetworkNamespace(`shoal-${randomUUID().slice(0, 8)}`)
    try {
      await namespace.#add(nameserver)
    } catch (error) {
      await namespace[Symbol.asyncDispose]()
      throw error
    }
    return namespace
  }

  async #add(nameserver: string | undefined): Promise<void> {
    const { name } = this
    if (nameserver !== undefined) {
      const folder = join(replacements, name)
      await mkdir(folder, { recursive: true })
      // Those of others may be there.
      this.#opened.defer(() => rmdir(replacements).catch(() => {}))
      this.#opened.defer(() => rm(folder, { recursive: true }))
      await writeFile(join(folder, 'resolv.conf'), `nameserver ${nameserver}\n`)
      // A resolver of this machine's is not on its network: nothing may ask it by way of a socket.
      await writeFile(join(folder, 'nsswitch.conf'), 'hosts: files dns\n')
    }
    await execute('ip', ['netns', 'add', name])
    this.#opened.defer(async () => void (await execute('ip', ['netns', 'delete', name])))
    await this.ip('link', 'set', 'dev', 'lo', 'up')
  }

  /** `ip` for its links, addresses and routes. @throws if it fails */
  async ip(...args: readonly string[]): Promise<void> {
    await execute('ip', ['-n', this.name, ...args])
  }

  /** `tc` for the queues of its links. @throws if it fails */
  async tc(...args: readonly string[]): Promise<void> {
    await execute('tc', ['-n', this.name, ...args])
  }

  /** Sets what the kernel has below /proc/sys/net. @param name `ipv4/ip_forward` */
  async set(name: string, value: number | string): Promise<void> {
    await this.execute('sh', ['-c', `echo ${value} > /proc/sys/net/${name}`])
  }

  /** The arguments with which `ip` runs a command in it. */
  inside(command: string, args: readonly string[]): string[] {
    return ['netns', 'exec', this.name, command, ...args]
  }

  /** The arguments with which `nsenter` runs a command in it that needs this machine's own /sys, as for its cgroups. */
  onlyNetwork(command: string, args: readonly string[]): string[] {
    return [`--net=/run/netns/${this.name}`, '--', command, ...args]
  }

  /** Runs a command in it to its end. @throws if its exit status is not 0 */
  execute(command: string, args: readonly string[]): Promise<{ stdout: Buffer; stderr: Buffer }> {
    return execute('ip', this.inside(command, args), { encoding: 'buffer' })
  }

  /** Starts a program in it. What is left of it when the namespace is removed is killed. */
  start(command: string, args: readonly string[], { env }: { readonly env: Environment }): RunningProcess {
    const started = new RunningProcess('ip', this.inside(command, args), { env })
    this.#opened.use(started)
    return started
  }

  /** Removes it, and its links with it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}
