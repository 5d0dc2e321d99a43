import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/** What an office LAN uses, of IPv4 and IPv6 alike. Carrier-grade NAT (100.64.0.0/10) is the provider's, not the office's. */
const lanRanges = new Set(['loopback', 'private', 'linkLocal', 'uniqueLocal'])

/** Whether an IP address can only be this machine's or its LAN's. Any scope (`%eth0`) is left out of account. */
export function isLanAddress(host: string): boolean {
  return lanRanges.has(rangeOf(host))
}

export function isLoopback(host: string): boolean {
  return rangeOf(host) === 'loopback'
}

/** An address as IPv4 if it is one in IPv6's clothes (`::ffff:10.0.0.1`), as sockets of both families report it. */
export function plainAddress(host: string): string {
  if (isIP(host) !== 6) return host
  const parsed = ipaddr.process(host)
  return parsed.kind() === 'ipv4' ? parsed.toString() : host
}

/** The name that ipaddr.js has for an address's range; empty if it is none. */
function rangeOf(host: string): string {
  const [address = ''] = host.split('%', 1)
  // ipaddr.js takes `10.1` and `012.0.0.1` too, which nothing here should.
  return isIP(address) === 0 ? '' : ipaddr.process(address).range()
}
