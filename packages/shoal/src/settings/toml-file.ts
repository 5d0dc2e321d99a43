import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { type AST, getStaticTOMLValue, ParseError, parseTOML } from 'toml-eslint-parser'
import { SettingsError } from './error.ts'
import type { Path } from './tree.ts'
import { type Environment, untilde, usualFiles } from './usual-places.ts'

export interface TomlFile {
  readonly path: string
  readonly text: string
}

export interface TomlEntry {
  readonly path: Path
  /** undefined for the header of a table. */
  readonly value: unknown
  readonly line: number
}

/** Reads the file that was asked for, which must exist, or else the first of the usual ones. @throws SettingsError */
export async function readTomlFile(
  given: string | undefined,
  env: Environment,
  home: string,
): Promise<TomlFile | null> {
  for (const path of given === undefined ? usualFiles(env, home) : [resolve(untilde(given, home))]) {
    try {
      return { path, text: (await readFile(path, 'utf8')).replace(/^\uFEFF/, '') }
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined
      if (given === undefined && (code === 'ENOENT' || code === 'ENOTDIR')) continue
      const remedy =
        code === 'ENOENT' ? 'there is no such file; create it, or leave --config out' : `can't be read (${code})`
      throw new SettingsError([`${path}: ${remedy}`])
    }
  }
  return null
}

/**
 * Every key of the file with its value and line; of a table its header, so that an empty one is seen too.
 * @throws SettingsError if it is not TOML
 */
export function tomlEntries(file: TomlFile): TomlEntry[] {
  const entries: TomlEntry[] = []
  const read = (node: AST.TOMLKeyValue, under: Path) => {
    const path = [...under, ...node.key.keys.map(nameOf)]
    const inline = node.value.type === 'TOMLInlineTable' ? node.value : null
    const line = node.key.loc.start.line
    entries.push({ path, value: inline ? Object.create(null) : getStaticTOMLValue(node.value), line })
    for (const child of inline?.body ?? []) read(child, path)
    if (node.value.type === 'TOMLArray') {
      node.value.elements.forEach((element, index) => {
        if (element.type === 'TOMLValue')
          entries.push({ path: [...path, index], value: element.value, line: element.loc.start.line })
      })
    }
  }
  try {
    for (const node of parseTOML(file.text).body[0].body) {
      if (node.type === 'TOMLKeyValue') read(node, [])
      else {
        entries.push({ path: node.resolvedKey, value: undefined, line: node.loc.start.line })
        for (const child of node.body) read(child, node.resolvedKey)
      }
    }
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
    throw new SettingsError([`${file.path}:${error.lineNumber}: not TOML: ${error.message}`])
  }
  return entries
}

function nameOf(key: AST.TOMLBare | AST.TOMLQuoted): string {
  return key.type === 'TOMLBare' ? key.name : key.value
}
