import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { multiaddr } from '@multiformats/multiaddr'
import { plainAddress } from '../lan-address.ts'

/** Where peers listen unless told otherwise. */
const defaultPort = 3476

/** Addresses taken of one name. */
const mostAddresses = 16

const expected = 'expected "host", "host:port", "[IPv6]:port" or a multiaddr such as "/ip4/10.0.0.5/tcp/3476"'

/** Thrown for an entry of `swarm.bootstrap` that names no peer. */
export class BootstrapError extends Error {
  readonly code = 'BOOTSTRAP_INVALID'
}

export type BootstrapTarget = { readonly host: string; readonly port: number; readonly peerId?: string }

export type Lookup = (host: string, family: 0 | 4 | 6) => Promise<readonly string[]>

type Entry = BootstrapTarget & {
  /** Which addresses of a name are meant; 0: both. */
  readonly family: 0 | 4 | 6
}

/** A peer that the settings name. */
export class BootstrapPeer {
  readonly #entry: Entry
  readonly #lookup: Lookup
  #pending: Promise<readonly BootstrapTarget[]> | undefined

  /** @throws BootstrapError */
  constructor(text: string, lookup: Lookup = systemLookup) {
    this.#entry = parse(text)
    this.#lookup = lookup
  }

  /** The host as the settings name it. */
  get host(): string {
    return this.#entry.host
  }

  get port(): number {
    return this.#entry.port
  }

  get peerId(): string | undefined {
    return this.#entry.peerId
  }

  /** Where it is now: a name is resolved anew each time. Empty if it can't be. */
  addresses(): Promise<readonly BootstrapTarget[]> {
    // While one look-up waits for the DNS, no other holds a second of the threads that files are read with, too.
    this.#pending ??= this.#resolve().finally(() => (this.#pending = undefined))
    return this.#pending
  }

  async #resolve(): Promise<readonly BootstrapTarget[]> {
    const { host, port, peerId, family } = this.#entry
    const found = isIP(host) > 0 ? [host] : await this.#lookup(host, family).catch(() => [])
    const hosts = new Set(found.filter(address => isIP(address) > 0).map(plainAddress))
    return [...hosts].slice(0, mostAddresses).map(host => ({ host, port, ...(peerId !== undefined && { peerId }) }))
  }
}

async function systemLookup(host: string, family: 0 | 4 | 6): Promise<readonly string[]> {
  return (await lookup(host, { all: true, family })).map(({ address }) => address)
}

function parse(text: string): Entry {
  const entry = text.startsWith('/') ? parseMultiaddr(text) : parseHost(text)
  if (!entry) throw new BootstrapError(`"${text}" of swarm.bootstrap names no peer: ${expected}`)
  return entry
}

function parseHost(text: string): Entry | undefined {
  if (isIP(text) === 6) return { host: text, port: defaultPort, family: 0 }
  const [, v6, name, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const port = digits === undefined ? defaultPort : Number(digits)
  const host = v6 ?? name
  if (host === undefined || !isPort(port)) return undefined
  return (v6 === undefined ? isHost(host) : isIP(v6) === 6) ? { host, port, family: 0 } : undefined
}

function parseMultiaddr(text: string): Entry | undefined {
  const parts = partsOf(text)
  if (!parts) return undefined
  const zone = parts[0]?.name === 'ip6zone' ? parts.shift()?.value : undefined
  const [at, over, who, ...rest] = parts
  const family = at ? families.get(at.name) : undefined
  if (!at?.value || family === undefined || rest.length > 0) return undefined
  if (over && over.name !== 'tcp') return undefined
  if (who && who.name !== 'p2p') return undefined
  const host = zone === undefined ? at.value : `${at.value}%${zone}`
  const port = over ? Number(over.value) : defaultPort
  if (!isPort(port) || (isIP(host) === 0 && !isHost(host))) return undefined
  return { host, port, family, ...(who?.value !== undefined && { peerId: who.value }) }
}

const families: ReadonlyMap<string, 0 | 4 | 6> = new Map([
  ['ip4', 4],
  ['ip6', 6],
  ['dns', 0],
  ['dns4', 4],
  ['dns6', 6],
])

function partsOf(text: string): { name: string; value?: string }[] | undefined {
  try {
    return multiaddr(text).getComponents().slice()
  } catch {
    return undefined
  }
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port < 65_536
}

function isHost(text: string): boolean {
  return /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z0-9_](?:[a-z0-9_-]{0,62})\.?$/i.test(text)
}
