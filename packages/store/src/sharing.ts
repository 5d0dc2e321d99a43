import { setImmediate } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import type { Name } from '@shoal/oci/name'
import type { Standing } from './index.ts'
import type { Store } from './store.ts'

export type SharingChange = { readonly added: readonly Digest[]; readonly removed: readonly Digest[] }

export type SharingOptions = {
  readonly store: Store
  /** Whether content of a registry may be shared at all, by its name. */
  readonly mayShare: (registry: string) => boolean
  /** Told why something is not shared though it might be. */
  readonly onWarning: (message: string) => void
}

/** Blobs that are looked at without a break when it is opened: they take less than a millisecond. */
const blobsAtOnce = 2000

/** What peers may have. */
export interface Sharing {
  has(digest: Digest): boolean
  /** In no order; also if that changes meanwhile. */
  digests(): Iterable<Digest>
  /** Calls `changed` with what has changed, each time that something does. */
  onChange(changed: (change: SharingChange) => void): Disposable
}

/**
 * The blobs that are held, and public under a name of a registry that may be shared. Nothing counts as shared before that
 * is known.
 */
export class SharedBlobs implements Sharing, Disposable {
  /** Resolves once all is known that was held at the beginning. */
  readonly ready: Promise<void>
  readonly #options: SharingOptions
  readonly #shared = new Set<Digest>()
  readonly #listeners = new Set<{ changed(change: SharingChange): void }>()
  readonly #subscriptions: readonly Disposable[]
  #known = false
  #closed = false

  constructor(options: SharingOptions) {
    this.#options = options
    const { store } = options
    // Before it is looked what there is: what changes meanwhile must not be missed.
    this.#subscriptions = [
      store.onChange((digest, change) => {
        if (change === 'dropped') this.#remove(digest)
        else void this.#warning(this.#look(digest))
      }),
      store.visibilities.onPublished((name, digests, standing) => this.#published(name, digests, standing)),
    ]
    this.ready = this.#warning(this.#fill())
  }

  has(digest: Digest): boolean {
    return this.#known && this.#shared.has(digest)
  }

  digests(): Iterable<Digest> {
    return this.#known ? this.#shared.values() : []
  }

  onChange(changed: (change: SharingChange) => void): Disposable {
    const listener = { changed }
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  [Symbol.dispose](): void {
    this.#closed = true
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]()
    this.#listeners.clear()
  }

  async #fill(): Promise<void> {
    const { store } = this.#options
    // The index gives its keys anew each time; a second copy of each digest would cost memory for good.
    const own = new Map<string, Digest>()
    for (const digest of store.digests()) {
      own.set(digest, digest)
      if (own.size % blobsAtOnce === 0) await setImmediate()
    }
    let owners: { digest: string; registry: string; standing: Standing }[] = []
    const judge = () => {
      const held = own.get(owners[0]?.digest ?? '')
      if (held !== undefined && store.sizeOf(held) !== undefined && this.#mayHave(owners)) this.#shared.add(held)
      owners = []
    }
    for await (const batch of store.index.owned()) {
      for (const owner of batch) {
        // All names of a digest follow one another.
        if (owners[0] && owners[0].digest !== owner.digest) judge()
        owners.push(owner)
      }
      await setImmediate()
      if (this.#closed) return
    }
    judge()
    this.#known = true
    if (this.#shared.size > 0) this.#tell({ added: [...this.#shared], removed: [] })
  }

  /** Whether something that has been stored is to be shared: it may have been found public before. */
  async #look(digest: Digest): Promise<void> {
    const owners = await this.#options.store.index.ownersOf(digest)
    if (this.#mayHave(owners.map(({ name, standing }) => ({ registry: name.registry, standing })))) this.#add([digest])
  }

  #published({ registry }: Name, digests: readonly Digest[], standing: Standing): void {
    if (!this.#options.mayShare(registry)) return
    if (standing === 'public') this.#add(digests)
    else for (const digest of digests) void this.#warning(this.#look(digest))
  }

  /**
   * Whether peers may have what belongs to these. A peer's word is enough, but not for what this machine has as private
   * or of a registry that is not to be shared, too: whoever wants can make up a manifest that lists the layers of such an
   * image.
   */
  #mayHave(owners: readonly { readonly registry: string; readonly standing: Standing }[]): boolean {
    const { mayShare } = this.#options
    const shareable = owners.filter(({ registry }) => mayShare(registry))
    if (shareable.some(({ standing }) => standing === 'public')) return true
    return (
      owners.length > 0 && owners.length === shareable.length && owners.every(({ standing }) => standing === 'given')
    )
  }

  #add(digests: readonly Digest[]): void {
    const { store } = this.#options
    // What was dropped meanwhile is looked at when it is stored again.
    const added = digests.filter(digest => store.sizeOf(digest) !== undefined && !this.#shared.has(digest))
    for (const digest of added) this.#shared.add(digest)
    if (added.length > 0) this.#tell({ added, removed: [] })
  }

  #remove(digest: Digest): void {
    if (this.#shared.delete(digest)) this.#tell({ added: [], removed: [digest] })
  }

  #tell(change: SharingChange): void {
    if (this.#known) for (const listener of this.#listeners) listener.changed(change)
  }

  #warning(done: Promise<void>): Promise<void> {
    return done.catch(error => {
      if (this.#closed) return
      this.#options.onWarning(`some content is not shared: ${error instanceof Error ? error.message : String(error)}`)
    })
  }
}
