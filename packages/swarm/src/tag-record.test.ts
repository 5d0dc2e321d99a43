import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import type { Sighting } from '@shoal/store/refs'
import { decode, encode } from 'cborg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makePeer } from '../../../test/transfer-peer.ts'
import { MessageError } from './message.ts'
import { readRecord, signRecord } from './tag-record.ts'

const [signer, other] = [await makePeer(), await makePeer()]
const [signerId, otherId] = [peerIdFromPrivateKey(signer.privateKey), peerIdFromPrivateKey(other.privateKey)]

const sighting: Sighting = {
  descriptor: { mediaType: mediaTypes.ociIndex, digest: digestOf(Buffer.from('index')), size: 4321 },
  at: 1_750_000_000_000.4,
  from: 'registry-1.docker.io',
  visibility: 'public',
}

const sign = ({ peerId, privateKey } = signer) =>
  signRecord({ name: 'docker.io/library/nginx', tag: '1.27', sighting, peerId, privateKey })

/** A record with other fields, signed as it should be. */
async function signedWith(fields: Record<string, unknown>): Promise<{ record: Uint8Array; signature: Uint8Array }> {
  const { record } = await sign()
  return signedAs(encode({ ...(decode(record) as object), ...fields }))
}

async function signedAs(record: Uint8Array): Promise<{ record: Uint8Array; signature: Uint8Array }> {
  const purpose = Buffer.from('shoal-tag:')
  return { record, signature: await signer.privateKey.sign(Buffer.concat([purpose, record])) }
}

async function refused(record: Uint8Array, signature: Uint8Array, what: string, by = signerId): Promise<void> {
  const error = await readRecord(record, signature, by).catch((error: unknown) => error)
  assert.instance(error, MessageError, what)
  assert.is((error as MessageError).code, 'RECORD_INVALID', what)
}

test('what is signed is read again, by the names of the protocol', async () => {
  const { record, signature } = await sign()
  assert.is(signature.length, 64)
  const expected = {
    version: 1,
    name: 'docker.io/library/nginx',
    tag: '1.27',
    digest: sighting.descriptor.digest,
    media_type: mediaTypes.ociIndex,
    size: 4321,
    checked_at: 1_750_000_000_000,
    peer: signer.peerId,
  }
  assert.equal(decode(record), expected)
  assert.equal(await readRecord(record, signature, signerId), expected)
})

test('a record that says what it should, and is signed by hand as the protocol says, is believed', async () => {
  const { record, signature } = await signedWith({})
  assert.is((await readRecord(record, signature, signerId)).tag, '1.27')
})

test('a record of which any byte was changed is refused', async () => {
  const { record, signature } = await sign()
  for (let index = 0; index < record.length; index++) {
    const changed = Uint8Array.from(record)
    changed[index]! ^= 1
    await refused(changed, signature, `byte ${index}`)
  }
})

test('a signature that was changed, cut, or is none is refused', async () => {
  const { record, signature } = await sign()
  const changed = Uint8Array.from(signature)
  changed[5]! ^= 1
  for (const wrong of [changed, signature.subarray(1), new Uint8Array(64), new Uint8Array()])
    await refused(record, wrong, `${wrong.length} bytes`)
})

test('a record that another has signed, or that is another’s, is refused', async () => {
  const { record, signature } = await sign()
  await refused(record, signature, 'handed on by another', otherId)
  const forged = await signRecord({
    name: 'docker.io/library/nginx',
    tag: '1.27',
    sighting,
    peerId: signer.peerId,
    privateKey: other.privateKey,
  })
  await refused(forged.record, forged.signature, 'in the name of another')
  await refused(forged.record, forged.signature, 'in the name of another, and handed on', otherId)
})

test('what was signed for something else is no record', async () => {
  const { record } = await sign()
  await refused(record, await signer.privateKey.sign(record), 'without its purpose')
  const purpose = Buffer.from('libp2p-tls-handshake:')
  await refused(record, await signer.privateKey.sign(Buffer.concat([purpose, record])), 'with another')
})

const wrong: Record<string, Record<string, unknown>> = {
  'another version': { version: 2 },
  'no tag': { tag: 'a/b' },
  'an empty tag': { tag: '' },
  'a tag that is too long': { tag: 'x'.repeat(129) },
  'a name that is too long': { name: 'x'.repeat(513) },
  'no digest': { digest: 'sha256:00' },
  'a digest that is not of this kind': { digest: `md5:${'0'.repeat(32)}` },
  'a media type that is no manifest’s': { media_type: 'text/html' },
  'a size that no manifest has': { size: 4 * 1024 * 1024 + 1 },
  'a size below nothing': { size: -1 },
  'a size that is a fraction': { size: 1.5 },
  'a time before all time': { checked_at: -1 },
  'a time that is a text': { checked_at: '2025-06-15' },
}
for (const [what, fields] of Object.entries(wrong))
  test(`a record with ${what} is refused`, async () => {
    const { record, signature } = await signedWith(fields)
    await refused(record, signature, what)
  })

test('a record that lacks a field is refused, and one that has more is read', async () => {
  const { record } = await sign()
  const { checked_at: _, ...less } = decode(record) as Record<string, unknown>
  const cut = await signedAs(encode(less))
  await refused(cut.record, cut.signature, 'checked_at is missing')
  const more = await signedWith({ later: 'version' })
  assert.not('later' in (await readRecord(more.record, more.signature, signerId)))
})

test('what is no CBOR, no map, or more than one is refused', async () => {
  const { record } = await sign()
  const odd = [
    new Uint8Array(),
    Buffer.from('nonsense'),
    encode([1]),
    encode(null),
    Buffer.concat([record, record]),
    // A map of indefinite length, and one that says a thing twice.
    Buffer.concat([Buffer.from([0xbf]), record.subarray(1), Buffer.from([0xff])]),
    Buffer.concat([Buffer.from([record[0]! + 1]), record.subarray(1), encode('tag'), encode('2')]),
  ]
  for (const [index, bytes] of odd.entries()) {
    const { signature } = await signedAs(bytes)
    await refused(bytes, signature, `case ${index}`)
  }
})

test.run()
