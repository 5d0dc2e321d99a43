import { X509Certificate } from 'node:crypto'
import { AddressPolicy } from '@shoal/upstream/address-policy'
import { Endpoint } from '@shoal/upstream/endpoint'
import { isPublicRegistry } from '@shoal/upstream/public-registries'
import type { RateLimit } from '@shoal/upstream/rate-limit'
import { Registry } from '@shoal/upstream/registry'
import type { Credentials } from '@shoal/upstream/token'
import { Transport } from '@shoal/upstream/transport'
import { dockerCredentials } from './clients/docker-credentials.ts'
import { readSetting, SettingFileError, StartError } from './setting-file.ts'
import type { Settings, UpstreamSettings } from './settings/schema.ts'
import { version } from './version.ts'

/** Until a connection to an endpoint stands, in ms: a mirror that is down must cost little, the last one decides. */
const connectTimeout = { mirror: 1000, authority: 1900 }

/** Until its answer begins, in ms, the connection included. */
const answerTimeout = { mirror: 1500, authority: 2800 }

/** Between two pieces of a body, in ms, and for all of a manifest. */
const bodyTimeout = { mirror: 4000, authority: 6000 }

/** Connections at once to one host: all layers of most images. */
const connections = 64

export type RegistryEvents = {
  /** An endpoint, by its host, has answered, or not. */
  request(endpoint: string, request: { method: string; code: string }): void
  /** An endpoint has said how many pulls are left. */
  rateLimit(registry: { readonly shared: boolean }, endpoint: string, rateLimit: RateLimit): void
}

/**
 * The registries of the settings, by host.
 * @param now in ms since the epoch, never going back
 * @throws StartError, SettingFileError
 */
export async function registriesOf(
  upstreams: Settings['upstreams'],
  now: () => number,
  events: RegistryEvents,
): Promise<ReadonlyMap<string, Registry>> {
  const registries = new Map<string, Registry>()
  for (const [host, upstream] of Object.entries(upstreams)) {
    const shared = mayShare(upstreams, host)
    registries.set(host, await registryOf({ host, shared }, upstream, now, events))
  }
  return registries
}

/**
 * Whether peers may have what a registry gives to everybody: it is a built-in one, or the settings say so. Its name
 * decides, not its endpoints.
 */
export function mayShare(upstreams: Settings['upstreams'], registry: string): boolean {
  return isPublicRegistry(registry) || (Object.hasOwn(upstreams, registry) && upstreams[registry]?.share === true)
}

async function registryOf(
  { host, shared }: { readonly host: string; readonly shared: boolean },
  upstream: UpstreamSettings,
  now: () => number,
  events: RegistryEvents,
): Promise<Registry> {
  const urls = upstream.endpoints.map(endpoint => new URL(endpoint))
  const policy = new AddressPolicy(urls)
  const ca = upstream.ca === null ? undefined : await certificatesOf(upstream.ca, `upstreams."${host}".ca`)
  const credentials = await credentialsOf(host, upstream)
  const transports: Transport[] = []
  const endpoints = urls.map((url, index) => {
    const role = index === urls.length - 1 ? 'authority' : 'mirror'
    const transport = new Transport({
      policy,
      ca,
      connectTimeout: connectTimeout[role],
      answerTimeout: answerTimeout[role],
      bodyTimeout: bodyTimeout[role],
      connections,
      env: process.env,
    })
    transports.push(transport)
    return new Endpoint({
      url,
      transport,
      policy,
      // They are the registry's own, so for the last endpoint only.
      credentials: role === 'authority' ? credentials : undefined,
      last: role === 'authority',
      userAgent: `shoal/${version}`,
      onRequest: request => events.request(url.host, request),
      onRateLimit: rateLimit => events.rateLimit({ shared }, url.host, rateLimit),
      now,
      random: Math.random,
    })
  })
  const [first, ...rest] = endpoints
  if (!first) throw new StartError(`upstreams."${host}" has no endpoints`)
  return new Registry({ host, shared }, [first, ...rest], async () => {
    for (const transport of transports) await transport.close()
  })
}

async function certificatesOf(path: string, key: string): Promise<string> {
  const pem = await readSetting(path, key)
  try {
    new X509Certificate(pem)
  } catch (cause) {
    throw new SettingFileError(key, `${path} is not a certificate in PEM`, { cause })
  }
  return pem.toString()
}

async function credentialsOf(host: string, upstream: UpstreamSettings): Promise<Credentials | undefined> {
  const { username, password_file, docker_config } = upstream
  if (docker_config) return dockerCredentials(host, process.env)
  if (username === null || password_file === null) return undefined
  const password = await readSetting(password_file, `upstreams."${host}".password_file`)
  return { username, password: password.toString().replace(/\r?\n$/, '') }
}
