/** A repository with the registry that it is of. Always both: the same path at two registries is two repositories. */
export type Name = { readonly registry: string; readonly repository: string }

/** Thrown for text that is no repository name or reference. */
export class NameError extends Error {
  readonly code: string = 'NAME_INVALID'
}

export const dockerHub = 'docker.io'

/** Other names that tools use for Docker Hub. */
const dockerHubAliases = new Set(['index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com'])

// OCI distribution-spec 1.1, "Pulling manifests".
const repositoryPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const hostPattern =
  /^(?:\[[0-9a-f:]+\]|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)(?::\d{1,5})?$/i

/**
 * A name from a registry's host and a repository path. Docker Hub's aliases become `docker.io`, and its one-part names
 * get `library/` (distribution/reference, normalize.go).
 * @throws NameError
 */
export function parseName(registry: string, repository: string): Name {
  const host = parseRegistry(registry)
  const path = host === dockerHub && !repository.includes('/') ? `library/${repository}` : repository
  if (path.length > 255) throw new NameError(`a repository name has at most 255 characters, not ${path.length}`)
  if (!repositoryPattern.test(path)) throw new NameError(`"${repository.slice(0, 80)}" is no repository name`)
  return { registry: host, repository: path }
}

/**
 * A registry's host name, lower case, with a port if it is given; Docker Hub's aliases become `docker.io`. Always a
 * host that a URL can have.
 * @throws NameError
 */
export function parseRegistry(text: string): string {
  // The pattern is tested before the case is changed: some letters that are not ASCII have a lower case that is.
  if (text.length > 255 || !hostPattern.test(text) || !URL.canParse(`https://${text}`))
    throw new NameError(`"${text.slice(0, 80)}" is no registry host`)
  const host = text.toLowerCase()
  return dockerHubAliases.has(host) ? dockerHub : host
}

/** `registry/repository`, with nothing left out: the form that names are stored under. */
export function formatName(name: Name): string {
  return `${name.registry}/${name.repository}`
}

/** A name from what {@link formatName} makes of it. @throws NameError */
export function parseFullName(text: string): Name {
  const slash = text.indexOf('/')
  if (slash < 0) throw new NameError(`"${text.slice(0, 80)}" is a name without a registry`)
  return parseName(text.slice(0, slash), text.slice(slash + 1))
}
