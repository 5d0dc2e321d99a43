import type { Digest } from '@shoal/oci/digest'
import { childrenOf, type Manifest } from '@shoal/oci/manifest'
import type { Name } from '@shoal/oci/name'
import type { Index, Visibility } from './index.ts'

/**
 * Who may know that this machine holds content. It belongs to (registry, repository, digest): the same bytes can be
 * public in one repository and private in another. What is not known is private.
 */
export class Visibilities {
  readonly #index: Index

  constructor(index: Index) {
    this.#index = index
  }

  of(name: Name, digest: Digest): Visibility {
    return this.#index.visibility(name, digest) ?? 'private'
  }

  /**
   * Notes how a manifest was to be had; what it points to shares its lot. What was public once stays so: that a later
   * request bore credentials does not tell that they were needed.
   */
  async note(name: Name, digest: Digest, visibility: Visibility, manifest?: Manifest): Promise<void> {
    const all = [digest, ...(manifest ? childrenOf(manifest).map(child => child.digest) : [])]
    const changed = all.filter(digest => ![visibility, 'public'].includes(this.#index.visibility(name, digest) ?? ''))
    if (changed.length > 0) await this.#index.setVisibility(name, changed, visibility)
  }
}
