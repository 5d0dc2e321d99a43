import type { IncomingMessage, ServerResponse } from 'node:http'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { AddressPolicy } from '@shoal/upstream/address-policy'
import { Endpoint } from '@shoal/upstream/endpoint'
import { Registry } from '@shoal/upstream/registry'
import { Transport } from '@shoal/upstream/transport'
import { ScriptedServer } from './scripted-server.ts'

export type ScriptedRegistryOptions = {
  /** As image names begin with it. @default 'docker.io' */
  readonly host?: string
  /** Whether peers may have what it gives to everybody. @default true */
  readonly shared?: boolean
  /** Whether it is asked with credentials. @default false */
  readonly credentialed?: boolean
}

/** An image that tests make: a manifest with a config and a layer. */
export type ScriptedImage = {
  readonly manifest: Buffer
  readonly digest: Digest
  readonly config: Buffer
  readonly layer: Buffer
}

export function imageOf(text: string): ScriptedImage {
  const [config, layer] = [Buffer.from(`{"of":"${text}"}`), Buffer.from(`layer of ${text}`)]
  const descriptor = (bytes: Buffer) => ({ mediaType: 'application/x', digest: digestOf(bytes), size: bytes.length })
  const document = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: descriptor(config),
    layers: [descriptor(layer)],
  }
  const manifest = Buffer.from(JSON.stringify(document))
  return { manifest, digest: digestOf(manifest), config, layer }
}

/** An index of images, each for a platform. */
export type ScriptedIndex = {
  readonly manifest: Buffer
  readonly digest: Digest
  readonly images: readonly ScriptedImage[]
}

/** @param images each with its platform, `linux/arm64` */
export function indexOf(...images: readonly (readonly [platform: string, image: ScriptedImage])[]): ScriptedIndex {
  const manifests = images.map(([platform, { digest, manifest }]) => {
    const [os, architecture] = platform.split('/')
    return { mediaType: mediaTypes.ociManifest, digest, size: manifest.length, platform: { os, architecture } }
  })
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }))
  return { manifest, digest: digestOf(manifest), images: images.map(([, image]) => image) }
}

/** A registry with one endpoint, on loopback, that asks for a password (Basic) for what is private. */
export class ScriptedRegistry implements AsyncDisposable {
  readonly registry: Registry
  /** Repositories that need a password. */
  readonly privates = new Set<string>()
  /** What it answers with instead, if that is not 0. `hang` answers nothing. */
  status: number | 'hang' = 0
  /** How many of 100 manifests may still be got within 6 hours, by GET; undefined for no limit. */
  remaining: number | undefined
  /** Whom it counts, as it says. */
  source = ''
  /** `METHOD path user` of each request. */
  readonly asked: string[] = []
  readonly #tags = new Map<string, Digest>()
  readonly #content = new Map<string, Buffer>()
  readonly #server: ScriptedServer

  static async open(options: ScriptedRegistryOptions = {}): Promise<ScriptedRegistry> {
    let scripted: ScriptedRegistry | undefined
    const server = await ScriptedServer.open((request, response) => scripted?.answer(request, response))
    scripted = new ScriptedRegistry(server, options)
    return scripted
  }

  private constructor(server: ScriptedServer, options: ScriptedRegistryOptions) {
    const { host = 'docker.io', shared = true, credentialed = false } = options
    this.#server = server
    const url = new URL(server.url)
    const policy = new AddressPolicy([url])
    const transport = new Transport({
      policy,
      ca: undefined,
      connectTimeout: 1000,
      answerTimeout: 1000,
      bodyTimeout: 1000,
      connections: 8,
      env: {},
    })
    const endpoint = new Endpoint({
      url,
      transport,
      policy,
      credentials: credentialed ? { username: 'alice', password: 'secret' } : undefined,
      last: true,
      userAgent: 'shoal/test',
      onRequest: () => {},
      now: () => Date.now(),
      random: () => 0,
    })
    this.registry = new Registry({ host, shared }, [endpoint], () => transport.close())
  }

  put(repository: string, tag: string, image: ScriptedImage): void {
    const { manifest, digest, config, layer } = image
    this.#tags.set(`${repository}:${tag}`, digest)
    this.#content.set(`${repository}/manifests/${digest}`, manifest)
    for (const blob of [config, layer]) this.#content.set(`${repository}/blobs/${digestOf(blob)}`, blob)
  }

  putIndex(repository: string, tag: string, { manifest, digest, images }: ScriptedIndex): void {
    for (const image of images) this.put(repository, image.digest, image)
    this.#tags.set(`${repository}:${tag}`, digest)
    this.#content.set(`${repository}/manifests/${digest}`, manifest)
  }

  /** Requests of one kind so far: those that contain all of the texts. */
  requests(...texts: string[]): string[] {
    return this.asked.filter(asked => texts.every(text => asked.includes(text)))
  }

  answer({ method = '', url = '', headers }: IncomingMessage, response: ServerResponse): void {
    const user = headers.authorization === undefined ? 'nobody' : 'alice'
    this.asked.push(`${method} ${url} ${user}`)
    if (this.status === 'hang') return
    if (this.status !== 0) return void response.writeHead(this.status).end()
    const [, repository = '', kind = '', reference = ''] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(url) ?? []
    if (user === 'nobody' && this.privates.has(repository))
      return void response.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end()
    const counted = kind === 'manifests' && this.remaining !== undefined
    if (counted && method === 'GET') {
      if (this.remaining === 0) return void response.writeHead(429).end()
      this.remaining!--
    }
    const digest = this.#tags.get(`${repository}:${reference}`) ?? reference
    const bytes = this.#content.get(`${repository}/${kind}/${digest}`)
    if (!bytes) return void response.writeHead(404).end()
    response.writeHead(200, {
      'content-type': kind === 'manifests' ? mediaTypes.ociManifest : 'application/octet-stream',
      'content-length': bytes.length,
      'docker-content-digest': digest,
      ...(counted && {
        'ratelimit-limit': '100;w=21600',
        'ratelimit-remaining': `${this.remaining};w=21600`,
        'docker-ratelimit-source': this.source,
      }),
    })
    response.end(method === 'HEAD' ? undefined : bytes)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.registry.close()
    await this.#server[Symbol.asyncDispose]()
  }
}
