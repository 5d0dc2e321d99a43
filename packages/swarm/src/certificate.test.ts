import { X509Certificate } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { makePeer, type Oddities, oddCertificate } from '../../../test/transfer-peer.ts'
import { CertificateError, CertificateHolder, peerOf } from './certificate.ts'

const day = 24 * 3_600_000
/** 1.2.3.4, which means nothing. */
const otherExtension = '2a0304'

async function refused(raw: Uint8Array | undefined): Promise<void> {
  try {
    await peerOf(raw)
  } catch (error) {
    assert.instance(error, CertificateError)
    return
  }
  throw new Error('it was believed')
}

test('a certificate tells whose it is', async () => {
  const { peerId, certificate } = await makePeer()
  assert.match(peerId, /^12D3KooW/)
  assert.is(await peerOf(new X509Certificate(certificate.cert).raw), peerId)
  assert.ok(certificate.from < Date.now() - 50 * 60_000)
  assert.ok(certificate.until > Date.now() + 365 * day)
})

test('one that is made by hand, too, and may have an extension that need not be known', async () => {
  const peer = await makePeer()
  for (const oddities of [{}, { more: [{ id: otherExtension }] }])
    assert.is(await peerOf((await oddCertificate(peer, oddities)).raw), peer.peerId)
})

test('one that breaks a rule of the specification is refused', async () => {
  const [peer, other] = [await makePeer(), await makePeer()]
  const now = Date.now()
  const table: Record<string, Oddities> = {
    expired: { from: now - 2 * day, until: now - day },
    'not yet valid': { from: now + day, until: now + 2 * day },
    'claims the key of another': { claims: other },
    'has no extension': { without: true },
    'has another extension only': { without: true, more: [{ id: otherExtension }] },
    'has an extension that must be known': { more: [{ id: otherExtension, critical: true }] },
    'has the extension twice': { more: [{ id: '2b0601040183a25a0101', critical: true }] },
    'has an extension that is nonsense': { without: true, more: [{ id: '2b0601040183a25a0101' }] },
    'has a unique id': { uniqueId: true },
    'is not signed by itself': { torn: true },
  }
  for (const [what, oddities] of Object.entries(table)) {
    const { raw } = await oddCertificate(peer, oddities)
    await refused(raw).catch(({ message }) => assert.unreachable(`one that ${what}: ${message}`))
  }
})

test('none, two, a part of one, and garbage are refused', async () => {
  const { raw } = await oddCertificate(await makePeer())
  await refused(undefined)
  await refused(Buffer.alloc(0))
  await refused(Buffer.concat([raw, raw]))
  await refused(Buffer.concat([raw, Buffer.from([0])]))
  for (let length = 1; length < raw.length; length += 13) await refused(raw.subarray(0, length))
  for (let at = 0; at < raw.length; at += 7) {
    const bent = Buffer.from(raw)
    bent[at]! ^= 0xff
    await refused(bent)
  }
  await refused(Buffer.from('308080808080', 'hex'))
  await refused(Buffer.from('3084ffffffff', 'hex'))
})

test('a certificate is made anew before it ends, and when the clock is set to before it began', async () => {
  const { privateKey } = await makePeer()
  let now = Date.now()
  const holder = await CertificateHolder.make(privateKey, () => now)
  try {
    const renewed: string[] = []
    holder.onRenewed(({ cert }) => renewed.push(cert))
    const first = holder.current
    await holder.check()
    assert.is(holder.current, first)
    now = first.until - 29 * day
    await holder.check()
    const second = holder.current
    assert.is.not(second, first)
    now = second.from - 1
    await holder.check()
    assert.is.not(holder.current, second)
    assert.equal(renewed, [second.cert, holder.current.cert])
  } finally {
    holder.close()
  }
})

test.run()
