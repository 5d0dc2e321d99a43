import type { Store } from '@shoal/store/store'
import { heldDigest, imageNamed } from './named-image.ts'
import { textIn } from './network.ts'
import { type Action, ConflictError } from './server.ts'

/** The answer to `POST /api/v1/pin` and `/unpin`. */
export type Pinned = {
  readonly image: string
  readonly name: string
  readonly digest: string
  readonly changed: boolean
}

/** `POST /api/v1/pin` and `/unpin`: what is pinned stays. @param now in ms since the epoch */
export function pinnings(store: Store, now: () => number): { readonly pin: Action; readonly unpin: Action } {
  return {
    pin: async (accept, _signal, input) => {
      const image = imageNamed(textIn(input, 'image'))
      const digest = heldDigest(store, image)
      const before = store.refs.pins.find(({ reference }) => reference === image.full)
      const changed = before?.descriptor.digest !== digest
      const { mediaType = '' } = store.index.manifest(digest) ?? {}
      const descriptor = { mediaType, digest, size: store.sizeOf(digest) ?? 0 }
      if (changed) await store.refs.pin({ reference: image.full, descriptor, at: now() })
      await accept()({ image: image.full, name: image.familiar, digest, changed } satisfies Pinned)
    },
    unpin: async (accept, _signal, input) => {
      const image = imageNamed(textIn(input, 'image'))
      const pin = store.refs.pins.find(({ reference }) => reference === image.full)
      if (!pin) throw new ConflictError(`${image.familiar} is not pinned`)
      const changed = await store.refs.unpin(image.full)
      await accept()({
        image: image.full,
        name: image.familiar,
        digest: pin.descriptor.digest,
        changed,
      } satisfies Pinned)
    },
  }
}
