import { createHash } from 'node:crypto'
import * as assert from 'uvu/assert'
import type { Entry } from '../../scripts/internet/log.ts'
import type { World } from '../world.ts'
import { Office } from './office.ts'

export const repository = 'library/rush'
export const MiB = 1024 * 1024

type Image = Awaited<ReturnType<Office['internet']['add']>>

/** An office whose machines pull one image at the same time, from an upstream that is slow enough for that to show. */
export class Rush implements AsyncDisposable {
  readonly office: Office
  readonly image: Image

  private constructor(office: Office, image: Image) {
    this.office = office
    this.image = image
  }

  static async open(layers: readonly number[], { bytesPerSecond = 6 * MiB, settings = {} } = {}): Promise<Rush> {
    const office = await Office.open({ settings })
    office.internet.hub.intercept = ({ server }) => (server === 'cdn' ? { kind: 'slow', bytesPerSecond } : undefined)
    return new Rush(office, await office.internet.add({ repository, tag: 'latest', layers: [...layers] }))
  }

  /** Pulls as a client does, and looks at every byte. */
  async pull(machine: World): Promise<void> {
    const { status, body } = await machine.get(`/v2/${repository}/manifests/latest`)
    assert.is(status, 200, body.toString())
    await Promise.all(this.image.layers.map(layer => this.#layer(machine, layer.digest)))
  }

  /** What upstream was asked for and gave: manifests, and the bytes of blobs. */
  get upstream(): { readonly manifests: number; readonly bytes: number } {
    const got = this.office.internet.log.entries.filter(({ method }) => method === 'GET')
    const manifests = got.filter(({ server, path, status }: Entry) => {
      return server === 'hub' && status === 200 && path.includes('/manifests/')
    })
    const bytes = got.filter(({ server }) => server === 'cdn').reduce((sum, entry) => sum + entry.bytes, 0)
    return { manifests: manifests.length, bytes }
  }

  /** Of all layers. */
  get size(): number {
    return this.image.layers.reduce((sum, { size }) => sum + size, 0)
  }

  async #layer(machine: World, digest: string): Promise<void> {
    const { status, body } = await machine.get(`/v2/${repository}/blobs/${digest}`)
    assert.is(status, 200)
    assert.is(`sha256:${createHash('sha256').update(body).digest('hex')}`, digest)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.office[Symbol.asyncDispose]()
  }
}
