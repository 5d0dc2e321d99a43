import { type Digest, isDigest } from './digest.ts'
import { essence, isIndexType, isManifestType, mediaTypes } from './media-type.ts'

export type Platform = { readonly os: string; readonly architecture: string; readonly variant?: string }

/** A pointer to content (OCI image-spec, descriptor.md). `size` in bytes. */
export type Descriptor = {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly platform?: Platform
}

/** What Shoal needs to know of a manifest: its type, and what it points to. */
export type Manifest = {
  readonly mediaType: string
  /** Manifests that an index lists; empty for an image. */
  readonly manifests: readonly Descriptor[]
  readonly config?: Descriptor
  readonly layers: readonly Descriptor[]
  readonly subject?: Descriptor
}

/** The largest manifest that is taken, in bytes. Registries must take 4 MiB (OCI distribution-spec, "Pushing manifests"). */
export const manifestLimit = 4 * 1024 * 1024

/** Thrown for bytes that are no manifest. */
export class ManifestError extends Error {
  readonly code = 'MANIFEST_INVALID'
}

type Json = { readonly [key: string]: unknown }

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * Reads a manifest or index. Descriptors that no registry could serve (a foreign algorithm, a negative size) make it
 * invalid: a manifest is only worth keeping if all of it can be verified.
 * @param contentType what the registry called it; the document's own `mediaType` comes first
 * @throws ManifestError
 */
export function parseManifest(bytes: Uint8Array, contentType?: string): Manifest {
  if (bytes.length > manifestLimit) throw new ManifestError(`a manifest has at most ${manifestLimit} bytes`)
  let document: unknown
  try {
    document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw new ManifestError('a manifest is a JSON document')
  }
  if (!isObject(document)) throw new ManifestError('a manifest is a JSON object')
  const mediaType = typeOf(document, contentType)
  const subject = optional(document['subject'], 'subject')
  if (isIndexType(mediaType))
    return { mediaType, manifests: list(document['manifests'], 'manifests'), layers: [], ...(subject && { subject }) }
  if (mediaType === mediaTypes.dockerSchema1 || mediaType === mediaTypes.dockerSchema1Signed)
    return { mediaType, manifests: [], layers: schema1Layers(document['fsLayers']) }
  const config = optional(document['config'], 'config')
  if (!config && mediaType !== mediaTypes.ociArtifact) throw new ManifestError('an image manifest has a config')
  return {
    mediaType,
    manifests: [],
    layers: list(document['layers'] ?? document['blobs'] ?? [], 'layers'),
    ...(config && { config }),
    ...(subject && { subject }),
  }
}

/** Everything a manifest points to that is needed to use it; its subject is not. */
export function childrenOf(manifest: Manifest): readonly Descriptor[] {
  return [...manifest.manifests, ...(manifest.config ? [manifest.config] : []), ...manifest.layers]
}

function typeOf(document: Json, contentType: string | undefined): string {
  const own = document['mediaType']
  if (typeof own === 'string' && isManifestType(own)) return own
  const called = essence(contentType ?? '')
  if (isManifestType(called)) return called
  if (document['schemaVersion'] === 1) return mediaTypes.dockerSchema1Signed
  if (document['schemaVersion'] !== 2) throw new ManifestError('a manifest has schemaVersion 2')
  if (Array.isArray(document['manifests'])) return mediaTypes.ociIndex
  if (isObject(document['config'])) return mediaTypes.ociManifest
  throw new ManifestError('neither an image manifest nor an index')
}

function list(value: unknown, key: string): Descriptor[] {
  if (!Array.isArray(value)) throw new ManifestError(`${key} is a list of descriptors`)
  return value.map(item => descriptor(item, key))
}

function optional(value: unknown, key: string): Descriptor | undefined {
  return value === undefined || value === null ? undefined : descriptor(value, key)
}

function descriptor(value: unknown, key: string): Descriptor {
  if (!isObject(value)) throw new ManifestError(`${key}: a descriptor is an object`)
  const { mediaType, digest, size, platform } = value
  if (typeof digest !== 'string' || !isDigest(digest)) throw new ManifestError(`${key}: a descriptor has a digest`)
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw new ManifestError(`${key}: a descriptor has a size in bytes`)
  return {
    mediaType: typeof mediaType === 'string' ? mediaType : 'application/octet-stream',
    digest,
    size,
    ...(isObject(platform) && { platform: platformOf(platform) }),
  }
}

function platformOf(value: Json): Platform {
  const { os, architecture, variant } = value
  return {
    os: typeof os === 'string' ? os : 'unknown',
    architecture: typeof architecture === 'string' ? architecture : 'unknown',
    ...(typeof variant === 'string' && { variant }),
  }
}

/** Schema 1 names its layers without sizes; they are not known until a layer is asked for. */
function schema1Layers(value: unknown): Descriptor[] {
  if (!Array.isArray(value)) throw new ManifestError('fsLayers is a list')
  const digests = new Set<Digest>()
  for (const layer of value) {
    const digest: unknown = isObject(layer) ? layer['blobSum'] : undefined
    if (typeof digest !== 'string' || !isDigest(digest)) throw new ManifestError('fsLayers: a layer has a blobSum')
    digests.add(digest)
  }
  return [...digests].map(digest => ({ mediaType: 'application/octet-stream', digest, size: -1 }))
}
