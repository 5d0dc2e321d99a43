import type { Digest } from '@shoal/oci/digest'
import { NameError } from '@shoal/oci/name'
import { familiarReference, formatReference, parseReference, type Reference } from '@shoal/oci/reference'
import type { Store } from '@shoal/store/store'
import { ConflictError, InputError } from './server.ts'

/** An image as somebody named it. */
export type NamedImage = {
  readonly reference: Reference
  /** With nothing left out, and as Docker shows it. */
  readonly full: string
  readonly familiar: string
}

/** @throws InputError */
export function imageNamed(text: string): NamedImage {
  try {
    const reference = parseReference(text)
    return { reference, full: formatReference(reference), familiar: familiarReference(reference) }
  } catch (error) {
    throw error instanceof NameError ? new InputError(error.message) : error
  }
}

/** What an image is, as far as is known here. */
export function namedDigest(
  store: Store,
  { reference: { name, tag = 'latest', digest } }: NamedImage,
): Digest | undefined {
  return digest ?? (store.refs.held(name, tag) ?? store.refs.seen(name, tag))?.descriptor.digest
}

/** The digest of an image that is held. @throws ConflictError */
export function heldDigest(store: Store, image: NamedImage): Digest {
  const digest = namedDigest(store, image)
  if (digest !== undefined && store.index.manifest(digest) && store.sizeOf(digest) !== undefined) return digest
  throw new ConflictError(`${image.familiar} is not held here: "shoal ls" lists what is`)
}
