import type { Content } from './content.ts'
import { Endpoint, type Tls } from './endpoint.ts'
import type { Exchange } from './exchange.ts'
import type { Intercept } from './fault.ts'
import type { Images } from './images.ts'
import type { Log } from './log.ts'
import { isRead, parseRoute, sendBlob, sendManifest, sendReferrers, sendTags, version } from './registry.ts'

/**
 * mirror.gcr.io: Google's cache of much-pulled images of Docker Hub. It asks for no token, serves blobs itself, and
 * hasn't everything: by default it lacks, of library/busybox:latest, the manifest for this machine, and the 21st layer
 * of library/forty.
 */
export class Gcr {
  /** What it has, of the names at Docker Hub. */
  readonly repositories = new Set(['library/busybox', 'library/forty', 'library/big'])
  /** Digests that it lacks. */
  readonly lacks = new Set<string>()
  /** `repository:tag` → digest, where its tag lags Docker Hub's. By default library/busybox:1 is still what 1.35 is. */
  readonly tags = new Map<string, string>()
  intercept: Intercept | undefined
  readonly #images: Images
  #endpoint: Endpoint | undefined

  static async open(options: {
    images: Images
    log: Log
    tls?: Tls | undefined
    address?: string | undefined
    port?: number | undefined
  }): Promise<Gcr> {
    const gcr = new Gcr(options.images)
    gcr.#endpoint = await Endpoint.open({
      ...options,
      name: 'gcr',
      intercept: request => gcr.intercept?.(request),
      handler: exchange => gcr.#handle(exchange),
    })
    return gcr
  }

  private constructor(images: Images) {
    this.#images = images
    this.lacks.add(images.image('library/busybox').digest)
    this.lacks.add(images.image('library/forty').layers[20]!.digest)
    this.tags.set('library/busybox:1', images.image('library/busybox', '1.35').digest)
  }

  /** Without a path: `http://127.0.0.1:40004`. */
  get url(): string {
    return this.#open.url
  }

  /** Closes the port, and every connection. */
  async down(): Promise<void> {
    await this.#open.down()
  }

  async up(): Promise<void> {
    await this.#open.up()
  }

  get #open(): Endpoint {
    if (!this.#endpoint) throw new Error('the mirror is not open')
    return this.#endpoint
  }

  async #handle(exchange: Exchange): Promise<void> {
    Object.assign(exchange.headers, version)
    const route = parseRoute(exchange.url.pathname)
    if (!route) return exchange.sendError(404, 'NOT_FOUND', 'page not found')
    if (!isRead(exchange)) return exchange.sendError(405, 'UNSUPPORTED', 'The operation is unsupported.')
    if (route.kind === 'ping') return exchange.sendJson(200, {}, {})

    const repository = this.repositories.has(route.repository) && this.#images.repositories.get(route.repository)
    if (!repository) return exchange.sendError(404, 'NAME_UNKNOWN', 'repository name not known to registry')
    switch (route.kind) {
      case 'manifests': {
        const { reference } = route
        const digest = this.tags.get(`${route.repository}:${reference}`) ?? repository.tags.get(reference) ?? reference
        return sendManifest(exchange, this.#held(repository.manifests, digest))
      }
      case 'blobs':
        return sendBlob(exchange, this.#held(repository.blobs, route.reference))
      case 'tags':
        return sendTags(exchange, route.repository, repository.tags.keys())
      case 'referrers': {
        const referrers = repository.referrers.get(route.reference) ?? []
        return sendReferrers(
          exchange,
          referrers.filter(({ digest }) => !this.lacks.has(digest)),
        )
      }
    }
  }

  #held(contents: Map<string, Content>, digest: string): Content | undefined {
    return this.lacks.has(digest) ? undefined : contents.get(digest)
  }
}
