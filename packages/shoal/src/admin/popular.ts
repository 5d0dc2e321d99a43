import { halfLife } from '@shoal/retention/decay'
import type { Copies } from '@shoal/store/eviction'
import type { Store } from '@shoal/store/store'
import type { ImagePopularity } from '../image-popularity.ts'
import { imageNamed, namedDigest } from './named-image.ts'

/** Images that are told of. */
const mostTold = 100

/** `GET /api/v1/popular`; docs/api.md. */
export type Popular = {
  /** A pull counts half after so many seconds. */
  readonly half_life_s: number
  readonly images: readonly PopularImage[]
}

export type PopularImage = {
  /** With nothing left out: `docker.io/library/nginx:latest`. */
  readonly image: string
  /** As Docker shows it. */
  readonly name: string
  /** What it is, as far as is known here. */
  readonly digest: string | null
  /** How often it was pulled lately in the whole office, and on this machine; older pulls count less. */
  readonly pulls: number
  readonly here: number
  /** Machines that have pulled it, as far as is known, and others that say they hold it. */
  readonly machines: number
  readonly peers: number
  readonly held: boolean
}

export function popularImages(store: Store, popularity: ImagePopularity, copies: Copies): Popular {
  const images = popularity.top(mostTold).map(({ image, own, office, machines }): PopularImage => {
    const named = imageNamed(image)
    const digest = namedDigest(store, named)
    return {
      image,
      name: named.familiar,
      digest: digest ?? null,
      pulls: rounded(office),
      here: rounded(own),
      machines,
      peers: digest === undefined ? 0 : copies.claimed(digest),
      held: digest !== undefined && store.sizeOf(digest) !== undefined,
    }
  })
  return { half_life_s: halfLife / 1000, images }
}

function rounded(count: number): number {
  return Math.round(count * 100) / 100
}
