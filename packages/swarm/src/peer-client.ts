import { createSecureContext, type SecureContext } from 'node:tls'
import type { Digest } from '@shoal/oci/digest'
import { SourceError } from '@shoal/store/source'
import { type Certificate, peerTls } from './certificate.ts'
import type { Refusal } from './peer-answer.ts'
import { type PeerAddress, type PeerBody, PeerConnection, type PeerRequest, StaleError } from './peer-connection.ts'

export { PeerViolation } from './peer-answer.ts'
export type { PeerAddress, PeerBody, PeerRequest }

/** What a peer answers: bytes, or why it gives none. */
export type PeerAnswer = PeerBody | Refusal

/** Connections to one peer at once: half of what it takes, as it may not have seen yet that some have ended. */
const connectionsEach = 16

/** Bytes that one read of a connection brings at most. */
const readSize = 64 * 1024

/**
 * Asks peers for blobs, over HTTP/1.1 and mutual TLS: one request at a time on a connection, which is kept for the next.
 * All connections read into the same memory: left to itself, Node allocates some for each read, and that costs more than
 * all the rest of a download.
 */
export class PeerClient {
  readonly #memory = Buffer.allocUnsafeSlow(readSize)
  /** Of each address, also those that do not stand yet. */
  readonly #connections = new Map<string, Set<PeerConnection>>()
  #context: SecureContext
  #closed = false

  constructor({ certificate }: { readonly certificate: Certificate }) {
    this.#context = contextOf(certificate)
  }

  /** Shows another certificate on connections to come. */
  renew(certificate: Certificate): void {
    this.#context = contextOf(certificate)
  }

  /**
   * Asks for a blob; resolves once the head of the answer is there.
   * @param request.connectTimeout until a connection stands, TLS included, in ms
   * @throws SourceError `unreachable` if there is no connection, or another peer is there; `timeout`; `broken` if the
   *   answer ends early, or before its first byte, as it does for who is no member; `limited` if too many requests to
   *   the peer are under way; `failing` if something went wrong there; PeerViolation for an answer that makes no sense;
   *   the signal's reason
   */
  async get(
    address: PeerAddress,
    digest: Digest,
    request: PeerRequest & { connectTimeout: number },
  ): Promise<PeerAnswer> {
    const { signal, connectTimeout } = request
    signal.throwIfAborted()
    const kept = [...(this.#connections.get(keyOf(address)) ?? [])].find(({ idle }) => idle)
    if (kept) {
      try {
        return await kept.ask(digest, request)
      } catch (error) {
        if (!(error instanceof StaleError)) throw error
      }
    }
    const connection = this.#connect(address)
    await connection.opened(connectTimeout, signal)
    return connection.ask(digest, request)
  }

  /** Ends the connections to a peer that nothing comes over now. */
  forget(peerId: string): void {
    for (const [key, connections] of this.#connections)
      if (key.startsWith(`${peerId} `))
        for (const connection of connections)
          if (connection.idle) connection.close(new SourceError('revoked', 'the peer has left'))
  }

  /** Ends all connections, and what comes over them. */
  close(): void {
    this.#closed = true
    const reason = new SourceError('revoked', 'the daemon stops')
    for (const connections of this.#connections.values()) for (const each of connections) each.close(reason)
  }

  #connect(address: PeerAddress): PeerConnection {
    if (this.#closed) throw new SourceError('revoked', 'the daemon stops')
    const key = keyOf(address)
    const connections = this.#connections.get(key) ?? new Set()
    if (connections.size >= connectionsEach)
      throw new SourceError('limited', `${connectionsEach} requests to peer ${address.peerId} are under way`)
    const connection = new PeerConnection(address, this.#context, this.#memory)
    this.#connections.set(key, connections.add(connection))
    connection.onClose(() => {
      connections.delete(connection)
      if (connections.size === 0) this.#connections.delete(key)
    })
    return connection
  }
}

function keyOf({ peerId, host, port }: PeerAddress): string {
  return `${peerId} ${host} ${port}`
}

function contextOf({ cert, key }: Certificate): SecureContext {
  return createSecureContext({ ...peerTls, cert, key })
}
