import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
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
  #process: RunningProcess | undefined

  static async start(shoal: ShoalProcess): Promise<Containerd> {
    const folder = await mkdtemp(join(tmpdir(), 'containerd-'))
    const containerd = new Containerd(folder, await ClosedProxy.open())
    try {
      const hosts = containerd.#path('certs.d', 'docker.io')
      await mkdir(hosts, { recursive: true })
      const hostsToml = await documented('/etc/containerd/certs.d/docker.io/hosts.toml', shoal)
      await writeFile(join(hosts, 'hosts.toml'), hostsToml)
      await containerd.#start()
    } catch (error) {
      await containerd[Symbol.asyncDispose]()
      throw error
    }
    return containerd
  }

  private constructor(folder: string, proxy: ClosedProxy) {
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
    const started = new RunningProcess('containerd', args, { env: this.#env, cwd: this.#folder })
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
    return run('ctr', args, { env: this.#env, cwd: this.#folder })
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
  return `docker.io/${repository}:latest`
}
