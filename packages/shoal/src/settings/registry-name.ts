import { isHost, listen } from '../quantity.ts'

/** A registry as it stands in image names: a host with a dot or a port, or localhost (distribution/reference). */
export function isRegistryName(name: string): boolean {
  const [, host, port] = /^(.*?)(?::(\d{1,5}))?$/s.exec(name) ?? []
  if (host === undefined || Number(port ?? 1) > 65535 || name === '__proto__') return false
  if (/^\[.+\]$/.test(host)) return listen.parse(`${host}:1`) !== null
  return isHost(host) && (host.includes('.') || host === 'localhost' || port !== undefined)
}

/** From the name of a variable: `GHCR_IO` is ghcr.io, `LOCALHOST_5000` localhost:5000, `10_0_0_1_5000` 10.0.0.1:5000. */
export function registryNameSpelled(spelled: string): string | null {
  const parts = spelled.toLowerCase().split('_')
  const name = parts.join('.')
  const withPort = `${parts.slice(0, -1).join('.')}:${parts.at(-1)}`
  if (/^\d+$/.test(parts.at(-1) ?? '') && isRegistryName(withPort)) return withPort
  return isRegistryName(name) ? name : null
}
