import { Resolver } from 'node:dns'
import { lookup } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { isLanAddress, plainAddress } from '../lan-address.ts'

/** What is asked of the DNS, and taken from it. */
const mostDomains = 6
const mostServers = 32
const mostAddresses = 8

/** Names of at least one label that a search domain may be; `local` is multicast DNS's. */
const domainPattern = /^(?=.{1,240}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z0-9_-]{1,63}$/

export type SrvTarget = { readonly host: string; readonly port: number }

export type SrvRecord = {
  readonly name: string
  readonly port: number
  readonly priority: number
}

export type SrvResolver = {
  /** @throws if there is none, or no answer */
  readonly resolveSrv: (name: string) => Promise<readonly SrvRecord[]>
  /** IP addresses of a host. @throws if there are none, or no answer */
  readonly lookup: (host: string) => Promise<readonly string[]>
}

export type SearchDomainsOptions = {
  /** @default /etc/resolv.conf */
  readonly readResolvConf?: () => Promise<string>
  /** @default the system's */
  readonly hostname?: string
}

/** Domains that this machine's names are in: those of /etc/resolv.conf, where there is one, and that of its own name. */
export async function searchDomains({
  readResolvConf = () => readFile('/etc/resolv.conf', 'utf8'),
  hostname: host = hostname(),
}: SearchDomainsOptions = {}): Promise<readonly string[]> {
  const text = await readResolvConf().catch(() => '')
  const named = [...text.matchAll(/^[ \t]*(?:search|domain)[ \t]+(.*)$/gm)].flatMap(([, list = '']) =>
    list.split(/\s+/),
  )
  const own = host.includes('.') ? [host.slice(host.indexOf('.') + 1)] : []
  const domains = [...named, ...own]
    .map(domain => domain.replace(/\.$/, '').toLowerCase())
    .filter(domain => domainPattern.test(domain) && domain !== 'local' && !domain.endsWith('.local'))
  return [...new Set(domains)].slice(0, mostDomains)
}

/** LAN addresses that the SRV records `_shoal._tcp` of domains lead to; those of lower priority numbers first. Never throws. */
export async function srvTargets(
  domains: readonly string[],
  resolver: SrvResolver = systemResolver(),
): Promise<readonly SrvTarget[]> {
  const lists = await Promise.all(domains.map(domain => resolver.resolveSrv(`_shoal._tcp.${domain}`).catch(() => [])))
  const servers = lists
    .flat()
    // A target of the root says that there is no such service (RFC 2782).
    .filter(({ name, port }) => name !== '' && name !== '.' && port > 0 && port < 65_536)
    .sort((a, b) => a.priority - b.priority)
    .slice(0, mostServers)
  const targets = new Map<string, SrvTarget>()
  // One after the other: the system's own look-up holds a thread that files are read with, too.
  for (const { name, port } of servers) {
    const hosts = (await resolver.lookup(name).catch(() => [])).map(plainAddress).filter(isLanAddress)
    for (const host of hosts.slice(0, mostAddresses)) targets.set(`${host} ${port}`, { host, port })
  }
  return [...targets.values()]
}

function systemResolver(): SrvResolver {
  return {
    resolveSrv: name =>
      new Promise((resolve, reject) =>
        // Made anew each time: it reads the system's name servers once, and they change with the network.
        new Resolver({ timeout: 2000, tries: 2 }).resolveSrv(name, (error, records) =>
          error ? reject(error) : resolve(records),
        ),
      ),
    lookup: async host => (await lookup(host, { all: true })).map(({ address }) => address),
  }
}
