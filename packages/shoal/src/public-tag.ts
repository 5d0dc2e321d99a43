import { NameError, parseFullName } from '@shoal/oci/name'
import type { Sighting } from '@shoal/store/refs'
import type { Store } from '@shoal/store/store'

/**
 * What this machine has seen a tag to be, if peers may know.
 * @param name `registry/repository`, as a peer asks for it
 */
export function publicSighting(
  store: Store,
  mayShare: (registry: string) => boolean,
  name: string,
  tag: string,
): Sighting | undefined {
  try {
    const parsed = parseFullName(name)
    const sighting = store.refs.seen(parsed, tag)
    const known = sighting?.visibility === 'public' && mayShare(parsed.registry)
    return known ? sighting : undefined
  } catch (error) {
    if (error instanceof NameError) return undefined
    throw error
  }
}
