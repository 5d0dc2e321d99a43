import { dirname, resolve } from 'node:path'
import { SettingsError } from './error.ts'
import { keyPathSpelled, keyPaths, looksLikeKey, settingKeys } from './key.ts'
import { Layers, type Origin } from './layers.ts'
import { type Problem, problemLines, problemsAcrossKeys, schemaProblems } from './problem.ts'
import { aboutOf, dockerHub, dockerHubEndpoints, type Settings, schema } from './schema.ts'
import { didYouMean, nearest } from './spelling.ts'
import { readTomlFile, tomlEntries } from './toml-file.ts'
import { at, isTree, type Path, pathText, put } from './tree.ts'
import { type Environment, homeOf, untilde, usualDataDir } from './usual-places.ts'

export interface LoadedSettings {
  readonly settings: Settings
  /** Where each key comes from: `default`, `file PATH:LINE`, `env NAME` or `flag --NAME`, by key (`upstreams."docker.io".ca`). */
  readonly origins: Readonly<Record<string, string>>
}

// Kubernetes gives every pod SHOAL_MIRROR_PORT_3474_TCP and the like for a service named shoal-mirror.
const serviceLink = /_(?:SERVICE_HOST|SERVICE_PORT\w*|PORT(?:_\d+_(?:TCP|UDP)\w*)?)$/

/**
 * Reads the settings: defaults, then the file, then `SHOAL_*`, then flags.
 * @param from.argvFlags by flag, as `--mirror-listen`, `mirror-listen` or `mirrorListen`; names that are no setting are passed over
 * @param from.configFile must exist; default: `$XDG_CONFIG_HOME/shoal/config.toml`, else `/etc/shoal/config.toml`
 *   (Windows: `%APPDATA%\shoal\config.toml`), if one exists
 * @throws SettingsError with every problem found
 */
export async function loadSettings(from: {
  readonly argvFlags: Readonly<Record<string, unknown>>
  readonly env: Environment
  readonly configFile?: string | undefined
}): Promise<LoadedSettings> {
  const home = homeOf(from.env)
  const cwd = process.cwd()
  const layers = new Layers()
  const problems: Problem[] = []

  const file = await readTomlFile(from.configFile, from.env, home)
  if (file !== null) {
    const folder = dirname(file.path)
    for (const { path, value, line } of tomlEntries(file)) {
      const origin = { text: `file ${file.path}:${line}`, line, folder }
      if (path.includes('__proto__')) problems.push({ origin, text: `${pathText(path)}: unknown key` })
      else layers.set(path, value, origin)
    }
  }

  const give = (spelled: string, value: unknown, origin: Origin, meant: boolean, unknown: () => string) => {
    const path = keyPathSpelled(spelled, layers.registries())
    if (path !== null) layers.override(path, fromText(path, value), origin)
    else if (meant || looksLikeKey(spelled)) problems.push({ origin, text: unknown() })
  }
  for (const [name, value] of Object.entries(from.env)) {
    if (!name.startsWith('SHOAL_') || value === undefined || serviceLink.test(name)) continue
    const known = settingKeys.map(key => key.env)
    const unknown = () => `unknown variable${didYouMean(nearest(name, known))}`
    // The section itself may be misspelt.
    const meant = nearest(name, known, 2) !== undefined
    give(name.slice('SHOAL_'.length), value, { text: `env ${name}`, folder: cwd }, meant, unknown)
  }
  for (const [name, value] of Object.entries(from.argvFlags)) {
    if (value === undefined) continue
    const option = name.replace(/^--/, '').replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
    const known = settingKeys.map(key => key.flag)
    const unknown = () => `unknown flag${didYouMean(nearest(`--${option}`, known))}`
    give(option.replaceAll('-', '_').toUpperCase(), value, { text: `flag --${option}`, folder: cwd }, false, unknown)
  }

  const keys = keyPaths(layers.registries())
  for (const path of keys) {
    const parent = at(layers.values, path.slice(0, -1)) ?? {}
    if (!isTree(parent)) continue
    if (!(path.at(-1)! in parent)) layers.set(path, defaultOf(path, from.env), { text: 'default', folder: cwd })
    const value = at(layers.values, path)
    if (aboutOf(path)?.path && typeof value === 'string' && value !== '')
      put(layers.values, path, resolve(layers.originOf(path).folder, untilde(value, home)))
  }

  const parsed = schema.safeParse(layers.values)
  problems.push(...schemaProblems(parsed.error?.issues ?? [], layers), ...problemsAcrossKeys(layers))
  if (!parsed.success || problems.length > 0) throw new SettingsError(problemLines(problems))
  return {
    settings: parsed.data,
    origins: Object.fromEntries(keys.map(path => [pathText(path), layers.originOf(path).text])),
  }
}

/** Values from the environment and flags are texts; what doesn't become the wanted kind stays, for the check to refuse it. */
function fromText(path: Path, value: unknown): unknown {
  const fallback = aboutOf(path)?.default
  if (Array.isArray(value)) return value.flatMap(item => (typeof item === 'string' ? commaSeparated(item) : [item]))
  if (typeof value !== 'string') return value
  if (Array.isArray(fallback)) return commaSeparated(value)
  if (typeof fallback === 'boolean') return { true: true, 1: true, false: false, 0: false }[value] ?? value
  if (typeof fallback === 'number') return /^\d+$/.test(value) ? Number(value) : value
  return value
}

function commaSeparated(value: string): string[] {
  return value.split(',').flatMap(item => item.trim() || [])
}

function defaultOf(path: Path, env: Environment): unknown {
  if (path[0] === 'data_dir') return usualDataDir(env)
  if (path.at(-1) !== 'endpoints') return aboutOf(path)?.default
  return path[1] === dockerHub ? dockerHubEndpoints : [`https://${path[1]}`]
}
