import type { Digest } from '@shoal/oci/digest'
import type { Manifest } from '@shoal/oci/manifest'
import type { Name } from '@shoal/oci/name'
import { formatReference } from '@shoal/oci/reference'

/** A request for the same image so long after the last one, in ms, begins a new pull. */
const newPullAfter = 1000

/**
 * How long after the last manifest of a pull another is still one of it, in ms. Clients get the manifests before the
 * layers, but who copies an image for all platforms comes to the next one when the layers of the last are there.
 */
const openFor = 10 * 60_000

/** Pulls that are told apart at once: as many as there may be requests. Of more, the oldest are taken to be over. */
const mostOpen = 1024

/** Manifests that are taken for parts of one image: indexes have tens. */
const mostCovered = 64

export type PullsOptions = {
  /** A manifest that is at hand without waiting. */
  readonly manifest: (digest: Digest) => Manifest | undefined
  /** In ms, never going back. */
  readonly now: () => number
  /** Told of each new pull, by its whole reference: with a tag, or with a digest if it was asked for by that. */
  readonly onPulled: (image: string) => void
}

type Pull = {
  readonly name: Name
  readonly byTag: boolean
  /** What was asked for by name, in contrast to what that lists. */
  readonly root: Digest
  /** When that was answered last, in ms. */
  askedAt: number
  readonly covers: Map<Digest, Cover>
}

/** That a manifest is part of a pull; `read` once what it lists is known to be, too. */
type Cover = { readonly pull: Pull; readonly digest: Digest; read: boolean }

/**
 * Tells pulls from requests: a client asks for an image by tag, by HEAD or GET, then for what that is and what it lists by
 * digest, and all that is one pull. Blobs tell nothing, as their manifest has been asked for before.
 */
export class Pulls {
  readonly #options: PullsOptions
  /** By the reference that each is counted under; the oldest first. */
  readonly #open = new Map<string, Pull>()
  readonly #covers = new Map<Digest, Cover[]>()

  constructor(options: PullsOptions) {
    this.#options = options
  }

  /**
   * A client was told what a tag is.
   * @param cameAt when it asked, in ms: to find the answer may take longer than it takes to begin a new pull
   */
  byTag(name: Name, tag: string, digest: Digest, cameAt: number): void {
    const image = formatReference({ name, tag })
    const known = this.#open.get(image)
    const again = known !== undefined && cameAt - known.askedAt <= newPullAfter
    if (known && known.root !== digest) this.#close(image, known)
    this.#ask(this.#open.get(image) ?? this.#begin(image, name, digest, true))
    if (!again) this.#options.onPulled(image)
  }

  /** A client was answered with a manifest that it named by its digest. See {@link byTag}. */
  byDigest(name: Name, digest: Digest, cameAt: number): void {
    let own: Pull | undefined
    for (const cover of this.#covers.get(digest) ?? []) {
      const { pull } = cover
      if (pull.name.repository !== name.repository || pull.name.registry !== name.registry) continue
      if (!pull.byTag && pull.root === digest) own = pull
      else if (cameAt - pull.askedAt <= openFor) return void this.#use(cover)
    }
    if (own && cameAt - own.askedAt <= newPullAfter) return void this.#ask(own)
    const image = formatReference({ name, digest })
    this.#ask(own ?? this.#begin(image, name, digest, false))
    this.#options.onPulled(image)
  }

  #ask(pull: Pull): void {
    pull.askedAt = this.#options.now()
    const cover = pull.covers.get(pull.root)
    if (cover) this.#use(cover)
  }

  #use(cover: Cover): void {
    if (cover.read) return
    const manifest = this.#options.manifest(cover.digest)
    if (!manifest) return
    cover.read = true
    for (const { digest } of manifest.manifests) this.#cover(cover.pull, digest)
  }

  #begin(image: string, name: Name, root: Digest, byTag: boolean): Pull {
    if (this.#open.size >= mostOpen) this.#makeRoom()
    const pull: Pull = { name, byTag, root, askedAt: 0, covers: new Map() }
    this.#open.set(image, pull)
    this.#cover(pull, root)
    return pull
  }

  #cover(pull: Pull, digest: Digest): void {
    if (pull.covers.has(digest) || pull.covers.size >= mostCovered) return
    const cover: Cover = { pull, digest, read: false }
    pull.covers.set(digest, cover)
    const others = this.#covers.get(digest)
    if (others) others.push(cover)
    else this.#covers.set(digest, [cover])
  }

  /** Closes those that are over, or else the oldest. */
  #makeRoom(): void {
    const now = this.#options.now()
    for (const [image, pull] of this.#open) if (now - pull.askedAt > openFor) this.#close(image, pull)
    const [oldest] = this.#open
    if (oldest && this.#open.size >= mostOpen) this.#close(...oldest)
  }

  #close(image: string, { covers }: Pull): void {
    this.#open.delete(image)
    for (const [digest, cover] of covers) {
      const others = this.#covers.get(digest)?.filter(other => other !== cover) ?? []
      if (others.length > 0) this.#covers.set(digest, others)
      else this.#covers.delete(digest)
    }
  }
}
