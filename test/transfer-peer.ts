import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { digestOf } from '@shoal/oci/digest'
import { nodeDisk } from '@shoal/store/disk'
import type { HeldBlob } from '@shoal/store/store'
import { type Certificate, makeCertificate } from '../packages/swarm/src/certificate.ts'
import { type Identity, loadIdentity } from '../packages/swarm/src/identity.ts'

/** A peer as its transfers see it. */
export async function makePeer(): Promise<Identity & { certificate: Certificate }> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-peer-'))
  try {
    const identity = await loadIdentity(folder, nodeDisk)
    return { ...identity, certificate: await makeCertificate(identity.privateKey) }
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** A blob that is held, in memory. `pieces` waits before each read. */
export function heldBlob(bytes: Buffer, before: () => Promise<void> | undefined = () => undefined): HeldBlob {
  return {
    digest: digestOf(bytes),
    size: bytes.length,
    read({ start, end }) {
      let at = start
      let cancelled = false
      return {
        async read(buffer) {
          await before()
          if (cancelled) throw new Error('cancelled')
          const count = bytes.copy(buffer, 0, at, Math.min(end, at + buffer.length))
          at += count
          return count
        },
        cancel() {
          cancelled = true
        },
        close() {},
      }
    },
    close() {},
  }
}

type Extension = { readonly id: string; readonly critical?: boolean; readonly value?: Buffer }

/** What is odd about a certificate. */
export type Oddities = {
  /** In ms since the epoch. */
  readonly from?: number
  readonly until?: number
  /** OIDs in hex. */
  readonly more?: readonly Extension[]
  readonly without?: boolean
  readonly uniqueId?: boolean
  /** Whose key is claimed. @default that of the signer */
  readonly claims?: Identity
  /** Whether its own signature is wrong. */
  readonly torn?: boolean
}

/** A certificate with the libp2p extension, made by hand, so that it can be wrong in any way. `raw` is DER. */
export async function oddCertificate(
  { privateKey }: Identity,
  { from = Date.now() - 1000, until = Date.now() + 3_600_000, more = [], ...odd }: Oddities = {},
): Promise<Certificate & { raw: Buffer }> {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = pair.publicKey.export({ type: 'spki', format: 'der' })
  const signature = await privateKey.sign(Buffer.concat([Buffer.from('libp2p-tls-handshake:'), spki]))
  const claimed = (odd.claims?.privateKey ?? privateKey).publicKey.raw
  const signedKey = der(0x30, der(0x04, Buffer.from('08011220', 'hex'), claimed), der(0x04, signature))
  const own: Extension[] = odd.without ? [] : [{ id: '2b0601040183a25a0101', critical: true, value: signedKey }]
  const extensions = [...own, ...more].map(({ id, critical = false, value = Buffer.from([5, 0]) }) =>
    der(
      0x30,
      der(0x06, Buffer.from(id, 'hex')),
      ...(critical ? [der(0x01, Buffer.from([0xff]))] : []),
      der(0x04, value),
    ),
  )
  const algorithm = der(0x30, der(0x06, Buffer.from('2a8648ce3d040302', 'hex')))
  const nobody = der(0x30)
  const signed = der(
    0x30,
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([1]), randomBytes(6)),
    algorithm,
    nobody,
    der(0x30, utcTime(from), utcTime(until)),
    nobody,
    spki,
    ...(odd.uniqueId ? [der(0x81, Buffer.from([0, 1]))] : []),
    der(0xa3, der(0x30, ...extensions)),
  )
  const proof = sign('sha256', odd.torn ? Buffer.from('else') : signed, pair.privateKey)
  const raw = der(0x30, signed, algorithm, der(0x03, Buffer.from([0]), proof))
  const cert = `-----BEGIN CERTIFICATE-----\n${raw.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`
  const key = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  return { cert, key, from, until, raw }
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  const header = length < 128 ? [tag, length] : [tag, 0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.from(header), content])
}

function utcTime(at: number): Buffer {
  return der(
    0x17,
    Buffer.from(
      `${new Date(at)
        .toISOString()
        .replace(/[-:T]|\..*/g, '')
        .slice(2)}Z`,
    ),
  )
}
