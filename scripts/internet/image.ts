import { type Content, descriptorOf, jsonContent, mediaType } from './content.ts'
import type { Layer } from './layer.ts'

/** An image for one platform. */
export type Image = { digest: string; manifest: Content; config: Content; layers: Layer[]; platform: Platform }
/** An index of images for several platforms. */
export type Index = { digest: string; manifest: Content; images: Image[] }
export type Platform = { os: 'linux'; architecture: string; variant?: string }

const created = '2024-01-01T00:00:00Z'

/** The platform of this machine, in the names of Go. */
export const here: Platform = {
  os: 'linux',
  architecture: process.arch === 'x64' ? 'amd64' : process.arch,
  ...(process.arch === 'arm64' ? { variant: 'v8' } : {}),
}

/** Another platform than this machine's. */
export const elsewhere: Platform =
  here.architecture === 'arm64'
    ? { os: 'linux', architecture: 'amd64' }
    : { os: 'linux', architecture: 'arm64', variant: 'v8' }

/**
 * An image of these layers: an OCI manifest, or with `docker` one of Docker's schema 2. Without a command it doesn't
 * run.
 */
export function makeImage(
  layers: Layer[],
  { platform = here, command, docker = false }: { platform?: Platform; command?: string[]; docker?: boolean } = {},
): Image {
  const config = jsonContent(docker ? mediaType.dockerConfig : mediaType.config, {
    created,
    ...platform,
    config: { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'], ...(command ? { Cmd: command } : {}) },
    rootfs: { type: 'layers', diff_ids: layers.map(layer => layer.diffId) },
    history: layers.map((_, i) => ({ created, created_by: `layer ${i + 1} of ${layers.length}` })),
  })
  const manifest = jsonContent(docker ? mediaType.dockerManifest : mediaType.manifest, {
    schemaVersion: 2,
    mediaType: docker ? mediaType.dockerManifest : mediaType.manifest,
    config: descriptorOf(config),
    layers: layers.map(layer => ({
      ...descriptorOf(layer),
      ...(docker && layer.mediaType === mediaType.gzip ? { mediaType: mediaType.dockerLayer } : {}),
    })),
  })
  return { digest: manifest.digest, manifest, config, layers, platform }
}

export function makeIndex(images: Image[]): Index {
  const manifest = jsonContent(mediaType.index, {
    schemaVersion: 2,
    mediaType: mediaType.index,
    manifests: images.map(({ manifest, platform }) => ({ ...descriptorOf(manifest), platform })),
  })
  return { digest: manifest.digest, manifest, images }
}
