import type { Content } from '../../scripts/internet/content.ts'
import type { Image } from '../../scripts/internet/image.ts'
import type { Recipe } from '../../scripts/internet/images.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import type { Entry, Filter } from '../../scripts/internet/log.ts'
import { type Rule, Switchboard } from '../../scripts/internet/switchboard.ts'
import { serveCalls } from './agent.ts'

/** The stand-in internet, as a program. */

export type Blob = Pick<Content, 'digest' | 'size'>

/** An image without its bytes. */
export type Outline = {
  readonly repository: string
  readonly manifest: Blob
  readonly config: Blob
  readonly layers: readonly (Blob & { readonly diffId: string })[]
}

export type Asked = Pick<
  Entry,
  'server' | 'client' | 'method' | 'path' | 'status' | 'bytes' | 'user' | 'range' | 'finished'
>

/** What went out. */
export type Tally = {
  /** Bytes of bodies of blobs, by the address that they went to. */
  readonly byClient: Readonly<Record<string, number>>
  /** The same by the blobs' digests. */
  readonly byBlob: Readonly<Record<string, number>>
  /** Those that Docker Hub counts. */
  readonly manifestGets: number
  readonly manifestHeads: number
}

export type InternetCalls = typeof calls

const net = await Internet.open({ address: process.argv[2] ?? '' })
const faults = await Switchboard.open(net)

function outlineOf(repository: string, { manifest, config, layers }: Image): Outline {
  const blobOf = ({ digest, size }: Content): Blob => ({ digest, size })
  const outlines = layers.map(layer => ({ ...blobOf(layer), diffId: layer.diffId }))
  return { repository, manifest: blobOf(manifest), config: blobOf(config), layers: outlines }
}

function tally(): Tally {
  const byClient: Record<string, number> = {}
  const byBlob: Record<string, number> = {}
  let [manifestGets, manifestHeads] = [0, 0]
  for (const { server, client, method, path, status, bytes } of net.log.entries) {
    if (server === 'hub' && path.includes('/manifests/') && method === 'HEAD') manifestHeads++
    if (server === 'hub' && path.includes('/manifests/') && method === 'GET' && status === 200) manifestGets++
    if (server !== 'cdn' && !(server === 'gcr' && path.includes('/blobs/'))) continue
    const [hex] = /[0-9a-f]{64}/.exec(path) ?? []
    if (method !== 'GET' || status >= 300 || hex === undefined) continue
    byClient[client] = (byClient[client] ?? 0) + bytes
    byBlob[`sha256:${hex}`] = (byBlob[`sha256:${hex}`] ?? 0) + bytes
  }
  return { byClient, byBlob, manifestGets, manifestHeads }
}

const calls = {
  urls: () => ({ gcr: net.gcr.url, hub: net.hub.url }),

  add: async (recipe: Recipe & { layers: number[] }) => outlineOf(recipe.repository, await net.add(recipe)),

  image: ({ repository, reference }: { repository: string; reference?: string }) =>
    outlineOf(repository, net.images.image(repository, reference)),

  async log(filter: Omit<Filter, 'path'> & { path?: string }): Promise<readonly Asked[]> {
    return net.log.requests(filter).map(({ server, client, method, path, status, bytes, user, range, finished }) => {
      return { server, client, method, path, status, bytes, user, range, finished }
    })
  },

  tally,

  clear: () => net.log.clear(),

  /** Resolves when no request is under way. */
  idle: () => net.log.idle(),

  async fault(rules: readonly Rule[]): Promise<void> {
    const answer = await fetch(faults.url, { method: 'PUT', body: JSON.stringify(rules) })
    if (!answer.ok) throw new Error(await answer.text())
  },

  down: () => Promise.all([net.hub.down(), net.gcr.down()]),
  up: () => Promise.all([net.hub.up(), net.gcr.up()]),
  expireTokens: () => net.hub.expireTokens(),
  limit: (remaining: number) => Object.assign(net.hub.rateLimit, { remaining }),
}

serveCalls(calls)
