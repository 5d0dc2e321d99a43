import { formatReference } from '@shoal/oci/reference'
import type { Eviction } from '@shoal/store/eviction'
import type { Store } from '@shoal/store/store'
import { heldDigest, imageNamed } from './named-image.ts'
import { textIn } from './network.ts'
import { type Action, ConflictError } from './server.ts'

/** The answer to `POST /api/v1/rm`: how much has gone, in blobs and bytes, and by what other names the rest stays. */
export type Removal = {
  readonly image: string
  readonly name: string
  readonly digest: string
  readonly blobs: number
  readonly bytes: number
  readonly kept_for: readonly string[]
}

/** `POST /api/v1/rm`: an image goes, with what no other needs; by its digest, under all its names. */
export function removals(store: Store, eviction: Eviction): Action {
  return async (accept, _signal, input) => {
    const image = imageNamed(textIn(input, 'image'))
    const all = image.reference.digest !== undefined
    const digest = heldDigest(store, image)
    const pins = store.refs.pins.filter(({ descriptor }) => descriptor.digest === digest)
    const pin = pins.find(({ reference }) => all || reference === image.full)?.reference
    if (pin !== undefined) throw new ConflictError(`${image.familiar} is pinned: "shoal unpin ${pin}" lets it go`)
    const tags = store.refs.list().filter(({ sighting }) => sighting.descriptor.digest === digest)
    const going = tags.filter(tag => all || formatReference(tag) === image.full)
    const others = [
      ...tags.filter(tag => !going.includes(tag)).map(tag => formatReference(tag)),
      ...pins.map(({ reference }) => reference),
    ]
    for (const { name, tag } of going) store.refs.remove(name, tag)
    const removed = others.length > 0 ? [] : await eviction.remove(digest)
    await store.refs.flush()
    const bytes = removed.reduce((sum, { size }) => sum + size, 0)
    const { full, familiar } = image
    const kept = [...new Set(others)]
    await accept()({
      image: full,
      name: familiar,
      digest,
      blobs: removed.length,
      bytes,
      kept_for: kept,
    } satisfies Removal)
  }
}
