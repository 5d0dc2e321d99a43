import { isIP, isIPv4, isIPv6 } from 'node:net'

/** A kind of value that settings write as text. `parse` gives null for what it doesn't understand, and never throws. */
export interface Quantity<T> {
  /** What a good value looks like, to follow "expected". */
  readonly expected: string
  parse(text: string): T | null
  /** The shortest text that parses to exactly `value`. */
  format(value: T): string
}

/** Where a server listens; `port` 0 lets the system choose, `host` is without the brackets of IPv6. */
export interface Listen {
  readonly host: string
  readonly port: number
}

/** An amount of disk: bytes, or a part of the whole disk in percent (above 0, up to 100). */
export type Size = { readonly bytes: number } | { readonly percent: number }

const byteUnits = new Map<string, number>(
  ['', 'k', 'm', 'g', 't'].flatMap((letter, power): [string, number][] => [
    [`${letter}b`, 1000 ** power],
    ...(letter === '' ? [] : [[`${letter}ib`, 1024 ** power] as [string, number]]),
  ]),
)
const byteNames = ['TiB', 'TB', 'GiB', 'GB', 'MiB', 'MB', 'KiB', 'kB', 'B']
const durationUnits = new Map([
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
])

/** Bytes with a unit: kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB powers of 1024; case doesn't matter. */
export const bytes: Quantity<number> = {
  expected: 'a size such as "50GB" or "50GiB"',
  parse: text => inUnits(text, byteUnits),
  format: value => {
    const name = byteNames.find(name => value % unitOf(name) === 0 && value > 0) ?? 'B'
    return `${value / unitOf(name)}${name}`
  },
}

/** Bytes, or a percentage of the disk; see `sizeOn`. */
export const size: Quantity<Size> = {
  expected: 'a size such as "50GB", "50GiB" or "20%"',
  parse: text => {
    const percent = /^(\d+(?:\.\d+)?)\s*%$/.exec(text.trim())?.[1]
    if (percent !== undefined)
      return Number(percent) > 0 && Number(percent) <= 100 ? { percent: Number(percent) } : null
    const value = bytes.parse(text)
    return value === null ? null : { bytes: value }
  },
  format: value => ('bytes' in value ? bytes.format(value.bytes) : `${value.percent}%`),
}

/** Bytes per second, above 0. */
export const rate: Quantity<number> = {
  expected: 'a rate such as "20MB/s", or "" for no limit',
  parse: text => {
    const value = /\/s$/i.test(text.trim()) ? bytes.parse(text.trim().slice(0, -2)) : null
    return value === 0 ? null : value
  },
  format: value => `${bytes.format(value)}/s`,
}

/** Milliseconds, written with ms, s, m or h. */
export const duration: Quantity<number> = {
  expected: 'a duration such as "5s", "500ms", "2m" or "1h"',
  parse: text => inUnits(text, durationUnits),
  format: value => {
    const [name, unit] = [...durationUnits].find(([, unit]) => value % unit === 0 && value > 0) ?? ['ms', 1]
    return `${value / unit}${name}`
  },
}

/** `host:port` or `[IPv6]:port`, port 0 to 65535. */
export const listen: Quantity<Listen> = {
  expected: 'an address such as "127.0.0.1:3474" or "[::1]:3474"',
  parse: text => {
    const [, v6, name, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text.trim()) ?? []
    const port = Number(digits)
    const host = v6 ?? name
    if (host === undefined || port > 65535) return null
    return (v6 === undefined ? isHost(host) : isIPv6(host)) ? { host, port } : null
  },
  format: ({ host, port }) => `${isIPv6(host) ? `[${host}]` : host}:${port}`,
}

/** As `listen`, but an IP address: a name may have several, and peers are told one port. */
export const listenIp: Quantity<Listen> = {
  expected: 'an IP address and a port such as "0.0.0.0:3476" or "[fd00::7]:3476"',
  parse: text => {
    const address = listen.parse(text)
    return address !== null && isIP(address.host) > 0 ? address : null
  },
  format: listen.format,
}

/** `size` in bytes on a disk of `diskBytes`. */
export function sizeOn(size: Size, diskBytes: number): number {
  return 'bytes' in size ? size.bytes : Math.floor((diskBytes * size.percent) / 100)
}

/** Whether `text` is a host name (RFC 1123, underscores let through) or an IPv4 address. */
export function isHost(text: string): boolean {
  if (/^[\d.]+$/.test(text)) return isIPv4(text)
  return text.length <= 253 && /^\w(?:[\w-]{0,61}\w)?(?:\.\w(?:[\w-]{0,61}\w)?)*$/.test(text)
}

function inUnits(text: string, units: ReadonlyMap<string, number>): number | null {
  const [, digits, name] = /^(\d+(?:\.\d+)?)\s*([a-z]+)$/i.exec(text.trim()) ?? []
  const unit = units.get(name?.toLowerCase() ?? '')
  if (digits === undefined || unit === undefined) return null
  const value = Math.round(Number(digits) * unit)
  return Number.isSafeInteger(value) ? value : null
}

function unitOf(name: string): number {
  return byteUnits.get(name.toLowerCase()) ?? 1
}
