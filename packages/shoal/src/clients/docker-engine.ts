import { request } from 'node:http'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { SetupError } from './file-change.ts'

/** What a Docker engine says of itself. */
export interface DockerEngine {
  /** Where it was asked, as in DOCKER_HOST. */
  readonly address: string
  readonly version: string
  /** NaN for a version that doesn't begin with a number. */
  readonly major: number
  readonly store: 'classic' | 'containerd'
  readonly rootless: boolean
  readonly desktop: boolean
  /** Mirrors for Docker Hub that are in force; each ends with a slash. */
  readonly mirrors: readonly string[]
}

const info = z.looseObject({
  DriverStatus: z.array(z.array(z.string())).nullish(),
  SecurityOptions: z.array(z.string()).nullish(),
  OperatingSystem: z.string().nullish(),
  RegistryConfig: z.looseObject({ Mirrors: z.array(z.string()).nullish() }).nullish(),
})
const version = z.looseObject({
  Version: z.string(),
  Components: z.array(z.looseObject({ Name: z.string() })).nullish(),
})

/**
 * Asks the engine at `DOCKER_HOST`, or at the usual sockets, for `/info` and `/version` (Docker Engine API).
 * @param timeoutMs for each answer; @default 3000
 * @throws SetupError ENGINE_UNREACHABLE, ENGINE_UNSUPPORTED (on another machine, or Podman)
 */
export async function askDockerEngine(
  env: Readonly<Record<string, string | undefined>>,
  timeoutMs = 3000,
): Promise<DockerEngine> {
  const addresses = env['DOCKER_HOST'] ? [env['DOCKER_HOST']] : usualAddresses(env)
  let failure: unknown
  for (const address of addresses) {
    const target = targetOf(address)
    try {
      const about = info.parse(await getJson(target, '/info', timeoutMs))
      const { Version, Components } = version.parse(await getJson(target, '/version', timeoutMs))
      if (Components?.some(({ Name }) => Name.startsWith('Podman'))) {
        throw new SetupError('ENGINE_UNSUPPORTED', `${address} is Podman's`, {
          remedy: 'run "shoal setup podman" instead',
        })
      }
      return {
        address,
        version: Version,
        major: Number.parseInt(Version, 10),
        store: about.DriverStatus?.some(
          ([name, value]) => name === 'driver-type' && value === 'io.containerd.snapshotter.v1',
        )
          ? 'containerd'
          : 'classic',
        rootless: about.SecurityOptions?.some(option => option.includes('rootless')) ?? false,
        desktop: about.OperatingSystem === 'Docker Desktop',
        mirrors: about.RegistryConfig?.Mirrors ?? [],
      }
    } catch (error) {
      if (error instanceof SetupError) throw error
      if (failure === undefined || codeOf(failure) === 'ENOENT') failure = error
    }
  }
  throw new SetupError('ENGINE_UNREACHABLE', `no Docker engine answers at ${addresses.join(' or ')}`, {
    remedy: remedy(failure),
    cause: failure,
  })
}

function usualAddresses(env: Readonly<Record<string, string | undefined>>): string[] {
  if (process.platform === 'win32') return ['npipe:////./pipe/docker_engine']
  const home = env['HOME'] || homedir()
  const desktop = join(home, process.platform === 'darwin' ? '.docker/run/docker.sock' : '.docker/desktop/docker.sock')
  const rootless =
    env['XDG_RUNTIME_DIR'] && process.platform === 'linux' ? [join(env['XDG_RUNTIME_DIR'], 'docker.sock')] : []
  return ['/var/run/docker.sock', desktop, ...rootless].map(path => `unix://${path}`)
}

type Target = { socketPath: string } | { host: string; port: string }

function targetOf(address: string): Target {
  const [, scheme, rest] = /^(\w+):\/\/(.*)$/s.exec(address) ?? []
  if (scheme === 'unix' || scheme === 'npipe') return { socketPath: rest ?? '' }
  const url =
    (scheme === 'tcp' || scheme === 'http') && URL.canParse(`http://${rest}`) ? new URL(`http://${rest}`) : null
  const host = url?.hostname.replace(/^\[|\]$/g, '') ?? ''
  if (url !== null && (host === 'localhost' || host === '::1' || host.startsWith('127.')))
    return { host, port: url.port || '2375' }
  const where = `DOCKER_HOST is ${address}`
  throw new SetupError('ENGINE_UNSUPPORTED', `${where}, not an engine on this machine`, {
    remedy: "run Shoal and this command on the engine's machine",
  })
}

function getJson(target: Target, path: string, timeoutMs: number): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const asked = request({
      ...target,
      path,
      headers: { Host: 'docker' },
      agent: false,
      signal: AbortSignal.timeout(timeoutMs),
    })
    asked.on('error', reject)
    asked.on('response', response => {
      const parts: Buffer[] = []
      response.on('data', (part: Buffer) => parts.push(part))
      response.on('error', reject)
      response.on('end', () => {
        try {
          if (response.statusCode !== 200) throw new Error(`it answers ${response.statusCode}`)
          resolve(JSON.parse(Buffer.concat(parts).toString()))
        } catch (error) {
          reject(error)
        }
      })
    })
    asked.end()
  })
}

function remedy(error: unknown): string {
  const code = codeOf(error)
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied; run it with sudo'
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return 'start Docker, or say in DOCKER_HOST where it listens'
  }
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError')) {
    return 'it does not answer in time; restart Docker, or say in DOCKER_HOST where it listens'
  }
  const reason =
    error instanceof z.ZodError
      ? 'what answers is no Docker engine'
      : error instanceof Error
        ? error.message
        : String(error)
  return `${reason}; start Docker, or say in DOCKER_HOST where it listens`
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}
