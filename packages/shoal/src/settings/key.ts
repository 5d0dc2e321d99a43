import { registryNameSpelled } from './registry-name.ts'
import { aboutOf, dockerHub, dockerHubEndpoints, keysOf, sectionNames } from './schema.ts'
import { type Path, pathText } from './tree.ts'

/** A key as the command line shows it. */
export interface SettingKey {
  readonly key: string
  /** With its dashes. */
  readonly flag: string
  readonly env: string
  readonly description: string
  /** A list is separated by commas in a flag and in the environment. */
  readonly takes: 'value' | 'boolean' | 'list'
  /** As written in the file. */
  readonly default: unknown
}

/** Each key with a fixed name, in the order of the file; registries other than docker.io are set alike, by their own name. */
export const settingKeys: readonly SettingKey[] = keyPaths([dockerHub]).map(describe)

const prefixes = ['data', ...sectionNames, 'upstreams'].map(name => `${name.toUpperCase()}_`)

/** The path of each key there is with these registries, in the order of the file. */
export function keyPaths(registries: readonly string[]): string[][] {
  return [
    ['data_dir'],
    ...sectionNames.flatMap(section => keysOf(section).map(key => [section, key])),
    ...registries.flatMap(registry => keysOf('upstreams').map(key => ['upstreams', registry, key])),
  ]
}

/** The key of `MIRROR_LISTEN` or `UPSTREAMS_DOCKER_IO_CA`; a registry with a dash in its name is found only if the file names it. */
export function keyPathSpelled(spelled: string, registries: readonly string[]): Path | null {
  const known = keyPaths([dockerHub]).find(path => spelling(path) === spelled)
  if (known !== undefined) return known
  if (!spelled.startsWith('UPSTREAMS_')) return null
  const key = keysOf('upstreams').find(key => spelled.endsWith(`_${key.toUpperCase()}`))
  if (key === undefined) return null
  const name = spelled.slice('UPSTREAMS_'.length, -key.length - 1)
  const registry = registries.find(registry => spelling([registry]) === name) ?? registryNameSpelled(name)
  return registry === null ? null : ['upstreams', registry, key]
}

/** Whether a name that is no key must have been meant as one. */
export function looksLikeKey(spelled: string): boolean {
  return prefixes.some(prefix => spelled.startsWith(prefix))
}

/** The names that may stand in the table at `path`. */
export function namesUnder(path: Path): string[] {
  return path.length === 0 ? ['data_dir', ...sectionNames, 'upstreams'] : keysOf(String(path[0]))
}

function describe(path: readonly string[]): SettingKey {
  const { default: fallback, description } = aboutOf(path)!
  const spelled = spelling(path)
  return {
    key: pathText(path),
    flag: `--${spelled.toLowerCase().replaceAll('_', '-')}`,
    env: `SHOAL_${spelled}`,
    description,
    takes: typeof fallback === 'boolean' ? 'boolean' : Array.isArray(fallback) ? 'list' : 'value',
    default: path.at(-1) === 'endpoints' ? dockerHubEndpoints : fallback,
  }
}

/** A path as variables are named, without `SHOAL_`. */
function spelling(path: readonly string[]): string {
  return path.map(name => name.toUpperCase().replace(/[^A-Z0-9]+/g, '_')).join('_')
}
