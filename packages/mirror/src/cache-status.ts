/** Where an answer came from. `host` is an endpoint's host, or `peer`. */
export type Provenance =
  | { readonly kind: 'local' }
  | { readonly kind: 'stale' }
  | { readonly kind: 'peer' }
  | { readonly kind: 'upstream'; readonly host: string }

/** The `Cache-Status` header (RFC 9211) that says it. A host is a quoted string, the rest are tokens. */
export function formatCacheStatus(provenance: Provenance): string {
  switch (provenance.kind) {
    case 'local':
    case 'stale':
      return `shoal; hit; detail=${provenance.kind}`
    case 'peer':
      return 'shoal; fwd=miss; detail=peer'
    case 'upstream':
      return `shoal; fwd=miss; detail="${provenance.host.replaceAll(/["\\]/g, '\\$&')}"`
  }
}
