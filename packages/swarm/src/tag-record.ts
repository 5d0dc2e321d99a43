import type { PeerId, PrivateKey } from '@libp2p/interface'
import { isDigest } from '@shoal/oci/digest'
import { manifestLimit } from '@shoal/oci/manifest'
import { isManifestType } from '@shoal/oci/media-type'
import { isTag } from '@shoal/oci/reference'
import type { Sighting } from '@shoal/store/refs'
import { decode, encode } from 'cborg'
import { z } from 'zod'
import { MessageError } from './message.ts'

const schema = z.object({
  version: z.literal(1),
  name: z.string().max(512),
  tag: z.string().refine(isTag),
  digest: z.string().refine(isDigest),
  media_type: z.string().refine(isManifestType),
  size: z.int().min(0).max(manifestLimit),
  /** In ms since the epoch. */
  checked_at: z.int().min(0),
  peer: z.string(),
})

/** What a peer says that a tag was when it asked the registry. */
export type TagRecord = z.output<typeof schema>

/** What is signed begins with this, so that a signature for something else is none for a record. */
const purpose = Buffer.from('shoal-tag:')

/** Of Ed25519, in bytes. */
const signatureLength = 64

export async function signRecord({
  name,
  tag,
  sighting,
  peerId,
  privateKey,
}: {
  readonly name: string
  readonly tag: string
  readonly sighting: Sighting
  readonly peerId: string
  readonly privateKey: PrivateKey
}): Promise<{ record: Uint8Array; signature: Uint8Array }> {
  const { descriptor, at } = sighting
  const record = encode({
    version: 1,
    name,
    tag,
    digest: descriptor.digest,
    media_type: descriptor.mediaType,
    size: descriptor.size,
    checked_at: Math.round(at),
    peer: peerId,
  })
  return { record, signature: await privateKey.sign(Buffer.concat([purpose, record])) }
}

/** @throws MessageError unless the record is whole, and `peer` has signed it */
export async function readRecord(record: Uint8Array, signature: Uint8Array, peer: PeerId): Promise<TagRecord> {
  const parsed = schema.safeParse(decoded(record))
  if (!parsed.success || parsed.data.peer !== peer.toString())
    throw new MessageError('RECORD_INVALID', 'this is no record of that peer')
  const signed =
    signature.length === signatureLength && (await peer.publicKey?.verify(Buffer.concat([purpose, record]), signature))
  if (!signed) throw new MessageError('RECORD_INVALID', 'the record is not signed by that peer')
  return parsed.data
}

function decoded(bytes: Uint8Array): unknown {
  try {
    return decode(bytes, { strict: true, allowIndefinite: false, rejectDuplicateMapKeys: true })
  } catch {
    return undefined
  }
}
