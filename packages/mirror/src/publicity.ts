import type { Digest } from '@shoal/oci/digest'
import type { Manifest } from '@shoal/oci/manifest'
import { formatName, type Name } from '@shoal/oci/name'
import type { Visibility } from '@shoal/store/index'
import { type Origin, SourceError } from '@shoal/store/source'
import type { Store } from '@shoal/store/store'
import type { Registry } from '@shoal/upstream/registry'
import type { Questions } from './questions.ts'

/** When it is asked again what could not be told, in ms from one time to the next. After that, when a tag is checked. */
const gaps = [10_000, 60_000, 10 * 60_000]

/** How long it holds that a registry has denied something to the nameless, in ms. */
const denialTime = 3_600_000

/** Questions that wait for their turn, or for another try; and denials that are remembered. */
const mostWaiting = 1000

export type PublicityOptions = {
  readonly store: Pick<Store, 'visibilities' | 'refs'>
  readonly registries: ReadonlyMap<string, Registry>
  readonly questions: Questions
  /** In ms since the epoch. */
  readonly now: () => number
  readonly random: () => number
  /** Resolves after so many ms; rejects when it is aborted. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
  readonly onFailure: (what: string, error: unknown) => void
}

/**
 * Finds out what is public. What came with credentials may be so all the same: then its registry gives it to the
 * nameless, too, and is asked whether it does.
 */
export class Publicity {
  readonly #options: PublicityOptions
  readonly #waiting = new Set<string>()
  /** What a registry has denied, and until when that holds. */
  readonly #denied = new Map<string, number>()
  /** They are asked one after another: nobody waits for them. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: PublicityOptions) {
    this.#options = options
  }

  /**
   * Notes where a manifest came from.
   * @param origins of those who gave bytes of it, or may have
   * @throws the index's error
   */
  async brought(name: Name, digest: Digest, origins: readonly Origin[], manifest: Manifest | undefined): Promise<void> {
    const { visibilities } = this.#options.store
    const isPrivate = origins.length === 0 || origins.some(({ visibility }) => visibility === 'private')
    if (isPrivate) {
      await visibilities.note(name, digest, 'private', manifest)
      this.#ask(name, digest)
    } else if (origins.every(({ kind }) => kind === 'upstream')) {
      await visibilities.note(name, digest, 'public', manifest)
    } else if (this.#registry(name)?.credentialed) {
      // Peers have the manifest, whoever may have it. But a former colleague who knows an old manifest of a private
      // image could give it, and this machine would fetch its layers with its credentials, and share them.
      await visibilities.noteGiven(name, digest)
      this.#ask(name, digest)
    } else await visibilities.noteGiven(name, digest, manifest)
  }

  /**
   * Notes how a manifest was found by HEAD.
   * @returns how it is known to be had now
   */
  found(name: Name, digest: Digest, visibility: Visibility): Visibility {
    const { store, questions, onFailure } = this.#options
    if (visibility === 'public') {
      const noted = questions.track(store.visibilities.note(name, digest, 'public'))
      noted.catch(error => onFailure('noting that something is public', error))
      return 'public'
    }
    if (store.visibilities.isProven(name, digest)) return 'public'
    this.#ask(name, digest)
    return 'private'
  }

  #registry(name: Name): Registry | undefined {
    return this.#options.registries.get(name.registry)
  }

  /** Has the registry asked, in the background, whether everybody may have it. */
  #ask(name: Name, digest: Digest): void {
    const { store, questions, now, onFailure } = this.#options
    const registry = this.#registry(name)
    const key = `${formatName(name)}@${digest}`
    if (!registry?.shared || this.#waiting.has(key) || this.#waiting.size >= mostWaiting) return
    if ((this.#denied.get(key) ?? 0) > now() || store.visibilities.isProven(name, digest)) return
    this.#waiting.add(key)
    questions
      .track(this.#settle(registry, name, digest, key))
      .catch(error => {
        if (!questions.signal.aborted) onFailure(`asking whether ${digest} is public`, error)
      })
      .finally(() => this.#waiting.delete(key))
  }

  async #settle(registry: Registry, name: Name, digest: Digest, key: string): Promise<void> {
    const { store, questions, now, random, sleep } = this.#options
    const { signal } = questions
    for (const gap of [0, ...gaps]) {
      if (gap > 0) await sleep(gap * (0.75 + random() / 2), signal)
      const answer = await this.#turn(() => this.#isPublic(registry, name, digest))
      if (answer === undefined) continue
      if (!answer) return this.#remember(key, now() + denialTime)
      await store.visibilities.note(name, digest, 'public')
      store.refs.published(name, digest)
      return
    }
  }

  /** @returns undefined if the registry could not say */
  async #isPublic({ authority }: Registry, name: Name, digest: Digest): Promise<boolean | undefined> {
    const { signal } = this.#options.questions
    signal.throwIfAborted()
    try {
      return await authority.isPublic(name, digest, signal)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof SourceError) return undefined
      throw error
    }
  }

  #turn<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(act)
    this.#last = turn.catch(() => {})
    return turn
  }

  #remember(key: string, until: number): void {
    this.#denied.delete(key)
    this.#denied.set(key, until)
    const [oldest] = this.#denied.keys()
    if (this.#denied.size > mostWaiting && oldest !== undefined) this.#denied.delete(oldest)
  }
}
