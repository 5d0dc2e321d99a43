import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { NetworkNamespace } from '../network-namespace.ts'
import { whyNot } from '../prerequisites.ts'
import { type Ended, type Environment, plainEnvironment, RunningProcess, run, until } from '../shoal-process.ts'
import { done } from './client.ts'
import { ClosedProxy } from './closed-proxy.ts'

/** Why there can be no dockerd of our own here; undefined: there can. */
export function whyNoDockerd(): string | undefined {
  return whyNot(['dockerd', 'docker', 'containerd', 'runc'], 'docker.io')
}

/** A Docker engine of our own, with nothing of the machine's: its files, socket and containerd are in one folder. */
export class Dockerd implements AsyncDisposable {
  readonly folder: string
  readonly env: Environment
  readonly #proxy: ClosedProxy
  readonly #namespace: NetworkNamespace | undefined
  #process: RunningProcess | undefined

  private constructor(folder: string, proxy: ClosedProxy, namespace: NetworkNamespace | undefined) {
    this.folder = folder
    this.#namespace = namespace
    this.#proxy = proxy
    this.env = plainEnvironment({ ...proxy.env, HOME: folder, TMPDIR: folder, DOCKER_HOST: this.host })
  }

  /**
   * @param daemonJson the text of daemon.json
   * @param namespace where it runs; there, nobody hears what it wants from the internet
   */
  static async start(daemonJson: string, namespace?: NetworkNamespace): Promise<Dockerd> {
    const folder = await mkdtemp(join(tmpdir(), 'dockerd-'))
    const dockerd = new Dockerd(folder, await ClosedProxy.open(), namespace)
    try {
      await writeFile(dockerd.daemonJson, daemonJson)
      await dockerd.start()
    } catch (error) {
      await dockerd[Symbol.asyncDispose]()
      throw error
    }
    return dockerd
  }

  /** What dockerd wanted from the internet; {@link ClosedProxy.wanted}. */
  get wanted(): readonly string[] {
    return this.#proxy.wanted
  }

  get host(): string {
    return `unix://${join(this.folder, 'd.sock')}`
  }

  get daemonJson(): string {
    return join(this.folder, 'daemon.json')
  }

  async start(): Promise<void> {
    const folder = (name: string) => join(this.folder, name)
    const args = ['--config-file', this.daemonJson, '--data-root', folder('data'), '--exec-root', folder('exec')]
    args.push('--pidfile', folder('pid'), '-H', this.host, '--iptables=false', '--bridge=none')
    // Works on every file system. The namespaces matter where the machine's own containerd is running.
    args.push('--storage-driver', 'vfs', '--containerd-namespace', 'shoal-test')
    args.push('--containerd-plugins-namespace', 'shoal-test-plugins')
    const options = { env: this.env, cwd: this.folder }
    const started = this.#namespace
      ? new RunningProcess('nsenter', this.#namespace.onlyNetwork('dockerd', args), options)
      : new RunningProcess('dockerd', args, options)
    this.#process = started
    await until(
      async () => {
        if (!started.running) throw new Error(`dockerd has ended:\n${started.output.stderr}`)
        return (await this.docker('version')).status === 0 ? true : undefined
      },
      () => `dockerd does not answer:\n${started.output.stderr}`,
    )
  }

  async stop(): Promise<void> {
    this.#running.kill('SIGTERM')
    await this.#running.end()
  }

  /** Makes it read daemon.json anew, and waits until it says that it has. */
  async reload(): Promise<void> {
    const { output } = this.#running
    const before = output.stderr.length
    this.#running.kill('SIGHUP')
    await until(
      () => /Reloaded configuration/.exec(output.stderr.slice(before))?.[0],
      () => `dockerd does not reload:\n${output.stderr.slice(before)}`,
    )
  }

  /** Runs the docker command. */
  docker(...args: string[]): Promise<Ended> {
    return run('docker', args, { env: this.env, cwd: this.folder })
  }

  /** Writes the layers of an image, and what belongs to it, into a folder. */
  async save(image: string, folder: string): Promise<void> {
    const archive = join(this.folder, 'saved.tar')
    done(await this.docker('save', '--output', archive, image))
    done(await run('tar', ['-xf', archive, '-C', folder], { env: this.env }))
  }

  /** Removes every image, and what builds have left. */
  async forget(): Promise<void> {
    done(await this.docker('system', 'prune', '--all', '--force'))
  }

  /** What `docker info` shows under "Registry Mirrors". */
  async mirrors(): Promise<string[]> {
    const { stdout } = await this.docker('info', '--format', '{{json .RegistryConfig.Mirrors}}')
    return JSON.parse(stdout) as string[]
  }

  get #running(): RunningProcess {
    if (!this.#process) throw new Error('dockerd has not been started')
    return this.#process
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process?.running) await this.stop().catch(() => {})
    await this.#process?.[Symbol.asyncDispose]()
    await this.#proxy[Symbol.asyncDispose]()
    await this.#unmount()
    await rm(this.folder, { recursive: true, force: true, maxRetries: 20 })
  }

  /** A dockerd that did not end by itself leaves the mounts of its containers; the innermost go first. */
  async #unmount(): Promise<void> {
    const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map(line => line.split(' ')[1] ?? '')
    for (const path of mounts.filter(path => path.startsWith(`${this.folder}/`)).reverse())
      await run('umount', ['--lazy', path], { env: this.env })
  }
}
