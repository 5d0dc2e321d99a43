import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatReference, parseReference } from '@shoal/oci/reference'
import type { NetworkNamespace } from '../network-namespace.ts'
import {
  type Ended,
  type Environment,
  plainEnvironment,
  RunningProcess,
  run,
  type ShoalProcess,
  until,
} from '../shoal-process.ts'
import { type Client, done } from './client.ts'
import { ClosedProxy } from './closed-proxy.ts'
import { documented } from './documented.ts'

/** A containerd of our own, with nothing of the machine's: its files and socket are in one folder. */
export class Containerd implements Client {
  readonly tool = 'containerd'
  readonly #folder: string
  readonly #proxy: ClosedProxy
  readonly #env: Environment
  readonly #namespace: NetworkNamespace | undefined
  #process: RunningProcess | undefined

  /** @param namespace where it runs; there, nobody hears what it wants from the internet */
  static async start(shoal: Pick<ShoalProcess, 'mirror'>, namespace?: NetworkNamespace): Promise<Containerd> {
    const folder = await mkdtemp(join(tmpdir(), 'containerd-'))
    const containerd = new Containerd(folder, await ClosedProxy.open(), namespace)
    try {
      await containerd.mirror('docker.io', shoal)
      await containerd.#start()
    } catch (error) {
      await containerd[Symbol.asyncDispose]()
      throw error
    }
    return containerd
  }

  private constructor(folder: string, proxy: ClosedProxy, namespace: NetworkNamespace | undefined) {
    this.#namespace = namespace
    this.#folder = folder
    this.#proxy = proxy
    this.#env = plainEnvironment({
      ...proxy.env,
      HOME: folder,
      TMPDIR: folder,
      CONTAINERD_ADDRESS: this.#path('c.sock'),
      // Works on every file system.
      CONTAINERD_SNAPSHOTTER: 'native',
    })
  }

  get wanted(): readonly string[] {
    return this.#proxy.wanted
  }

  /** Has it ask Shoal for what a registry has, from the next pull on. */
  async mirror(registry: string, shoal: Pick<ShoalProcess, 'mirror'>): Promise<void> {
    const hosts = this.#path('certs.d', registry)
    await mkdir(hosts, { recursive: true })
    const text = await documented('/etc/containerd/certs.d/docker.io/hosts.toml', shoal)
    const server = registry === 'docker.io' ? 'registry-1.docker.io' : registry
    await writeFile(join(hosts, 'hosts.toml'), text.replace('registry-1.docker.io', server))
  }

  /** @param repository of Docker Hub, or with the registry that it is of */
  pull(repository: string, ...flags: string[]): Promise<Ended> {
    return this.#ctr('images', 'pull', '--hosts-dir', this.#path('certs.d'), ...flags, nameOf(repository))
  }

  async save(repository: string, folder: string): Promise<void> {
    const archive = this.#path('saved.tar')
    done(await this.#ctr('images', 'export', archive, nameOf(repository)))
    done(await run('tar', ['-xf', archive, '-C', folder], { env: this.#env }))
  }

  async forget(): Promise<void> {
    const images = done(await this.#ctr('images', 'list', '--quiet'))
    done(await this.#ctr('images', 'remove', '--sync', ...images.trim().split('\n')))
    const left = done(await this.#ctr('content', 'list', '--quiet'))
    if (left !== '') throw new Error(`containerd still holds ${left}`)
  }

  async #start(): Promise<void> {
    const config = [
      'version = 2',
      `root = "${this.#path('root')}"`,
      `state = "${this.#path('state')}"`,
      'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
      '[grpc]',
      `  address = "${this.#path('c.sock')}"`,
    ]
    await writeFile(this.#path('config.toml'), config.join('\n'))
    const args = ['--config', this.#path('config.toml')]
    const started = new RunningProcess(...this.#inside('containerd', args), { env: this.#env, cwd: this.#folder })
    this.#process = started
    await until(
      async () => {
        if (!started.running) throw new Error(`containerd has ended:\n${started.output.stderr}`)
        return (await this.#ctr('version')).status === 0 ? true : undefined
      },
      () => `containerd does not answer:\n${started.output.stderr}`,
    )
  }

  #ctr(...args: string[]): Promise<Ended> {
    return run(...this.#inside('ctr', args), { env: this.#env, cwd: this.#folder })
  }

  #inside(command: string, args: readonly string[]): [string, readonly string[]] {
    return this.#namespace ? ['ip', this.#namespace.inside(command, args)] : [command, args]
  }

  #path(...names: string[]): string {
    return join(this.#folder, ...names)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process?.kill('SIGTERM')
    await this.#process?.end().catch(() => {})
    await this.#process?.[Symbol.asyncDispose]()
    await this.#proxy[Symbol.asyncDispose]()
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 20 })
  }
}

function nameOf(repository: string): string {
  return formatReference(parseReference(repository))
}
