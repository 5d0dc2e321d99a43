/**
 * Registries that everybody knows, and that serve content to everybody: that peers learn of it gives nothing away. Only
 * what was to be had there without credentials counts. One that a company runs for itself is never among them.
 */
const publicRegistries: ReadonlySet<string> = new Set([
  'docker.io',
  'ghcr.io',
  'quay.io',
  'registry.k8s.io',
  'mcr.microsoft.com',
  'gcr.io',
  'public.ecr.aws',
  'registry.gitlab.com',
  'registry.access.redhat.com',
  'docker.elastic.co',
  'nvcr.io',
  'cgr.dev',
  'lscr.io',
])

/** Whether a registry, by the name that images bear, is one of the built-in ones. */
export function isPublicRegistry(registry: string): boolean {
  return publicRegistries.has(registry)
}
