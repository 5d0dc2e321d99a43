import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import * as assert from 'uvu/assert'
import type { Status } from '../../packages/shoal/src/admin/status.ts'
import {
  type Ended,
  type Environment,
  plainEnvironment,
  type RunningProcess,
  root,
  shoalBin,
  until,
} from '../shoal-process.ts'
import type { DistantInternet } from './distant-internet.ts'
import type { Host } from './host.ts'
import type { Get, Got } from './host-agent.ts'
import type { Blob, Outline } from './internet-program.ts'

export type LanShoalOptions = {
  /** Whom it asks; without, endpoints that do not answer. */
  readonly internet?: DistantInternet
  /** More settings, by flag without dashes in front: `{'tags-ttl': '1ms'}`. */
  readonly settings?: Readonly<Record<string, string>>
}

export type PeerRow = Status['peers'][number]

/** Where the bytes of an answer come from, or `unknown`. */
export function sourceOf({ headers }: Got): string {
  return /detail="?([^"]*)"?$/.exec(String(headers['cache-status'] ?? ''))?.[1] ?? 'unknown'
}

/** A daemon on a host, started as users do, with a data folder that nobody else has. */
export class LanShoal implements AsyncDisposable {
  readonly host: Host
  readonly folder: string
  readonly env: Environment
  readonly mirror: string
  readonly admin: string
  #process: RunningProcess | undefined

  private constructor(host: Host, folder: string, env: Environment) {
    this.host = host
    this.folder = folder
    this.env = env
    this.mirror = `http://${env['SHOAL_MIRROR_LISTEN']}`
    this.admin = `http://${env['SHOAL_ADMIN_LISTEN']}`
  }

  /** All but the daemon itself. */
  static async prepare(host: Host, { internet, settings = {} }: LanShoalOptions): Promise<LanShoal> {
    const folder = await mkdtemp(join(tmpdir(), 'lan-shoal-'))
    await mkdir(join(folder, 'home'))
    const endpoints = internet ? [internet.gcr, internet.hub] : ['http://198.51.100.1']
    const all = {
      'data-dir': join(folder, 'data'),
      'mirror-listen': '127.0.0.1:3474',
      'admin-listen': '127.0.0.1:3475',
      'upstreams-docker-io-endpoints': endpoints.join(),
      ...settings,
    }
    const named = Object.entries(all).map(([flag, value]) => [variableOf(flag), value] as const)
    const env = plainEnvironment({ HOME: join(folder, 'home'), ...Object.fromEntries(named) })
    return new LanShoal(host, folder, env)
  }

  /** Where it keeps everything. */
  get data(): string {
    return join(this.folder, 'data')
  }

  /** What it has said since it was started last. */
  get log(): string {
    return this.#process ? this.#process.output.stdout + this.#process.output.stderr : ''
  }

  get process(): RunningProcess {
    if (!this.#process) throw new Error(`${this.host.name} has no daemon that was started`)
    return this.#process
  }

  /** Starts it, with other settings than before if some are given, and waits until it is ready. */
  async start(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    for (const [flag, value] of Object.entries(settings)) Object.assign(this.env, { [variableOf(flag)]: value })
    // Its own host name.
    const script = `echo ${this.host.name} > /proc/sys/kernel/hostname; exec "$0" start`
    const started = this.host.namespace.start('unshare', ['--uts', 'sh', '-c', script, shoalBin], { env: this.#env })
    this.#process = started
    await until(
      async () => {
        if (!started.running) throw new Error(`the daemon has ended:\n${this.log}`)
        const answer = await this.host.fetch({ url: `${this.admin}/readyz` }).catch(() => undefined)
        return answer?.status === 200 ? answer : undefined
      },
      () => `the daemon does not become ready:\n${this.log}`,
    )
  }

  /** It ends in order. */
  async stop(): Promise<void> {
    this.process.kill('SIGTERM')
    assert.is(await this.process.end(5000), 0, this.log)
  }

  /** It is gone at once, and says nothing. */
  async kill(): Promise<void> {
    this.process.kill('SIGKILL')
    await this.process.end()
  }

  /** It stands still, and its connections stay; `SIGCONT` lets it go on. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.process.kill(signal)
  }

  async restart(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.stop()
    await this.start(settings)
  }

  /** `shoal peers`, or whatever else, with its settings. */
  shoal(args: readonly string[]): Promise<Ended> {
    return this.host.run(shoalBin, args, this.#env)
  }

  async status(): Promise<Status> {
    const { text } = await this.host.fetch({ url: `${this.admin}/api/v1/status`, keep: true })
    return JSON.parse(text) as Status
  }

  /** Has the daemon do something. @returns what it says */
  async post(name: string, input?: object): Promise<unknown> {
    const authorization = `Bearer ${(await readFile(join(this.data, 'admin.token'), 'utf8')).trim()}`
    const body = input === undefined ? '' : JSON.stringify(input)
    const url = `${this.admin}/api/v1/${name}`
    const { text } = await this.host.fetch({ url, method: 'POST', headers: { authorization }, body, keep: true })
    return JSON.parse(text)
  }

  /** The peers that it is connected to. */
  async connected(): Promise<readonly PeerRow[]> {
    return (await this.status()).peers.filter(({ state }) => state === 'connected' || state === 'resting')
  }

  /** Waits until it is connected to these, by name, and to nobody else. @param ms how long at most */
  async meets(others: readonly LanShoal[], ms = 10_000): Promise<readonly PeerRow[]> {
    const wanted = (await Promise.all(others.map(async other => (await other.status()).peer_id))).sort()
    let seen: readonly PeerRow[] = []
    return until(
      async () => {
        seen = await this.connected()
        return String(seen.map(({ id }) => id).sort()) === String(wanted) ? seen : undefined
      },
      () => `${this.host.name} sees ${seen.map(({ name }) => name)}, not ${others.map(({ host }) => host.name)}`,
      ms,
    )
  }

  /** Waits until a peer has announced so many blobs, or more. */
  async hearsOf(blobs: number, from: LanShoal, ms = 10_000): Promise<void> {
    const { peer_id } = await from.status()
    let seen: number | undefined
    await until(
      async () => {
        seen = (await this.connected()).find(({ id }) => id === peer_id)?.blobs
        return seen !== undefined && seen >= blobs ? true : undefined
      },
      () => `${this.host.name} has heard of ${seen} blobs of ${from.host.name}'s, not of ${blobs}`,
      ms,
    )
  }

  /** Asks the mirror. */
  get(path: string, options: Omit<Get, 'url'> = {}): Promise<Got> {
    return this.host.fetch({ ...options, url: this.mirror + path })
  }

  blob({ repository }: Pick<Outline, 'repository'>, { digest }: Blob, options: Omit<Get, 'url'> = {}): Promise<Got> {
    return this.get(`/v2/${repository}/blobs/${digest}`, options)
  }

  /**
   * Pulls as clients do: the tag, the manifest by its digest, the config and the layers. Checks every byte.
   * @returns where each came from, the manifest under `manifest`
   */
  async pull(image: Outline, { tag }: { readonly tag?: string } = {}): Promise<{ manifest: Got; blobs: Got[] }> {
    const { repository, manifest: wanted, config, layers } = image
    if (tag !== undefined) check(await this.get(`/v2/${repository}/manifests/${tag}`), wanted)
    const manifest = check(await this.get(`/v2/${repository}/manifests/${wanted.digest}`), wanted)
    const blobs = await Promise.all([config, ...layers].map(async blob => check(await this.blob(image, blob), blob)))
    return { manifest, blobs }
  }

  get #env(): Environment {
    return { ...this.env, PATH: `${join(root, 'node_modules', '.bin')}${delimiter}${this.env['PATH']}` }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]()
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** An answer that must be whole, and right. */
export function check(got: Got, { digest, size }: Blob): Got {
  assert.equal(
    { status: got.status, digest: got.digest, length: got.length, broken: got.broken },
    { status: 200, digest, length: size, broken: undefined },
  )
  return got
}

function variableOf(flag: string): string {
  return `SHOAL_${flag.toUpperCase().replaceAll('-', '_')}`
}
