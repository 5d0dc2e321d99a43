import { join } from 'node:path'
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { type Disk, isAbsent } from '@shoal/store/disk'

/** Who this machine is to its peers: an Ed25519 key, and the peer id that follows from it. */
export type Identity = { readonly privateKey: PrivateKey; readonly peerId: string }

/** Thrown when the key cannot be read or kept. The message says what to do. */
export class IdentityError extends Error {
  readonly code = 'IDENTITY'
}

/**
 * The identity that is kept in `folder`, made at the first start (libp2p's PrivateKey protobuf, in base64).
 * @throws IdentityError
 */
export async function loadIdentity(folder: string, disk: Disk): Promise<Identity> {
  const path = join(folder, 'peer.key')
  try {
    const privateKey = (await read(path, disk)) ?? (await make(path, disk))
    return { privateKey, peerId: peerIdFromPrivateKey(privateKey).toString() }
  } catch (cause) {
    if (cause instanceof IdentityError) throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new IdentityError(`the key of this machine cannot be kept in ${path}: ${reason}`, { cause })
  }
}

async function read(path: string, disk: Disk): Promise<PrivateKey | undefined> {
  let text: string
  try {
    text = (await disk.readFile(path)).toString()
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
  try {
    const key = privateKeyFromProtobuf(Buffer.from(text, 'base64'))
    if (key.type === 'Ed25519') return key
  } catch {
    // Told below.
  }
  throw new IdentityError(`${path} is no key: remove it, and this machine takes a new identity`)
}

async function make(path: string, disk: Disk): Promise<PrivateKey> {
  const key = await generateKeyPair('Ed25519')
  await disk.replaceFile(path, `${Buffer.from(privateKeyToProtobuf(key)).toString('base64')}\n`, 0o600)
  return key
}
