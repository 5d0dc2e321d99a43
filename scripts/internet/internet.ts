import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { makeCertificate } from './certificate.ts'
import { Gcr } from './gcr.ts'
import { Hub } from './hub.ts'
import type { Image } from './image.ts'
import { Images, type Recipe } from './images.ts'
import { Log } from './log.ts'

export type InternetOptions = {
  /** Serve https, with a certificate of a CA made for it. @default false */
  tls?: boolean
  /** The size of the layer of library/big in bytes; without it there is no such image. */
  big?: number
  /** For big layers, which the next run finds there. @default a temporary one, removed by `close` */
  folder?: string
  /** Where all servers listen, and what their URLs name; not with `tls`. @default '127.0.0.1' */
  address?: string
  /** @default any that is free, as for the other ports */
  hubPort?: number
  tokenPort?: number
  cdnPort?: number
  gcrPort?: number
  /** Who can log in. @default 'alice' */
  user?: string
  /** @default 'secret' */
  password?: string
}

/** The part of the internet that pulls of images need: Docker Hub and mirror.gcr.io. */
export class Internet {
  readonly hub: Hub
  readonly gcr: Gcr
  readonly log: Log
  readonly images: Images
  /** The path of the CA's PEM, with `tls`. */
  readonly ca: string | undefined
  readonly #opened: AsyncDisposableStack

  static async open(options: InternetOptions = {}): Promise<Internet> {
    const { big, user = 'alice', password = 'secret', hubPort, tokenPort, cdnPort, gcrPort } = options
    await using opened = new AsyncDisposableStack()
    const temporary = await mkdtemp(join(tmpdir(), 'internet-'))
    opened.defer(() => rm(temporary, { recursive: true, force: true }))
    const certificate = options.tls ? await makeCertificate(temporary) : undefined
    const images = await Images.make(resolve(options.folder ?? temporary), big)
    const shared = { images, log: new Log(), tls: certificate, address: options.address }
    const hub = await Hub.open({ ...shared, port: hubPort, tokenPort, cdnPort, users: new Map([[user, password]]) })
    opened.defer(() => hub.down())
    const gcr = await Gcr.open({ ...shared, port: gcrPort })
    opened.defer(() => gcr.down())
    return new Internet({ ...shared, hub, gcr, ca: certificate?.ca, opened: opened.move() })
  }

  private constructor(
    parts: Pick<Internet, 'hub' | 'gcr' | 'log' | 'images' | 'ca'> & { opened: AsyncDisposableStack },
  ) {
    this.hub = parts.hub
    this.gcr = parts.gcr
    this.log = parts.log
    this.images = parts.images
    this.ca = parts.ca
    this.#opened = parts.opened
  }

  /**
   * Makes an image of random layers at Docker Hub, and moves the tag to it; at mirror.gcr.io, too, if that has the
   * repository.
   */
  async add(recipe: Recipe): Promise<Image> {
    return this.images.add(recipe)
  }

  /** Moves a tag to a digest that the repository has, or to an image made by `add`. */
  move(repository: string, tag: string, to: string | Image): void {
    this.images.move(repository, tag, to)
  }

  /** Ends everything, open connections included. */
  async close(): Promise<void> {
    await this.#opened.disposeAsync()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
