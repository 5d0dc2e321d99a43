import { isIP } from 'node:net'
import { hostname } from 'node:os'
import { dockerHub, NameError, parseRegistry } from '@shoal/oci/name'
import { SpecError, type SpecErrorCode } from '@shoal/oci/spec-error'
import type { NowhereError } from './filling.ts'

/**
 * What a client is told when no source has the content. All of them fall back to the registry by themselves, and take
 * 401 or 403 amiss (moby#30880 drops such a mirror in silence), so it is 404, with the true reason in the message.
 */
export function notFound(
  code: SpecErrorCode & ('MANIFEST_UNKNOWN' | 'BLOB_UNKNOWN' | 'NAME_UNKNOWN'),
  why: NowhereError,
) {
  return new SpecError(code, why.message)
}

/**
 * The registry that a request is for: `?ns=` (containerd's `hosts.toml`), else Docker Hub.
 * @param mirrors whether the settings have a registry; a name alone must not lead Shoal to a host
 * @throws SpecError for a registry that Shoal does not mirror
 */
export function registryOf(ns: string | null, mirrors: (registry: string) => boolean): string {
  if (ns === null || ns === '') return dockerHub
  let registry: string | undefined
  try {
    registry = parseRegistry(ns)
  } catch (error) {
    if (!(error instanceof NameError)) throw error
  }
  if (registry !== undefined && mirrors(registry)) return registry
  const remedy = registry === undefined ? '' : `; [upstreams."${registry.slice(0, 80)}"] in the settings adds it`
  throw new SpecError('NAME_UNKNOWN', `this mirror does not serve ${ns.slice(0, 80)}${remedy}`)
}

/** Names that containers and virtual machines reach their host by. */
const hostAliases = new Set(['localhost', 'host.docker.internal', 'host.containers.internal', 'host.lima.internal'])

/**
 * Whether a `Host` header may name this machine. A page that a browser has loaded from elsewhere can make it send
 * requests here, under a name of the page's (DNS rebinding); it cannot under an address, or this machine's own names.
 */
export function isOwnHost(header: string | undefined, own?: string): boolean {
  if (header === undefined) return false
  const host = header
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '')
    .toLowerCase()
  if (isIP(host) !== 0 || hostAliases.has(host) || host.endsWith('.localhost')) return true
  const name = (own ?? hostname()).toLowerCase()
  return host === name || host === `${name}.local` || host === name.split('.')[0]
}

/** The tool that a `User-Agent` belongs to, for `status`: `docker`, `containerd`, `podman` and so on. */
export function toolOf(userAgent: string | undefined): string {
  const product = /^[a-z0-9._-]+/i.exec(userAgent ?? '')?.[0].toLowerCase() ?? 'unknown'
  if (product === 'containers') return 'podman'
  return product.slice(0, 40)
}
