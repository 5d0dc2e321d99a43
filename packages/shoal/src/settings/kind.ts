import { isIPv4, isIPv6 } from 'node:net'
import { networkOf } from '@shoal/swarm/network'
import { z } from 'zod'
import { isHost, listen, type Quantity, rate } from '../quantity.ts'

/** What is known of a key besides the check of its value. */
export interface About {
  readonly description: string
  readonly default: unknown
  /** A path: `~` is the home folder, and a relative one starts at the file's folder (in a file) or the working folder. */
  readonly path?: true
  readonly secret?: true
  /** The parsed value as written in a file; for texts, numbers, booleans and lists it is the value itself. */
  readonly format?: (value: never) => string
}

export const about = z.registry<About>()

export const flag = (fallback: boolean, description: string) =>
  z.boolean({ error: 'expected true or false' }).register(about, { default: fallback, description })

export const quantity = <T>(kind: Quantity<T>, fallback: string, description: string) =>
  z
    .string({ error: `expected ${kind.expected}` })
    .transform((text, context): T => {
      const value = kind.parse(text)
      if (value !== null) return value
      context.issues.push({ code: 'custom', message: `expected ${kind.expected}`, input: text })
      return z.NEVER
    })
    .register(about, { default: fallback, description, format: kind.format })

export const limit = (description: string) =>
  z
    .string({ error: `expected ${rate.expected}` })
    .transform((text, context): number | null => {
      const value = rate.parse(text)
      if (text === '' || value !== null) return value
      context.issues.push({ code: 'custom', message: `expected ${rate.expected}`, input: text })
      return z.NEVER
    })
    .register(about, {
      default: '',
      description,
      format: (value: number | null) => (value === null ? '' : rate.format(value)),
    })

export const text = (expected: string, description: string, more: Partial<About> = {}) =>
  z
    .string({ error: `expected ${expected}` })
    .refine(value => !/\p{Cc}/u.test(value), { error: `expected ${expected}, on one line` })
    .transform(value => (value === '' ? null : value))
    .register(about, { default: '', description, ...more })

export const path = (description: string) => text('the path of a file, or ""', description, { path: true })

export const endpoint = z
  .string({ error: 'expected a URL such as "https://registry-1.docker.io"' })
  .transform((text, context) => {
    const url = URL.canParse(text) ? new URL(text) : null
    const bare = url !== null && url.pathname === '/' && !/[?#@\\\s]/.test(text) && /^https?:\/\/[^/]/i.test(text)
    if (bare) return url.origin
    const message = 'expected http:// or https://, a host and perhaps a port, without path, query or password'
    context.issues.push({ code: 'custom', message, input: text })
    return z.NEVER
  })

const peerExpected = 'expected "host", "host:port", "[IPv6]:port" or a multiaddr such as "/ip4/10.0.0.5/tcp/3476"'

export const bootstrapPeer = z.string({ error: peerExpected }).refine(isBootstrapPeer, { error: peerExpected })

/** What the swarm takes; that a peer id is one, it finds out at the start. */
function isBootstrapPeer(text: string): boolean {
  if (isHost(text) || isIPv6(text)) return true
  const [, kind, host = '', port] =
    /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d{1,5})(?:\/p2p\/\w+)?$/.exec(text) ?? []
  if (kind === undefined) return (listen.parse(text)?.port ?? 0) > 0
  const isOfItsKind = kind === 'ip4' ? isIPv4 : kind === 'ip6' ? isIPv6 : isHost
  return isOfItsKind(host) && Number(port) > 0 && Number(port) < 65_536
}

const tokenExpected = 'expected a whole token as "shoal network create" prints it, from "shoal-" on, or ""'

export const networkToken = z
  .string({ error: tokenExpected })
  .refine(text => text === '' || isNetworkToken(text), { error: tokenExpected })
  .transform(text => (text === '' ? null : text))

function isNetworkToken(text: string): boolean {
  try {
    networkOf(text)
    return true
  } catch {
    return false
  }
}
