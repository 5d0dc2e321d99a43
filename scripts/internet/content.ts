import { createHash } from 'node:crypto'

/** Bytes under their digest: a manifest, config, layer or other blob. */
export type Content = {
  /** `sha256:…` of the bytes. */
  digest: string
  mediaType: string
  /** In bytes. */
  size: number
  /** The bytes themselves, or the path of the file that has them. */
  source: Buffer | string
}

/** A content descriptor (OCI image specification, descriptor.md). */
export type Descriptor = Pick<Content, 'digest' | 'mediaType' | 'size'>

export const mediaType = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  tar: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  empty: 'application/vnd.oci.empty.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
} as const

export function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** The bytes of a content that is small enough not to be in a file. */
export function bytesOf({ source }: Content): Buffer {
  if (typeof source === 'string') throw new Error('the content is in a file')
  return source
}

export function contentOf(mediaType: string, bytes: Buffer): Content {
  return { digest: sha256(bytes), mediaType, size: bytes.length, source: bytes }
}

export function jsonContent(mediaType: string, value: unknown): Content {
  return contentOf(mediaType, Buffer.from(JSON.stringify(value)))
}

export function descriptorOf({ mediaType, digest, size }: Content): Descriptor {
  return { mediaType, digest, size }
}
