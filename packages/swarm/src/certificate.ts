import { hash, X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import type { PrivateKey } from '@libp2p/interface'
import { generateCertificate, verifyPeerCertificate } from '@libp2p/tls/utils'

/** Thrown for a certificate that says nothing of who sent it, or cannot be believed. */
export class CertificateError extends Error {
  readonly code = 'CERTIFICATE'
}

/** A certificate that carries a libp2p identity, and its key, PEM; others take it `from`, `until`, ms since the epoch. */
export type Certificate = {
  readonly cert: string
  readonly key: string
  readonly from: number
  readonly until: number
}

/** Makes a certificate with a key of its own, valid from an hour ago for 100 years. */
export async function makeCertificate(privateKey: PrivateKey): Promise<Certificate> {
  const { cert, key } = await generateCertificate(privateKey)
  const { validFromDate, validToDate } = new X509Certificate(cert)
  return { cert, key, from: validFromDate.getTime(), until: validToDate.getTime() }
}

/** How often it is looked whether a certificate is still good, in ms. */
const checkEvery = 3_600_000

/** How long before its end a certificate is made anew, in ms. */
const margin = 30 * 24 * 3_600_000

/** The certificate that this machine shows, made anew when others would take it no longer. */
export class CertificateHolder {
  readonly privateKey: PrivateKey
  readonly #clock: () => number
  readonly #timer: NodeJS.Timeout
  #current: Certificate
  #onRenewed: ((certificate: Certificate) => void) | undefined

  /** @param clock in ms since the epoch */
  static async make(privateKey: PrivateKey, clock: () => number = Date.now): Promise<CertificateHolder> {
    return new CertificateHolder(privateKey, clock, await makeCertificate(privateKey))
  }

  private constructor(privateKey: PrivateKey, clock: () => number, certificate: Certificate) {
    this.privateKey = privateKey
    this.#clock = clock
    this.#current = certificate
    this.#timer = setInterval(() => void this.check(), checkEvery).unref()
  }

  get current(): Certificate {
    return this.#current
  }

  onRenewed(renewed: (certificate: Certificate) => void): void {
    this.#onRenewed = renewed
  }

  /** Makes the certificate anew if that is due; called from time to time. */
  async check(): Promise<void> {
    const now = this.#clock()
    // Its beginning lies ahead if this machine's clock was, when it was made.
    if (now >= this.#current.from && now < this.#current.until - margin) return
    this.#current = await makeCertificate(this.privateKey)
    this.#onRenewed?.(this.#current)
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

/**
 * Certificates that were looked at lately, by their SHA-256, with whose they are, and until when, in ms: to look costs more
 * than the rest of a handshake, and peers make many connections.
 */
const believed = new Map<string, { readonly peer: string; readonly until: number }>()
const mostBelieved = 1024
const believedFor = 600_000

/**
 * The peer whose identity a certificate carries (libp2p specs, tls/tls.md, "Peer Authentication"). That who sent it has
 * the certificate's key, the TLS handshake proves.
 * @param raw DER; empty if none was sent, as Node has it
 * @throws CertificateError
 */
export async function peerOf(raw: Uint8Array | undefined): Promise<string> {
  if (!raw || raw.length === 0) throw new CertificateError('no certificate was sent')
  const key = hash('sha256', raw, 'base64')
  const known = believed.get(key)
  if (known && performance.now() < known.until) return known.peer
  try {
    checkForm(raw)
    const peer = (await verifyPeerCertificate(raw)).toString()
    if (believed.size === mostBelieved) believed.clear()
    believed.set(key, { peer, until: performance.now() + believedFor })
    return peer
  } catch (error) {
    if (error instanceof CertificateError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    throw new CertificateError(`the certificate cannot be believed: ${reason}`, { cause: error })
  }
}

/**
 * The peer at the other end of a connection whose handshake is done.
 * @throws CertificateError
 */
export async function peerAt(socket: TLSSocket): Promise<string> {
  // Node takes a resumed session for authorised, with no certificate at all (https://github.com/nodejs/node/issues/35317).
  if (socket.isSessionReused()) throw new CertificateError('the session is not a new one')
  const { raw, issuerCertificate: issuer } = socket.getPeerCertificate(true)
  // Node shows no other certificates than issuers; a self-signed one is its own.
  if (issuer && raw && !issuer.raw.equals(raw)) throw new CertificateError('more than one certificate was sent')
  return peerOf(raw)
}

/** What TLS between peers is, on both sides. AES-128 is the fastest where the processor knows AES. */
export const peerTls = {
  minVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256',
  ecdhCurve: 'X25519:P-256',
} as const

/** 1.3.6.1.4.1.53594.1.1, DER. */
const ownExtension = '2b0601040183a25a0101'

const tags = { boolean: 0x01, sequence: 0x30, uniqueIds: [0x81, 0x82, 0xa1, 0xa2], extensions: 0xa3 }

/** What the specification asks for beside what `verifyPeerCertificate` looks at. */
function checkForm(raw: Uint8Array): void {
  const [certificate, ...more] = elements(raw)
  if (!certificate || more.length > 0) throw new CertificateError('there must be one certificate, and nothing else')
  const [signed] = elements(certificate.content)
  let own = 0
  for (const { tag, content } of elements(signed?.content ?? new Uint8Array())) {
    if (tags.uniqueIds.includes(tag)) throw new CertificateError('the certificate has unique ids, which are deprecated')
    if (tag !== tags.extensions) continue
    for (const extension of elements(elements(content)[0]?.content ?? new Uint8Array())) {
      const [id, critical] = elements(extension.content)
      if (id && Buffer.from(id.content).toString('hex') === ownExtension) own++
      else if (critical?.tag === tags.boolean && critical.content[0] !== 0)
        throw new CertificateError('the certificate has a critical extension that is not known')
    }
  }
  if (own !== 1) throw new CertificateError('the certificate must have the libp2p extension, once')
}

/** The elements of DER that follow each other (ITU-T X.690, 8.1). @throws CertificateError */
function elements(der: Uint8Array): { tag: number; content: Uint8Array }[] {
  const found: { tag: number; content: Uint8Array }[] = []
  for (let at = 0; at < der.length; ) {
    const tag = der[at++]!
    let length = der[at++] ?? Number.NaN
    if (length > 0x80) {
      let octets = length - 0x80
      for (length = 0; octets > 0; octets--) length = length * 256 + (der[at++] ?? Number.NaN)
    }
    if (!(at + length <= der.length)) throw new CertificateError('the certificate is cut short')
    found.push({ tag, content: der.subarray(at, at + length) })
    at += length
  }
  return found
}
