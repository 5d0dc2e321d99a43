import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { generateKeyPairFromSeed, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { digestOf, hexOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makeCertificate } from './certificate.ts'
import { prefixesOf } from './digest-prefix.ts'
import { markOf } from './discovery/announcement.ts'
import { limitKey } from './limit-key.ts'
import { encodeMessage, type Message } from './message.ts'
import { networkOf, openNetwork } from './network.ts'
import { lengthPrefix } from './session.ts'
import { signerOf } from './signature.ts'
import { bytesToSign } from './spread/chunk-hashes.ts'
import { signRecord } from './tag-record.ts'

/** 0, 1, 2 and so on. */
const counting = (length: number) => Uint8Array.from({ length }, (_, index) => index)
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const base64url = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url')

const privateKey = await generateKeyPairFromSeed('Ed25519', counting(32))
const peerId = peerIdFromPrivateKey(privateKey).toString()
const empty = digestOf(new Uint8Array())
const hello: Message = {
  t: 'hello',
  versions: [1],
  features: [],
  swarm_port: 3476,
  transfer_port: 3477,
  name: 'desk',
  uploads: true,
}
const change: Message = {
  t: 'holdings',
  seq: 2,
  reset: false,
  more: false,
  add: prefixesOf([empty]),
  remove: new Uint8Array(),
}

const limit: Message = {
  t: 'limit',
  key: limitKey('registry-1.docker.io', '192.0.2.1'),
  limit: 100,
  remaining: 9,
  window: 21_600,
  age: 40,
}

const popular: Message = {
  t: 'popular',
  at: 1_750_000_000_000,
  rows: [['docker.io/library/alpine:latest', 185_219]],
}

const ask: Message = {
  t: 'ask',
  digest: empty,
  n: 1,
  size: 3_000_000,
  chunk: 0,
  epoch: 0,
  want: [],
  gives: true,
  line: true,
  why: 'new',
}

/** What is said by who has fetched the first of 12 chunks. */
function have(): Message {
  const batch = { first: 0, hashes: [hexOf(empty)] }
  const chunk = 262_144
  const signature = signerOf(privateKey)(bytesToSign(empty, chunk, batch))
  return {
    t: 'have',
    digest: empty,
    size: 3_000_000,
    chunk,
    first: true,
    add: [[0, 1]],
    hashes: [{ author: peerId, ...batch, signature }],
    gives: true,
    epoch: 1,
    claim: [[1, 12]],
    handing: true,
  }
}

/** The examples of docs/protocol.md by their names, without spaces and what is said of them after a `#`. */
async function examplesOfPage(): Promise<Record<string, string>> {
  const page = await readFile(new URL('../../../docs/protocol.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split('\n## Examples\n')
  const examples: Record<string, string> = {}
  let name = ''
  for (const [, block = ''] of section.matchAll(/^```\n(.*?)^```$/gms))
    for (const [, label = name, value = ''] of block.matchAll(/^(\S+(?: \S+)*)? {2,}([^#\n]+)/gm)) {
      name = label
      examples[name] = (examples[name] ?? '') + value.replaceAll(' ', '')
    }
  return examples
}

function frameOf(message: Message): string {
  const bytes = encodeMessage(message)
  return hex(lengthPrefix(bytes.length)) + hex(bytes)
}

/** The libp2p extension as it stands in a certificate, without its signature: that is of another key each time. */
async function extension(): Promise<string> {
  const der = hex(new X509Certificate((await makeCertificate(privateKey)).cert).raw)
  const begin = der.indexOf('307b060a2b06010401')
  assert.ok(begin >= 0)
  return der.slice(begin, begin + 2 * (2 + 0x7b - 64))
}

test('the examples of docs/protocol.md are what the code makes', async () => {
  const checksum = Buffer.from(hexOf(digestOf(counting(32))).slice(0, 8), 'hex')
  const token = `shoal-${base64url(Buffer.concat([counting(32), checksum]))}`
  const network = networkOf(token)
  const [, , psk = ''] = String(network.psk).split('\n')
  const descriptor = { mediaType: mediaTypes.ociIndex, digest: empty, size: 0 }
  const { record, signature } = await signRecord({
    name: 'docker.io/library/alpine',
    tag: 'latest',
    sighting: { descriptor, at: 1_750_000_000_000, from: 'registry-1.docker.io', visibility: 'public' },
    peerId,
    privateKey,
  })
  const made = {
    'peer.key': Buffer.from(privateKeyToProtobuf(privateKey)).toString('base64'),
    'peer id': peerId,
    extension: await extension(),
    token,
    psk,
    'mark key': hex(network.markKey),
    fingerprint: network.name.slice('private:'.length),
    mark: base64url(markOf(network.markKey, peerId, counting(8))),
    'open mark key': hex(openNetwork.markKey),
    'open mark': base64url(markOf(openNetwork.markKey, peerId, counting(8))),
    digest: empty,
    prefix: hex(prefixesOf([empty])),
    hello: frameOf(hello),
    holdings: frameOf(change),
    'limit key': hex(limit.key),
    limit: frameOf(limit),
    popular: frameOf(popular),
    ask: frameOf(ask),
    have: frameOf(have()),
    record: hex(record),
    signature: hex(signature),
  }
  assert.equal(await examplesOfPage(), made)
})

test.run()
