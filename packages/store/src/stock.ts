import { setImmediate } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import type { Manifest } from '@shoal/oci/manifest'
import { Inventory, type Parts } from '@shoal/retention/inventory'
import type { Store } from './store.ts'

/** Blobs that are looked at without a break when it is opened: they take less than a millisecond. */
const blobsAtOnce = 2000

/** What the store holds, as retention sees it. */
export class Stock implements Disposable {
  readonly inventory = new Inventory()
  /** Resolves once all is known that was held at the beginning. */
  readonly ready: Promise<void>
  readonly #store: Store
  readonly #now: () => number
  readonly #subscription: Disposable
  #closed = false

  /** @param now in ms since the epoch */
  constructor(store: Store, now: () => number) {
    this.#store = store
    this.#now = now
    this.#subscription = store.onChange((digest, change) => {
      if (change === 'dropped') this.inventory.remove(digest)
      else this.#add(digest, store.index.manifest(digest), now())
    })
    this.ready = this.#fill()
  }

  [Symbol.dispose](): void {
    this.#closed = true
    this.#subscription[Symbol.dispose]()
  }

  async #fill(): Promise<void> {
    const { index, blobs } = this.#store
    // When it was used before is not known: after a start all is as new as that.
    const startedAt = this.#now()
    try {
      for await (const manifests of index.manifests()) {
        for (const [digest, manifest] of manifests) this.#addFirst(digest, manifest, startedAt)
        await setImmediate()
        if (this.#closed) return
      }
    } catch {
      // The index is damaged: the manifests themselves tell.
      for (const [digest, { mediaType }] of blobs) {
        const held = mediaType === undefined ? undefined : await this.#store.manifest(digest).catch(() => undefined)
        if (held) this.#addFirst(digest, held.manifest, startedAt)
        if (this.#closed) return
      }
    }
    for (const [i, [digest]] of blobs.entries()) {
      this.#addFirst(digest, undefined, startedAt)
      if (i % blobsAtOnce === 0) await setImmediate()
    }
  }

  /** What was stored meanwhile is known better already. */
  #addFirst(digest: Digest, manifest: Manifest | undefined, usedAt: number): void {
    if (!this.inventory.get(digest)) this.#add(digest, manifest, usedAt)
  }

  #add(digest: Digest, manifest: Manifest | undefined, usedAt: number): void {
    const size = this.#store.sizeOf(digest)
    if (size !== undefined) this.inventory.add(digest, size, manifest && partsOf(manifest), usedAt)
  }

  /** A blob was read for somebody. */
  used(digest: Digest): void {
    this.inventory.used(digest, this.#now())
  }
}

function partsOf(manifest: Manifest): Parts {
  // The last goes first: a config is of no use to another image, and the lower layers may be.
  const { manifests, layers, config } = manifest
  const parts = [...manifests, ...layers, ...(config ? [config] : [])]
  const ids = [...new Set(parts.map(({ digest }) => digest))]
  return { ids, needs: manifest.manifests.length > 0 ? 'any' : 'all' }
}
