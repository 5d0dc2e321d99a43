import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import type { Content } from '../../scripts/internet/content.ts'
import type { Image } from '../../scripts/internet/image.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { ShoalProcess, until } from '../shoal-process.ts'
import { fetchWhole } from '../world.ts'
import { type Client, done } from './client.ts'

/** Bytes that Shoal has sent, by where it had them from. */
export type Served = { readonly local: number; readonly upstream: number }

type Status = {
  readonly served: Readonly<Record<'local' | 'upstream', { readonly bytes: number }>>
  readonly clients: readonly { readonly tool: string }[]
}

/** A stand-in internet with an image at Docker Hub alone, Shoal in front of it, and a client that asks Shoal. */
export class ClientWorld<C extends Client = Client> implements AsyncDisposable {
  readonly repository = 'library/four'
  readonly internet: Internet
  readonly shoal: ShoalProcess
  readonly client: C
  readonly image: Image
  readonly #opened: AsyncDisposableStack

  private constructor(
    parts: Pick<ClientWorld<C>, 'internet' | 'shoal' | 'client' | 'image'>,
    opened: AsyncDisposableStack,
  ) {
    this.internet = parts.internet
    this.shoal = parts.shoal
    this.client = parts.client
    this.image = parts.image
    this.#opened = opened
  }

  /** @param start gives a client with an empty store */
  static async open<C extends Client>(start: (shoal: ShoalProcess) => Promise<C>): Promise<ClientWorld<C>> {
    await using opened = new AsyncDisposableStack()
    const internet = opened.use(await Internet.open())
    const image = await internet.add({ repository: 'library/four', tag: 'latest', layers: [1_500_000, 200_000, 5000] })
    const shoal = opened.use(await ShoalProcess.start({ internet, env: { SHOAL_TAGS_TTL: '1ms' } }))
    const client = opened.use(await start(shoal))
    return new ClientWorld({ internet, shoal, client, image }, opened.move())
  }

  /** The config and the layers. */
  get blobs(): readonly Content[] {
    return [this.image.config, ...this.image.layers]
  }

  /** Of the whole image. */
  get bytes(): number {
    return this.image.manifest.size + this.blobs.reduce((sum, { size }) => sum + size, 0)
  }

  /**
   * Pulls, and checks that Shoal and nobody else gave the client the image, each byte of it once, and that its store
   * holds these bytes.
   * @returns where Shoal had them from
   */
  async pull(): Promise<Served> {
    const { client, internet, bytes } = this
    // Docker keeps the manifests of images that it no longer has.
    const least = bytes - this.image.manifest.size
    const before = (await this.#status()).served
    done(await client.pull(this.repository))
    let served: Served = { local: 0, upstream: 0 }
    // Shoal counts an answer a moment after the client has had it.
    const clients = await until(
      async () => {
        const now = await this.#status()
        served = {
          local: now.served.local.bytes - before.local.bytes,
          upstream: now.served.upstream.bytes - before.upstream.bytes,
        }
        return [least, bytes].includes(served.local + served.upstream) ? now.clients : undefined
      },
      () => `${client.tool} had not each byte of the image once: ${JSON.stringify(served)} of ${bytes}`,
    )
    assert.ok(clients.some(({ tool }) => tool === client.tool))
    assert.equal(client.wanted, [])
    for (const { userAgent } of internet.log.requests()) assert.match(userAgent ?? '', /^shoal\/\d/)
    await this.#checkStore()
    return served
  }

  /** What Docker Hub and mirror.gcr.io gave since the last time, each as `hub GET /v2/…`. */
  async asked(): Promise<string[]> {
    const { log } = this.internet
    await log.idle()
    const asked = log
      .requests({ path: '/v2/' })
      .flatMap(({ server, method, path, status }) => (status < 300 ? [`${server} ${method} ${path}`] : []))
    log.clear()
    return asked
  }

  async internetDown(): Promise<void> {
    await this.internet.hub.down()
    await this.internet.gcr.down()
  }

  async #checkStore(): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'saved-'))
    try {
      const image = join(folder, 'image')
      await mkdir(image)
      await this.client.save(this.repository, image)
      const files = await readdir(image, { recursive: true, withFileTypes: true })
      const digests = new Set<string>()
      for (const file of files) {
        if (!file.isFile()) continue
        const bytes = await readFile(join(file.parentPath, file.name))
        digests.add(`sha256:${createHash('sha256').update(bytes).digest('hex')}`)
      }
      for (const { diffId } of this.image.layers) assert.ok(digests.has(diffId), `it does not hold ${diffId}`)
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  async #status(): Promise<Status> {
    const { body } = await fetchWhole('GET', `${this.shoal.admin}/api/v1/status`)
    return JSON.parse(String(body)) as Status
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}
