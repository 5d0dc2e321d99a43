/** Media types of manifests (OCI image-spec 1.1, media-types.md; Docker image manifest v2 schema 1 and 2). */
export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociArtifact: 'application/vnd.oci.artifact.manifest.v1+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerSchema1: 'application/vnd.docker.distribution.manifest.v1+json',
  dockerSchema1Signed: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
} as const

/** What upstream is asked for, whatever the client accepts: all kinds of manifests, so that nothing is converted. */
export const acceptManifests = Object.values(mediaTypes).join(', ')

export function isIndexType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerList
}

const manifestTypes: ReadonlySet<string> = new Set(Object.values(mediaTypes))

export function isManifestType(mediaType: string): boolean {
  return manifestTypes.has(mediaType)
}

/** The type without its parameters, lower case: `Application/JSON; charset=utf-8` becomes `application/json`. */
export function essence(contentType: string): string {
  return (contentType.split(';', 1)[0] ?? '').trim().toLowerCase()
}
