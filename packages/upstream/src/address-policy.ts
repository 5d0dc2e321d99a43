import { isIP } from 'node:net'
import { SourceError } from '@shoal/store/source'
import ipaddr from 'ipaddr.js'
import { getDomain } from 'tldts'

/** Whether an address is one of the public internet (IANA special-purpose registries). */
export function isPublicAddress(address: string): boolean {
  if (!ipaddr.isValid(address)) return false
  const parsed = ipaddr.process(address)
  // An IPv4 address as NAT64 shows it (RFC 6052): what counts is the address behind it.
  if (parsed.range() === 'rfc6052' && parsed instanceof ipaddr.IPv6)
    return isPublicAddress(parsed.toByteArray().slice(12).join('.'))
  if (parsed.range() !== 'unicast') return false
  // Of IPv6, this is what is given out (IANA IPv6 global unicast address assignments).
  return parsed.kind() === 'ipv4' || parsed.toByteArray()[0]! >> 5 === 1
}

/**
 * Where a registry's answers may send Shoal (token realms, redirects): to a host that the registry's endpoints name, on
 * any port, over http only if its endpoint is http; to anything else only over https, and only at public addresses.
 */
export class AddressPolicy {
  /** Host names of the endpoints, and whether http is allowed there. */
  readonly #named = new Map<string, boolean>()

  constructor(endpoints: readonly URL[]) {
    for (const { hostname, protocol } of endpoints)
      this.#named.set(hostname, protocol === 'http:' || (this.#named.get(hostname) ?? false))
  }

  /**
   * @returns `named` for a host that the settings name; `public` for one whose address must still be checked after DNS
   * @throws SourceError `broken` for a URL that may not be asked
   */
  admit(url: URL): 'named' | 'public' {
    if (url.username !== '' || url.password !== '') throw refused(url, 'it bears credentials')
    const plain = this.#named.get(url.hostname)
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && plain)) throw refused(url, 'it is not https')
    if (plain !== undefined) return 'named'
    const address = url.hostname.replace(/^\[(.*)\]$/, '$1')
    if (isIP(address) !== 0 && !isPublicAddress(address)) throw refused(url, 'its address is not public')
    return 'public'
  }

  /** Whether a token realm belongs to an endpoint: the same registrable domain, or the same address. */
  realmBelongs(realm: URL, endpoint: URL): boolean {
    if (realm.hostname === endpoint.hostname) return true
    const domain = getDomain(endpoint.hostname, { allowPrivateDomains: true })
    return domain !== null && domain === getDomain(realm.hostname, { allowPrivateDomains: true })
  }
}

function refused(url: URL, why: string): SourceError {
  return new SourceError('broken', `an answer leads to ${url.protocol}//${url.host}, which is refused: ${why}`)
}
