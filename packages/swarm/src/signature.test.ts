import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { isSignedBy, signerOf } from './signature.ts'

const key = await generateKeyPair('Ed25519')
const peerId = peerIdFromPrivateKey(key).toString()
const said = Buffer.from('shoal-chunks:sha256:… 131072 0 …')

test('what a peer has signed is known by its id alone, as libp2p signs it too', async () => {
  const signature = signerOf(key)(said)
  assert.is(signature.length, 64)
  assert.ok(isSignedBy(peerId, said, signature))
  assert.equal(Buffer.from(signature), Buffer.from(await key.sign(said)))
})

test('other bytes, another peer or another signature are found out', async () => {
  const signature = signerOf(key)(said)
  const other = await generateKeyPair('Ed25519')
  assert.not(isSignedBy(peerId, Buffer.concat([said, said]), signature))
  assert.not(isSignedBy(peerIdFromPrivateKey(other).toString(), said, signature))
  assert.not(isSignedBy(peerId, said, signerOf(other)(said)))
  for (const at of [0, 31, 32, 63]) {
    const wrong = Uint8Array.from(signature)
    wrong[at]! ^= 1
    assert.not(isSignedBy(peerId, said, wrong))
  }
  for (const length of [0, 63]) assert.not(isSignedBy(peerId, said, signature.subarray(0, length)))
})

test('ids that hold no such key have signed nothing', async () => {
  const signature = signerOf(key)(said)
  const secp = peerIdFromPrivateKey(await generateKeyPair('secp256k1')).toString()
  for (const id of [secp, '', 'nobody', `${peerId}x`]) assert.not(isSignedBy(id, said, signature), id)
})

test('more peers than are remembered are known all the same', async () => {
  const others = await Promise.all(Array.from({ length: 600 }, () => generateKeyPair('Ed25519')))
  for (const other of others) assert.ok(isSignedBy(peerIdFromPrivateKey(other).toString(), said, signerOf(other)(said)))
  assert.ok(isSignedBy(peerId, said, signerOf(key)(said)))
})

test.run()
