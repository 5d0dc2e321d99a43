import type { z } from 'zod'
import { type Listen, listen } from '../quantity.ts'
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
  const listeners = [
    ['mirror', 'listen'],
    ['admin', 'listen'],
    ...(at(layers.values, ['swarm', 'enabled']) === false
      ? []
      : [
          ['swarm', 'listen'],
          ['swarm', 'transfer_listen'],
        ]),
  ].flatMap(path => {
    const value = at(layers.values, path)
    const address = typeof value === 'string' ? listen.parse(value) : null
    return address === null || address.port === 0 ? [] : [{ path, address }]
  })
  for (const [index, later] of listeners.entries())
    for (const earlier of listeners.slice(0, index)) {
      if (!overlap(earlier.address, later.address)) continue
      // The one that was given is blamed, not the other's default.
      const isDefault = layers.originOf(later.path).text === 'default'
      const [blamed, other] = isDefault ? [earlier, later] : [later, earlier]
      const text = `${listen.format(blamed.address)} has the port of ${pathText(other.path)}; give each a port of its own`
      complain(blamed.path, text)
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

/** Whether two cannot be listened at at once. */
function overlap(one: Listen, other: Listen): boolean {
  const isAny = ({ host }: Listen) => host === '0.0.0.0' || host === '::'
  const isSame = one.host.toLowerCase() === other.host.toLowerCase()
  return one.port === other.port && (isSame || isAny(one) || isAny(other))
}

function shown(value: unknown): string {
  const text = typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? 'nothing')
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}
