import { setImmediate } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import { childrenOf, type Manifest } from '@shoal/oci/manifest'
import { formatName, type Name } from '@shoal/oci/name'
import type { Index, Standing, Visibility } from './index.ts'

/** Manifests whose children are known to share their lot: so many are remembered, not to look at them again. */
const mostSpread = 10_000

/** Looking up is synchronous, and a manifest can have tens of thousands of children: so many without a break. */
const lookupsAtOnce = 500

/**
 * Who may know that this machine holds content. It belongs to (registry, repository, digest): the same bytes can be
 * public in one repository and private in another. What is not known is private.
 */
export class Visibilities {
  readonly #index: Index
  readonly #listeners = new Set<{ published(name: Name, digests: readonly Digest[], standing: Standing): void }>()
  readonly #spread = new Set<string>()
  /** One change at a time: what is stored, or found public, while another change looks around, must not be missed. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(index: Index) {
    this.#index = index
  }

  of(name: Name, digest: Digest): Visibility {
    return isPublic(this.#index.standing(name, digest)) ? 'public' : 'private'
  }

  /** Whether the registry itself has given it to somebody without credentials. */
  isProven(name: Name, digest: Digest): boolean {
    return this.#index.standing(name, digest) === 'public'
  }

  /**
   * Notes how a manifest was to be had from its registry; what it points to shares its lot, and what that points to, as
   * far as it is held. What was public once stays so: that a later request bore credentials does not tell that they were
   * needed.
   * @param manifest if it is known and may not be held
   */
  note(name: Name, digest: Digest, visibility: Visibility, manifest?: Manifest): Promise<void> {
    return this.#turn(async () => {
      if (visibility === 'public' || this.isProven(name, digest)) return this.#publish(name, digest, manifest)
      const unknown = await this.#pick(name, [digest, ...digestsOf(manifest)], known => known === undefined)
      await this.#set(name, unknown, 'private')
    })
  }

  /**
   * Notes that a peer gave a manifest: those who know it need not be told that they may.
   * @param manifest if what it points to is to share its lot. What is known to be private does not: a former colleague
   * may still have the manifest of a private image, and need not have its layers.
   */
  noteGiven(name: Name, digest: Digest, manifest?: Manifest): Promise<void> {
    return this.#turn(async () => {
      const unknown = await this.#pick(name, digestsOf(manifest), known => known === undefined)
      const itself = await this.#pick(name, [digest], known => !isPublic(known))
      await this.#set(name, [...itself, ...unknown], 'given')
    })
  }

  /** Notes that a manifest is held, and what it points to: under the names that it is public under, that is so, too. */
  learned(digest: Digest, manifest: Manifest): Promise<void> {
    return this.#turn(async () => {
      for (const { name, standing } of await this.#index.ownersOf(digest)) {
        this.#spread.delete(keyOf(name, digest))
        if (standing === 'public') await this.#publish(name, digest, manifest)
      }
    })
  }

  /** Notes that content is gone from the index: whose it was has to be found out anew. */
  forget(digest: Digest): Promise<void> {
    return this.#turn(async () => {
      await this.#index.forgetBlob(digest)
      this.#spread.clear()
    })
  }

  /** Calls `published` with what has become public under a name, or was given by a peer. */
  onPublished(published: (name: Name, digests: readonly Digest[], standing: Standing) => void): Disposable {
    const listener = { published }
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /** Resolves once all that was noted is written. */
  async settled(): Promise<void> {
    await this.#last
  }

  #turn(act: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(act)
    this.#last = turn.catch(() => {})
    return turn
  }

  async #publish(name: Name, digest: Digest, manifest: Manifest | undefined): Promise<void> {
    if (this.#spread.has(keyOf(name, digest))) return
    const reached = new Set([digest])
    const manifests = new Set([digest])
    let whole = true
    for (const each of manifests) {
      const known = (each === digest ? manifest : undefined) ?? this.#index.manifest(each)
      // Of one that is not held, the children come in {@link learned}.
      if (!known && each === digest) whole = false
      for (const child of digestsOf(known)) reached.add(child)
      for (const child of known?.manifests ?? []) manifests.add(child.digest)
      if (manifests.size > lookupsAtOnce) await setImmediate()
    }
    await this.#set(name, await this.#pick(name, reached, known => known !== 'public'), 'public')
    if (!whole) return
    if (this.#spread.size >= mostSpread) this.#spread.clear()
    this.#spread.add(keyOf(name, digest))
  }

  /** Those of some digests whose standing under a name is as wanted. */
  async #pick(
    name: Name,
    digests: Iterable<Digest>,
    wanted: (standing: Standing | undefined) => boolean,
  ): Promise<Digest[]> {
    const picked: Digest[] = []
    let lookups = 0
    for (const digest of digests) {
      if (wanted(this.#index.standing(name, digest))) picked.push(digest)
      if (++lookups % lookupsAtOnce === 0) await setImmediate()
    }
    return picked
  }

  async #set(name: Name, digests: readonly Digest[], standing: Standing): Promise<void> {
    if (digests.length === 0) return
    await this.#index.setStanding(name, digests, standing)
    if (isPublic(standing)) for (const listener of this.#listeners) listener.published(name, digests, standing)
  }
}

function digestsOf(manifest: Manifest | undefined): Digest[] {
  return manifest ? childrenOf(manifest).map(child => child.digest) : []
}

function isPublic(standing: Standing | undefined): boolean {
  return standing === 'public' || standing === 'given'
}

function keyOf(name: Name, digest: Digest): string {
  return `${formatName(name)}@${digest}`
}
