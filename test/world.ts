import { mkdtemp, rm } from 'node:fs/promises'
import { type IncomingHttpHeaders, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Daemon, startDaemon } from '../packages/shoal/src/daemon.ts'
import { createLog } from '../packages/shoal/src/log.ts'
import { loadSettings } from '../packages/shoal/src/settings/load.ts'
import { Internet, type InternetOptions } from '../scripts/internet/internet.ts'

export type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: Buffer }

export type WorldOptions = {
  readonly internet?: InternetOptions
  /** One that others ask, too, in place of one of its own. */
  readonly shared?: Internet
  /** More settings, by flag without dashes in front: `{'tags-ttl': '1ms'}`. */
  readonly settings?: Readonly<Record<string, string>>
}

/** A stand-in internet, and a daemon in this process that has it for upstream. */
export class World implements AsyncDisposable {
  readonly internet: Internet
  readonly folder: string
  readonly log: string[] = []
  daemon!: Daemon
  readonly #ownsInternet: boolean
  readonly #settings: Readonly<Record<string, string>>

  private constructor(
    internet: Internet,
    ownsInternet: boolean,
    folder: string,
    settings: Readonly<Record<string, string>>,
  ) {
    this.internet = internet
    this.folder = folder
    this.#ownsInternet = ownsInternet
    this.#settings = settings
  }

  static async open({ internet: options = {}, shared, settings = {} }: WorldOptions = {}): Promise<World> {
    const folder = await mkdtemp(join(tmpdir(), 'shoal-test-'))
    const world = new World(shared ?? (await Internet.open(options)), shared === undefined, folder, settings)
    await world.start()
    return world
  }

  /** Starts the daemon; with other settings than at first if some are given. */
  async start(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    const { hub, gcr, ca } = this.internet
    const argvFlags = {
      'data-dir': join(this.folder, 'data'),
      'mirror-listen': '127.0.0.1:0',
      'admin-listen': '127.0.0.1:0',
      'swarm-enabled': 'false',
      'upstreams-docker-io-endpoints': `${gcr.url},${hub.url}`,
      ...(ca !== undefined && { 'upstreams-docker-io-ca': ca }),
      ...this.#settings,
      ...settings,
    }
    const loaded = await loadSettings({ argvFlags, env: {} })
    this.daemon = await startDaemon(
      loaded.settings,
      createLog(line => void this.log.push(line)),
    )
  }

  async restart(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.daemon.close()
    await this.start(settings)
  }

  get mirror(): string {
    return `http://127.0.0.1:${this.daemon.mirror.port}`
  }

  get admin(): string {
    return `http://127.0.0.1:${this.daemon.admin.port}`
  }

  get data(): string {
    return join(this.folder, 'data')
  }

  /** Asks the mirror. Rejects if the connection breaks off before the whole body has come. */
  get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return fetchWhole('GET', this.mirror + path, headers)
  }

  head(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return fetchWhole('HEAD', this.mirror + path, headers)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon.close()
    if (this.#ownsInternet) await this.internet.close()
    await rm(this.folder, { recursive: true, force: true })
  }
}

export function fetchWhole(method: string, url: string, headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers, agent: false }, response => {
      const pieces: Buffer[] = []
      response.on('data', piece => pieces.push(piece))
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces) }),
      )
    })
    outgoing.on('error', reject)
    outgoing.end()
  })
}
