import { z } from 'zod'
import { duration, listen, listenIp, size } from '../quantity.ts'
import { type About, about, bootstrapPeer, endpoint, flag, limit, networkToken, path, quantity, text } from './kind.ts'
import { isRegistryName } from './registry-name.ts'
import type { Path } from './tree.ts'

/** The settings in force. Keys are named as in the file; paths are absolute, sizes bytes, rates bytes/s, durations ms; null is "not set". */
export type Settings = z.output<typeof schema>
/** The settings of one registry. Its last endpoint is the authority: the registry itself. */
export type UpstreamSettings = Settings['upstreams'][string]

const section = <S extends z.ZodRawShape>(name: string, shape: S) =>
  z.strictObject(shape, { error: issue => (issue.code === 'invalid_type' ? `expected a table, [${name}]` : undefined) })

const registryName = z.string().refine(isRegistryName, {
  error: 'expected a registry as image names begin with it, such as "docker.io" or "localhost:5000"',
})

const sections = {
  mirror: section('mirror', {
    listen: quantity(listen, '127.0.0.1:3474', 'where container tools ask (Registry v2)'),
    cached_only: flag(false, 'answer 404 for what neither this machine nor the LAN holds'),
    tls_cert: path('PEM file of the certificate, together with tls_key; empty: plain http'),
    tls_key: path('PEM file of the private key of tls_cert'),
    users_file: path('htpasswd file (bcrypt) of who may ask; empty: everybody'),
  }),
  admin: section('admin', {
    listen: quantity(listen, '127.0.0.1:3475', 'dashboard, /metrics, /healthz and the API'),
  }),
  swarm: section('swarm', {
    enabled: flag(true, 'take part in the LAN'),
    listen: quantity(listenIp, '0.0.0.0:3476', 'who is there, and who has what (libp2p)'),
    transfer_listen: quantity(listenIp, '0.0.0.0:3477', 'where peers fetch content'),
    mdns: flag(true, 'find peers by multicast DNS'),
    bootstrap: z
      .array(bootstrapPeer, { error: 'expected a list, such as ["host:3476"]' })
      .readonly()
      .register(about, { default: [], description: 'peers on other subnets: host, host:port or multiaddr' }),
    token: networkToken.register(about, {
      default: '',
      description: 'of a private network; empty: the open LAN network',
      secret: true,
    }),
    share: z
      .enum(['public', 'none'], { error: 'expected "public" or "none"' })
      .register(about, { default: 'public', description: 'what peers may have: public content, or none' }),
    max_uploads: z
      .int({ error: 'expected a whole number from 1 to 1000' })
      .min(1, { error: 'expected a whole number from 1 to 1000' })
      .max(1000, { error: 'expected a whole number from 1 to 1000' })
      .register(about, { default: 8, description: 'uploads to peers at once' }),
    max_upload_rate: limit('of all uploads to peers together, such as 20MB/s; empty: no limit'),
    max_download_rate: limit('of all downloads together, such as 20MB/s; empty: no limit'),
  }),
  store: section('store', {
    max_size: quantity(size, '50GB', 'how much is kept, in bytes or as a part of the disk (20%)'),
    min_free: quantity(size, '5%', 'how much of the disk is left free'),
    prefetch: flag(true, 'refresh much-pulled tags that have moved'),
  }),
  tags: section('tags', {
    ttl: quantity(duration, '5s', 'how long a tag is believed before it is asked for again'),
    authority: z
      .enum(['after', 'before', 'never'], { error: 'expected "after", "before" or "never"' })
      .register(about, {
        default: 'after',
        description: 'when the registry itself is asked for a tag: after, before or never',
      }),
    from_peers: z
      .enum(['private', 'always', 'never'], { error: 'expected "private", "always" or "never"' })
      .register(about, {
        default: 'private',
        description: 'when peers are believed about tags: in a private network, always or never',
      }),
  }),
}

const upstream = section('upstreams."registry"', {
  endpoints: z
    .array(endpoint, { error: 'expected a list of URLs, such as ["https://registry-1.docker.io"]' })
    .min(1, { error: 'expected at least one URL' })
    .readonly()
    .register(about, {
      default: [],
      description: 'where its content is, in the order to ask; the last is the registry itself',
    }),
  username: text('a user name, or ""', 'user at the last endpoint, with password_file'),
  password_file: path('file that holds the password, or access token, of username'),
  docker_config: flag(false, "take the user and password from Docker's config.json"),
  ca: path('PEM file of the certificate authority of its endpoints'),
  share: flag(false, 'peers may have what needs no password there, for a registry of your own'),
})
const dataDir = text('the path of a folder', 'where everything is kept', {
  path: true,
  default: '~/.local/share/shoal',
})
export const schema = z
  .strictObject({
    data_dir: dataDir.pipe(z.string({ error: 'expected the path of a folder' })),
    mirror: sections.mirror.readonly(),
    admin: sections.admin.readonly(),
    swarm: sections.swarm.readonly(),
    store: sections.store.readonly(),
    tags: sections.tags.readonly(),
    upstreams: z.record(registryName, upstream.readonly(), { error: recordProblem }).readonly(),
  })
  .readonly()

export const dockerHub = 'docker.io'
export const dockerHubEndpoints = ['https://mirror.gcr.io', 'https://registry-1.docker.io']

export const sectionNames = Object.keys(sections)

/** The keys of a section, or of a registry for `upstreams`, in the order of the file. */
export function keysOf(section: string): string[] {
  return Object.keys(shapeOf(section))
}

export function aboutOf(path: Path): About | undefined {
  const [first, second, third] = path
  if (first === 'data_dir') return about.get(dataDir)
  const shape = shapeOf(String(first))
  const key = String(first === 'upstreams' ? third : second)
  const leaf = Object.hasOwn(shape, key) ? shape[key] : undefined
  return leaf && about.get(leaf)
}

function shapeOf(section: string): Record<string, z.core.$ZodType> {
  if (section === 'upstreams') return upstream.shape
  return Object.entries(sections).find(([name]) => name === section)?.[1].shape ?? {}
}

function recordProblem(issue: { readonly code: string }): string | undefined {
  return issue.code === 'invalid_type' ? 'expected a table for each registry, [upstreams."docker.io"]' : undefined
}
