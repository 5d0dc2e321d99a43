import { createHash, hkdfSync, randomBytes } from 'node:crypto'

/** Thrown for text that is no token. */
export class TokenError extends Error {
  readonly code = 'TOKEN_INVALID'
}

const prefix = 'shoal-'
const secretLength = 32
const checksumLength = 4

/** A network of peers: the open one of the LAN, or a private one of those who have its token. */
export type Network = {
  /** `open`, or `private:` and a fingerprint of the token: for members to compare, never sent. */
  readonly name: string
  readonly private: boolean
  /** What a private network's connections are encrypted with from their first byte on (libp2p, specs/pnet). */
  readonly psk: Buffer | undefined
  /** What announcements are marked with, so that members know each other's; 32 bytes. */
  readonly markKey: Buffer
}

export const openNetwork: Network = {
  name: 'open',
  private: false,
  psk: undefined,
  markKey: createHash('sha256').update('shoal: the open network of a LAN').digest(),
}

/** A new token: 32 random bytes and the first 4 of their SHA-256, in base64url after `shoal-`. */
export function createToken(): string {
  const secret = randomBytes(secretLength)
  return prefix + Buffer.concat([secret, checksumOf(secret)]).toString('base64url')
}

/** The network that a token is for. @throws TokenError */
export function networkOf(token: string): Network {
  const text = token.trim()
  const bytes = Buffer.from(text.slice(prefix.length), 'base64url')
  const secret = bytes.subarray(0, secretLength)
  const sound =
    text.startsWith(prefix) &&
    bytes.length === secretLength + checksumLength &&
    bytes.toString('base64url') === text.slice(prefix.length) &&
    checksumOf(secret).equals(bytes.subarray(secretLength))
  if (!sound)
    throw new TokenError(
      'this is not a whole token as "shoal network create" prints it: copy it again, from "shoal-" on',
    )
  const derive = (purpose: string, length: number) =>
    Buffer.from(hkdfSync('sha256', secret, '', `shoal/1 ${purpose}`, length))
  return {
    name: `private:${derive('name', 4).toString('hex')}`,
    private: true,
    psk: Buffer.from(`/key/swarm/psk/1.0.0/\n/base16/\n${derive('psk', 32).toString('hex')}`),
    markKey: derive('mark', 32),
  }
}

function checksumOf(secret: Uint8Array): Buffer {
  return createHash('sha256').update(secret).digest().subarray(0, checksumLength)
}
