import type { Digest } from '@shoal/oci/digest'
import type { Manifest, Platform } from '@shoal/oci/manifest'
import { familiarReference, formatReference } from '@shoal/oci/reference'
import type { Store } from '@shoal/store/store'

/** One image of `GET /api/v1/images`; docs/api.md. */
export type Image = {
  /** With nothing left out: `docker.io/library/nginx:latest`. */
  readonly image: string
  /** As Docker shows it: `nginx:latest`. */
  readonly name: string
  readonly digest: string
  /** Bytes that are held of it; what it shares with others counts in each. */
  readonly bytes: number
  /** Whether at least one platform can be pulled with nothing else. */
  readonly complete: boolean
  /** Those that can: `linux/amd64`. */
  readonly platforms: readonly string[]
  readonly seen_at: string
  readonly seen_from: string
  readonly pinned: boolean
}

export function imagesOf(store: Store): Image[] {
  const pins = new Map(store.refs.pins.map(({ reference, descriptor }) => [reference, descriptor.digest]))
  return store.refs.list().map(({ name, tag, sighting }) => {
    const { digest } = sighting.descriptor
    const held = new Set<Digest>()
    const platforms = [...new Set(platformsHeld(store, digest, held, new Set()))]
    const reference = { name, tag }
    const image = formatReference(reference)
    return {
      image,
      name: familiarReference(reference),
      digest,
      bytes: [...held].reduce((sum, each) => sum + (store.sizeOf(each) ?? 0), 0),
      complete: platforms.length > 0,
      platforms,
      seen_at: new Date(sighting.at).toISOString(),
      seen_from: sighting.from,
      pinned: pins.get(image) === digest,
    }
  })
}

/** The platforms of an image of which everything is held. @param held takes what is held of any of them; @param visited the manifests that were looked at */
function platformsHeld(
  store: Store,
  digest: Digest,
  held: Set<Digest>,
  visited: Set<Digest>,
  platform?: Platform,
): string[] {
  // An index can list another, and the same one many times.
  if (visited.has(digest)) return []
  visited.add(digest)
  const manifest = store.sizeOf(digest) === undefined ? undefined : store.index.manifest(digest)
  if (!manifest) return []
  held.add(digest)
  const parts = partsOf(manifest)
  for (const part of parts) if (store.sizeOf(part) !== undefined) held.add(part)
  if (manifest.manifests.length > 0)
    return manifest.manifests.flatMap(child => platformsHeld(store, child.digest, held, visited, child.platform))
  if (!parts.every(part => held.has(part))) return []
  return [platform ? formatPlatform(platform) : 'any']
}

function partsOf({ config, layers }: Manifest): Digest[] {
  return [...(config ? [config.digest] : []), ...layers.map(layer => layer.digest)]
}

function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/')
}
