import { parseArgs } from 'node:util'

/** What is to be replayed, and how. */
export type Settings = {
  readonly source: { readonly trace: string; readonly sizes: string } | { readonly requests: number }
  readonly half: 'first' | 'second' | 'both'
  /** Of all machines together, as shares of the bytes of all blobs. */
  readonly capacities: readonly number[]
  /** Machines, for one office after the other. */
  readonly peers: readonly number[]
  /** How long all requests take. */
  readonly days: number
  /** How often a machine is wrong about whether others have a blob, from 0 to 1. */
  readonly wrong: number
  readonly json: boolean
  /** A file to draw a plot to. */
  readonly plot: string | undefined
}

/** What is wrong with the arguments, and what would be right. */
export class SettingsError extends Error {}

const options = {
  trace: { type: 'string' },
  sizes: { type: 'string' },
  requests: { type: 'string' },
  half: { type: 'string', default: 'both' },
  capacity: { type: 'string', default: '1%,5%,20%,50%' },
  peers: { type: 'string', default: '1,20' },
  days: { type: 'string', default: '30' },
  wrong: { type: 'string', default: '0%' },
  json: { type: 'boolean', default: false },
  plot: { type: 'string' },
} as const

/** @throws SettingsError */
export function parseSettings(args: readonly string[]): Settings {
  const { values } = parse(args)
  const { trace, sizes, requests, half } = values
  if (half !== 'first' && half !== 'second' && half !== 'both')
    throw new SettingsError(`--half ${half}: say first, second or both`)
  if (requests !== undefined && trace !== undefined)
    throw new SettingsError('--requests is for a trace that is made up: leave it out, or --trace and --sizes')
  if ((trace === undefined) !== (sizes === undefined))
    throw new SettingsError(
      '--trace and --sizes belong together: name both files, or neither for a trace that is made up',
    )
  return {
    source:
      trace !== undefined && sizes !== undefined
        ? { trace, sizes }
        : { requests: whole('--requests', requests ?? '50000', 1000, 5_000_000) },
    half,
    capacities: list(values.capacity, each => share('--capacity', each, 100)),
    peers: list(values.peers, each => whole('--peers', each, 1, 1000)),
    days: whole('--days', values.days, 1, 3650),
    wrong: share('--wrong', values.wrong, 100),
    json: values.json,
    plot: values.plot,
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options })
  } catch (error) {
    const [first] = (error instanceof Error ? error.message : String(error)).split('. ')
    const names = Object.keys(options).map(name => `--${name}`)
    throw new SettingsError(`${first}: there are ${names.join(', ')}`)
  }
}

function list<T>(text: string, parse: (each: string) => T): T[] {
  return text.split(',').map(parse)
}

function whole(name: string, text: string, least: number, most: number): number {
  const number = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (number >= least && number <= most) return number
  throw new SettingsError(`${name} ${text}: say a whole number from ${least} to ${most}`)
}

function share(name: string, text: string, most: number): number {
  const number = /^\d+(\.\d+)?%$/.test(text) ? Number(text.slice(0, -1)) : Number.NaN
  if (number <= most && (number > 0 || name === '--wrong')) return number / 100
  throw new SettingsError(`${name} ${text}: say a share like 5%, of at most ${most}%`)
}
