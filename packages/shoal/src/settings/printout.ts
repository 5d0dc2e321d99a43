import { keyPaths } from './key.ts'
import type { LoadedSettings } from './load.ts'
import { aboutOf } from './schema.ts'
import { at, pathText, put, type Tree } from './tree.ts'

/** The settings in force as lines of TOML, each with where it comes from; secrets are masked. */
export function printSettings(loaded: LoadedSettings): string[] {
  const lines: { text: string; origin?: string }[] = []
  let table = ''
  for (const [path, value] of written(loaded)) {
    const header = pathText(path.slice(0, -1))
    if (header !== table) lines.push({ text: `[${header}]` })
    table = header
    const shownValue = Array.isArray(value)
      ? `[${value.map(item => JSON.stringify(item)).join(', ')}]`
      : JSON.stringify(value)
    lines.push({ text: `${path.at(-1)} = ${shownValue}`, origin: loaded.origins[pathText(path)] ?? 'default' })
  }
  const width = Math.min(72, Math.max(...lines.map(({ text, origin }) => (origin === undefined ? 0 : text.length))))
  return lines.map(({ text, origin }) => (origin === undefined ? text : `${text.padEnd(width)}  # ${origin}`))
}

/** The settings in force for `--json`: values as one writes them in the file, secrets masked. */
export function settingsJson(loaded: LoadedSettings): {
  settings: Record<string, unknown>
  origins: Record<string, string>
} {
  const settings: Tree = {}
  for (const [path, value] of written(loaded)) put(settings, path, value)
  return { settings, origins: { ...loaded.origins } }
}

function written({ settings }: LoadedSettings): [string[], unknown][] {
  return keyPaths(Object.keys(settings.upstreams)).map(path => {
    const value = at(settings, path)
    const { secret, format } = aboutOf(path)!
    if (secret) return [path, value === null ? '' : '********']
    return [path, format === undefined ? (value ?? '') : format(value as never)]
  })
}
