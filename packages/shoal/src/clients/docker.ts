import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { listen } from '../quantity.ts'
import type { Settings } from '../settings/schema.ts'
import { daemonJson, sameUrl } from './daemon-json.ts'
import { askDockerEngine, type DockerEngine } from './docker-engine.ts'
import {
  applyChange,
  backupPath,
  type FileChange,
  type MirrorFile,
  planEntry,
  planRemoval,
  readText,
  SetupError,
} from './file-change.ts'
import { hostsToml } from './hosts-toml.ts'

export interface DockerOptions {
  readonly settings: Settings
  /** Where DOCKER_HOST, HOME and the like are read. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** The folder of daemon.json and certs.d; @default the engine's usual one */
  readonly dockerDir?: string | undefined
}

/** What a set-up, or its undoing, will change, and what the user should know afterwards. */
export interface Plan {
  readonly changes: readonly FileChange[]
  readonly notes: readonly string[]
}

/** The state of the set-up, for a check-up. */
export interface DockerStatus {
  /** null: none answers, and `problems` says why. */
  readonly engine: DockerEngine | null
  /** The URL at which the engine is to ask Shoal; null if it can't. */
  readonly mirror: string | null
  /** The file that names Shoal, or would. */
  readonly file: string | null
  /** `file` names Shoal. */
  readonly configured: boolean
  /** The engine uses it. */
  readonly active: boolean
  readonly problems: readonly { readonly message: string; readonly remedy?: string }[]
}

const ownHeader = '# Written by "shoal setup docker"; "shoal setup docker --undo" removes it.\n'

/**
 * Plans how the engine on this machine comes to ask Shoal for Docker Hub's images: `registry-mirrors` of daemon.json, or for Docker 29's
 * containerd image store certs.d/docker.io/hosts.toml (read live; not `_default`, for the mirror answers for docker.io only).
 * @throws SetupError ENGINE_UNREACHABLE, ENGINE_UNSUPPORTED, NO_ADDRESS, NOT_UNDERSTOOD, NO_PERMISSION
 */
export async function planDockerSetup(options: DockerOptions): Promise<Plan> {
  const engine = await askDockerEngine(options.env)
  const { url, folder, file } = placeFor(options, engine)
  const notes: string[] = []
  const classic = daemonJson(join(folder, 'daemon.json'))
  const text = await readText(classic.path)
  const listed = text === null ? [] : classic.mirrors(text)
  const elsewhere = engine.mirrors.filter(mirror => ![...listed, url].some(other => sameUrl(mirror, other)))
  if (file.path === classic.path && listed.length === 0 && elsewhere.length > 0) {
    const where = `dockerd uses the mirror ${elsewhere[0]}, which ${classic.path} does not name`
    const remedy =
      'name the folder of its own file with --docker-dir, restart it if that mirror is gone, or move its --registry-mirror flags to the file'
    throw new SetupError('ENGINE_UNSUPPORTED', `${where}: ${remedy} (dockerd does not start with both)`)
  }
  const change = await planEntry(file, url)
  if (change !== null) {
    if (file.path !== classic.path) {
      notes.push('Nothing to restart: dockerd reads hosts.toml at each pull.')
      const mirrors = engine.mirrors.filter(mirror => !sameUrl(mirror, url))
      if (mirrors.length > 0)
        notes.push(`From now on dockerd passes over the mirror ${mirrors[0]} of daemon.json for docker.io.`)
    } else notes.push(`To put it into force: ${reload(options, engine.desktop)}`)
  } else if (file.path === classic.path && !engine.mirrors.some(mirror => sameUrl(mirror, url))) {
    notes.push(`${file.path} names Shoal, but dockerd has not read that yet: ${reload(options, engine.desktop)}`)
  }
  if (url.startsWith('https:')) notes.push(`dockerd must trust the certificate that Shoal shows at ${url}.`)
  return { changes: change === null ? [] : [change], notes }
}

/**
 * Plans to take the entry out again; needs no running engine.
 * @throws SetupError NOT_UNDERSTOOD, NO_PERMISSION, NO_ADDRESS
 */
export async function planDockerUndo(options: DockerOptions): Promise<Plan> {
  const urls = [mirrorUrl(options.settings, false), mirrorUrl(options.settings, true)]
  const usual = [engineFolder(options.env), desktopFolder(options.env)]
  const folders = options.dockerDir === undefined ? usual : [resolve(options.dockerDir)]
  const changes: FileChange[] = []
  const notes: string[] = []
  for (const folder of folders) {
    for (const file of filesIn(folder)) {
      const change = await planRemoval(file, urls)
      const left = backupPath(file.path)
      if (change === null) {
        if (existsSync(left))
          notes.push(`${left} is what ${file.path} was before; the file no longer names ${urls[0]}.`)
        continue
      }
      changes.push(change)
      if (change.backup.action === 'keep')
        notes.push(`${file.path} was edited since the set-up: those edits stay, and ${left} too.`)
      if (file.path.endsWith('.json')) {
        const keyLeft = change.after !== null && file.mirrors(change.after.toString()).length > 0
        const desktop = folder === desktopFolder(options.env)
        if (keyLeft) notes.push(`To put it into force: ${reload(options, desktop)}`)
        else
          notes.push(
            `To put it into force: ${restart(options, desktop)} (until then Docker asks Shoal, and goes on without it)`,
          )
      }
    }
  }
  return { changes, notes }
}

/** Makes the changes of a plan, in their order. @throws SetupError as `applyChange` */
export async function apply(plan: Plan): Promise<void> {
  for (const change of plan.changes) await applyChange(change)
}

/** Looks whether the engine asks Shoal; a problem is a line of `problems`, never an exception. */
export async function dockerStatus(options: DockerOptions): Promise<DockerStatus> {
  const nothing = { engine: null, mirror: null, file: null, configured: false, active: false }
  const failed = (error: unknown) => {
    if (!(error instanceof SetupError)) throw error
    return [{ message: error.problem, ...(error.remedy !== undefined && { remedy: error.remedy }) }]
  }
  let engine: DockerEngine
  try {
    engine = await askDockerEngine(options.env)
  } catch (error) {
    return { ...nothing, problems: failed(error) }
  }
  try {
    const { url, file } = placeFor(options, engine)
    const text = await readText(file.path)
    const configured = text !== null && file.mirrors(text).some(mirror => sameUrl(mirror, url))
    const live = !file.path.endsWith('.json')
    const active = live ? configured : engine.mirrors.some(mirror => sameUrl(mirror, url))
    const problems: { message: string; remedy: string }[] = []
    if (!configured && !active)
      problems.push({ message: `does not ask ${url}`, remedy: 'run "sudo npx shoal setup docker"' })
    else if (!active) {
      const remedy = reload(options, engine.desktop)
      problems.push({ message: `${file.path} names Shoal, but dockerd has not read that yet`, remedy })
    } else if (!configured) {
      const remedy = `if it was removed there, ${restart(options, engine.desktop)}`
      problems.push({ message: `dockerd asks Shoal, but ${file.path} does not say so`, remedy })
    }
    return { engine, mirror: url, file: file.path, configured, active, problems }
  } catch (error) {
    return { ...nothing, engine, problems: failed(error) }
  }
}

/**
 * The URL at which a client on this machine asks the mirror.
 * @param fromVm the client runs in Docker Desktop's virtual machine, whose 127.0.0.1 is its own
 * @throws SetupError NO_ADDRESS: port 0 is another one at each start
 */
export function mirrorUrl({ mirror }: Settings, fromVm: boolean): string {
  const { host, port } = mirror.listen
  if (port === 0)
    throw new SetupError('NO_ADDRESS', 'mirror.listen has port 0', {
      remedy: 'give it a fixed port, such as "127.0.0.1:3474"',
    })
  const local = fromVm ? 'host.docker.internal' : host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  return `${mirror.tls_cert === null ? 'http' : 'https'}://${listen.format({ host: local, port })}`
}

function placeFor(options: DockerOptions, engine: DockerEngine): { url: string; folder: string; file: MirrorFile } {
  if (engine.rootless) {
    const why = "rootless Docker has a network of its own, whose 127.0.0.1 is not this machine's"
    const remedy =
      "use the Docker of the system, or let mirror.listen be this machine's LAN address and name that in ~/.config/docker/daemon.json"
    throw new SetupError('ENGINE_UNSUPPORTED', why, { remedy })
  }
  const usual = engine.desktop ? desktopFolder(options.env) : engineFolder(options.env)
  const folder = options.dockerDir === undefined ? usual : resolve(options.dockerDir)
  const [classic, live] = filesIn(folder)
  const readsHosts = engine.store === 'containerd' && !engine.desktop && !(engine.major < 29)
  return { url: mirrorUrl(options.settings, engine.desktop), folder, file: readsHosts ? live : classic }
}

function filesIn(folder: string): [daemonJson: MirrorFile, hostsToml: MirrorFile] {
  const hosts = join(folder, 'certs.d', 'docker.io', 'hosts.toml')
  return [daemonJson(join(folder, 'daemon.json')), hostsToml(hosts, ownHeader, 'https://registry-1.docker.io')]
}

function engineFolder(env: DockerOptions['env']): string {
  return process.platform === 'win32'
    ? join(env['ProgramData'] || 'C:\\ProgramData', 'docker', 'config')
    : '/etc/docker'
}

function desktopFolder(env: DockerOptions['env']): string {
  return join(env[process.platform === 'win32' ? 'USERPROFILE' : 'HOME'] || homedir(), '.docker')
}

/** How `registry-mirrors` come into force: dockerd reads them anew at SIGHUP (its documentation, "Configuration reload behavior"). */
function reload(options: DockerOptions, desktop: boolean): string {
  if (desktop || process.platform === 'win32') return restart(options, desktop)
  return bySystemd(options) ? 'sudo systemctl reload docker' : 'sudo kill -HUP $(pidof dockerd)'
}

/** How they go out of force: a reload keeps the old ones if the file has none any more (moby's daemon/reload.go; seen in 20.10). */
function restart(options: DockerOptions, desktop: boolean): string {
  if (desktop) return 'restart Docker Desktop'
  if (process.platform === 'win32') return 'Restart-Service docker'
  return bySystemd(options) ? 'sudo systemctl restart docker' : 'restart dockerd'
}

function bySystemd({ dockerDir }: DockerOptions): boolean {
  return dockerDir === undefined && existsSync('/run/systemd/system')
}
