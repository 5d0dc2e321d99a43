import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'

/** What comes before the 32 bytes of an Ed25519 key in DER (RFC 8410, 7 and 4). */
const privatePrefix = Buffer.from('302e020100300506032b657004220420', 'hex')
const publicPrefix = Buffer.from('302a300506032b6570032100', 'hex')
const keyLength = 32

/** Public keys that are kept, at most. */
const mostKept = 512
const kept = new Map<string, KeyObject>()

/** Signs with a peer's key, at once. */
export function signerOf({ raw }: PrivateKey): (bytes: Uint8Array) => Uint8Array {
  const der = Buffer.concat([privatePrefix, raw.subarray(0, keyLength)])
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  return bytes => sign(null, bytes, key)
}

/** Whether a peer has signed these bytes. */
export function isSignedBy(peerId: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const key = publicKeyOf(peerId)
  return key !== undefined && verify(null, bytes, key, signature)
}

/** The key that an Ed25519 peer id holds; undefined for other ids. */
function publicKeyOf(peerId: string): KeyObject | undefined {
  const known = kept.get(peerId)
  if (known) return known
  try {
    const { publicKey } = peerIdFromString(peerId)
    if (publicKey?.type !== 'Ed25519') return undefined
    const der = Buffer.concat([publicPrefix, publicKey.raw])
    const key = createPublicKey({ key: der, format: 'der', type: 'spki' })
    if (kept.size === mostKept) kept.clear()
    kept.set(peerId, key)
    return key
  } catch {
    return undefined
  }
}
