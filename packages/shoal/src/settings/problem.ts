import type { z } from 'zod'
import { listen } from '../quantity.ts'
import { namesUnder, settingKeys } from './key.ts'
import type { Layers, Origin } from './layers.ts'
import { aboutOf } from './schema.ts'
import { didYouMean, nearest } from './spelling.ts'
import { at, type Path, pathText } from './tree.ts'

/** What is wrong with a setting, and where it was given. */
export interface Problem {
  readonly origin: Origin
  readonly text: string
}

/** One line each: those of the file by their lines, then the others. */
export function problemLines(problems: readonly Problem[]): string[] {
  const line = ({ origin }: Problem) => origin.line ?? Number.POSITIVE_INFINITY
  return [...problems]
    .sort((a, b) => (line(a) === line(b) ? 0 : line(a) - line(b)))
    .map(({ origin, text }) => `${origin.text.replace(/^\w+ /, '')}: ${text}`)
}

/** What the schema found. */
export function schemaProblems(issues: readonly z.core.$ZodIssue[], layers: Layers): Problem[] {
  return issues.flatMap((issue): Problem | Problem[] => {
    const path = issue.path.map(part => (typeof part === 'symbol' ? String(part) : part))
    const problem = (path: Path, text: string): Problem => ({
      origin: layers.originOf(path),
      text: `${pathText(path)}: ${text}`,
    })
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map(key => {
        const hint =
          nearest(key, namesUnder(path)) ?? settingKeys.find(known => known.key.split('.').at(-1) === key)?.key
        return problem([...path, key], `unknown key${didYouMean(hint)}`)
      })
    }
    if (issue.code === 'invalid_key') return problem(path, issue.issues[0]?.message ?? issue.message)
    const got = aboutOf(path)?.secret ? '' : `, got ${shown(at(layers.values, path))}`
    return problem(path, `${issue.message}${got}`)
  })
}

/** What only several keys together show. */
export function problemsAcrossKeys(layers: Layers): Problem[] {
  const problems: Problem[] = []
  const complain = (path: Path, text: string) =>
    problems.push({ origin: layers.originOf(path), text: `${pathText(path)}: ${text}` })
  const given = (path: Path) => {
    const value = at(layers.values, path)
    return value !== undefined && value !== '' && value !== false
  }
  const addressAt = (section: string) => {
    const value = at(layers.values, [section, 'listen'])
    const address = typeof value === 'string' ? listen.parse(value) : null
    return address === null || address.port === 0 ? null : listen.format(address).toLowerCase()
  }
  const mirror = addressAt('mirror')
  if (mirror !== null && mirror === addressAt('admin')) {
    // The one that was given is blamed, not the other's default.
    const blamed = layers.originOf(['admin', 'listen']).text === 'default' ? 'mirror' : 'admin'
    const other = blamed === 'mirror' ? 'admin' : 'mirror'
    complain([blamed, 'listen'], `${mirror} is ${other}.listen too; give each a port of its own`)
  }
  for (const [one, other] of [
    ['tls_cert', 'tls_key'],
    ['tls_key', 'tls_cert'],
  ] as const) {
    if (given(['mirror', one]) && !given(['mirror', other])) complain(['mirror', one], `needs ${other} too`)
  }
  for (const name of layers.registries()) {
    const of = (key: string) => ['upstreams', name, key]
    const [user, password, config] = [of('username'), of('password_file'), of('docker_config')]
    if (given(user) && given(config)) complain(config, 'set either docker_config or username, not both')
    else if (given(user) && !given(password)) complain(user, 'needs password_file too')
    if (given(password) && !given(user)) complain(password, 'needs username too')
  }
  return problems
}

function shown(value: unknown): string {
  const text = typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? 'nothing')
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}
