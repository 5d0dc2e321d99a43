import { hash } from 'node:crypto'
import type { ByteRange } from '@shoal/oci/byte-range'
import { type Digest, DigestHasher } from '@shoal/oci/digest'
import { fill, type Reader } from '@shoal/store/reader'
import { SourceError } from '@shoal/store/source'
import type { HeldBlob } from '@shoal/store/store'
import { type DigestPrefix, prefixLength, prefixOf, readPrefix } from './digest-prefix.ts'
import { type PeerBody, PeerViolation } from './peer-client.ts'
import type { Holder, PeersContext } from './peers-source.ts'
import type { Provider } from './provider.ts'

/** How long a peer that has proved it is taken to hold a blob, in ms. */
const proofTime = 6 * 3600 * 1000

/** Bytes that a peer is asked for, at a place that it cannot know before. */
const challengeLength = 64

/** Copies of a blob that are had proved: of more it does not matter much how many. */
const enough = 3

/** Peers that are asked at once, one question at a time, and questions to one of them each time. */
const peersAtOnce = 4
const mostEach = 128

/** How a peer is waited for, in ms. */
const patience = { connectTimeout: 1000, answerTimeout: 1000, silenceTimeout: 1000 }

/** Proofs that are kept, of all peers together: some 5 MB. */
const mostProofs = 65_536

/** Read at once of this machine's own copy, in bytes. */
const pieceSize = 512 * 1024

export type ReplicasOptions = Pick<
  PeersContext,
  'holders' | 'client' | 'lacks' | 'suspect' | 'ban' | 'now' | 'random'
> & {
  /** This machine's peer id. */
  readonly self: string
  /** A blob that this machine holds. */
  readonly open: (digest: Digest) => Promise<HeldBlob | undefined>
}

type Blob = { readonly digest: Digest; readonly size: number }

/** A question under way. */
type Challenge = { readonly digest: Digest; readonly range: ByteRange; known: boolean }

/**
 * Which of the blobs that this machine holds other machines hold as well: not as they say, but as they have proved, by
 * having given all of it lately, or some bytes of it when they were asked. A proof ends with its time, and when the peer
 * leaves, says that it has the blob no longer, or turns out to lack it. Who gives nothing just now counts for nothing.
 */
export class Replicas {
  readonly #options: ReplicasOptions
  /** Until when a proof holds, in ms: of each peer, by what of a digest is announced. */
  readonly #proofs = new Map<string, Map<number, number>>()
  #size = 0
  /** What the ranks of each machine are made from. */
  readonly #seeds = new Map<string, number>()
  /** Peers that are being asked. */
  readonly #asked = new Set<string>()
  readonly #challenges = new Set<Challenge>()
  /** What peers are being given. */
  readonly #given = new Set<{ readonly digest: Digest; readonly range: ByteRange }>()

  constructor(options: ReplicasOptions) {
    this.#options = options
  }

  /** How many other machines have proved that they hold a blob. */
  copies(digest: Digest): number {
    return this.#proved(digest).length
  }

  /** How many say so. */
  claimed(digest: Digest): number {
    return this.#options.holders(digest).length
  }

  /**
   * Whether this machine is the one to keep a blob, of those that hold it: so that not all of them drop it at once, because
   * the others have it. The first of all in the order that all know alike keeps it, whatever it knows of the others.
   */
  keeps(digest: Digest): boolean {
    const { self } = this.#options
    const others = this.#proved(digest)
    if (others.length === 0) return true
    const prefix = prefixOf(digest)
    const own = rankOf(prefix, this.#seedOf(self))
    return others.every(other => {
      const rank = rankOf(prefix, this.#seedOf(other))
      return own > rank || (own === rank && self < other)
    })
  }

  /** A peer has given all of a blob. If it turns out not to be that blob, the peer is banned. */
  gaveAll(peer: string, digest: Digest): void {
    this.#prove(peer, digest)
  }

  /** A peer says that it has something no longer. @param bytes prefixes, one after another */
  removed(peer: string, bytes: Uint8Array): void {
    const proofs = this.#proofs.get(peer)
    if (!proofs) return
    for (let offset = 0; offset + prefixLength <= bytes.length; offset += prefixLength)
      if (proofs.delete(keyOf(readPrefix(bytes, offset)))) this.#size--
  }

  /** A peer has been asked for a blob, and has none. */
  lacks(peer: string, digest: Digest): void {
    if (this.#proofs.get(peer)?.delete(keyOf(prefixOf(digest)))) this.#size--
  }

  forget(peer: string): void {
    this.#size -= this.#proofs.get(peer)?.size ?? 0
    this.#proofs.delete(peer)
    this.#seeds.delete(peer)
  }

  /** What of a blob that peers are given is known to them: nobody proves anything by saying it again. */
  watch(blob: HeldBlob): HeldBlob {
    const { digest, size } = blob
    return {
      digest,
      size,
      read: range => this.#watched(digest, range, blob.read(range)),
      close: () => blob.close(),
    }
  }

  /**
   * Asks some of those who say that they hold these blobs, and have not proved it, for a few bytes of each. Who is busy or
   * gives nothing is left alone, and so is the rest of a peer's questions once it does not answer.
   * @throws the reason of `signal`
   */
  async prove(blobs: Iterable<Blob>, signal: AbortSignal): Promise<void> {
    const queues = new Map<Provider, { holder: Holder; blobs: Blob[] }>()
    for (const blob of blobs)
      for (const holder of this.#toAsk(blob)) {
        const queue = queues.get(holder.provider) ?? { holder, blobs: [] }
        if (queue.blobs.length < mostEach) queue.blobs.push(blob)
        queues.set(holder.provider, queue)
      }
    const waiting = [...queues.values()]
    const work = async () => {
      for (let next = waiting.shift(); next; next = waiting.shift()) await this.#askAll(next.holder, next.blobs, signal)
    }
    await Promise.all(Array.from({ length: peersAtOnce }, work))
    signal.throwIfAborted()
  }

  /** Whom to ask about a blob. */
  #toAsk({ digest, size }: Blob): Holder[] {
    const { holders, random } = this.#options
    if (size === 0) return []
    const proved = this.#proved(digest)
    const missing = enough - proved.length
    return holders(digest)
      .filter(({ provider }) => provider.fit && !provider.busy && !proved.includes(provider.id))
      .map(holder => ({ holder, order: random() }))
      .sort((a, b) => a.order - b.order)
      .slice(0, Math.max(0, missing))
      .map(({ holder }) => holder)
  }

  async #askAll(holder: Holder, blobs: readonly Blob[], signal: AbortSignal): Promise<void> {
    const { provider } = holder
    if (this.#asked.has(provider.id)) return
    this.#asked.add(provider.id)
    try {
      for (const { digest } of blobs) {
        if (signal.aborted || !provider.fit || provider.busy) return
        await this.#challenge(holder, digest, signal)
      }
    } finally {
      this.#asked.delete(provider.id)
    }
  }

  async #challenge({ provider, address }: Holder, digest: Digest, signal: AbortSignal): Promise<void> {
    const { client, open, random, lacks, suspect, ban } = this.#options
    const blob = await open(digest)
    if (!blob) return
    const length = Math.min(challengeLength, blob.size)
    const start = Math.floor(random() * (blob.size - length + 1))
    const range = { start, end: start + length }
    const challenge = this.#begin(digest, range)
    try {
      const expected = await readAll(blob, range)
      // What this machine cannot read itself, the store has noticed by now.
      if (!expected) return
      const answer = await client.get({ peerId: provider.id, ...address }, digest, { range, ...patience, signal })
      if (answer.status === 503) {
        if (answer.refusal === 'busy') provider.wasBusy()
        else provider.willing = false
      } else if (answer.status === 404 || answer.status === 416) lacks(provider, digest)
      else if (await isRight(answer, blob.size, expected)) {
        if (!challenge.known) this.#prove(provider.id, digest)
      } else {
        lacks(provider, digest)
        // Or it is this machine's own disk that rots.
        if (await isSound(blob, signal)) ban(provider, `gave other bytes than those of ${digest}`)
      }
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof SourceError)) throw error
      if (error instanceof PeerViolation) ban(provider, error.message)
      else if (error.code !== 'revoked' && error.code !== 'limited') {
        provider.failed()
        suspect(provider)
      }
    } finally {
      this.#challenges.delete(challenge)
      blob.close()
    }
  }

  #begin(digest: Digest, range: ByteRange): Challenge {
    const challenge: Challenge = { digest, range, known: false }
    for (const given of this.#given) if (tells(given, challenge)) challenge.known = true
    this.#challenges.add(challenge)
    return challenge
  }

  #watched(digest: Digest, range: ByteRange, reader: Reader): Reader {
    const given = { digest, range }
    this.#given.add(given)
    for (const challenge of this.#challenges) if (tells(given, challenge)) challenge.known = true
    return {
      read: buffer => reader.read(buffer),
      cancel: () => reader.cancel(),
      close: () => {
        this.#given.delete(given)
        reader.close()
      },
    }
  }

  #seedOf(peer: string): number {
    let seed = this.#seeds.get(peer)
    if (seed === undefined) this.#seeds.set(peer, (seed = hash('sha256', peer, 'buffer').readUInt32BE(0)))
    return seed
  }

  /** The peers whose proofs count. */
  #proved(digest: Digest): string[] {
    if (this.#size === 0) return []
    const key = keyOf(prefixOf(digest))
    const now = this.#options.now()
    return this.#options.holders(digest).flatMap(({ provider: { id, willing, disbelieved } }) => {
      const until = this.#proofs.get(id)?.get(key)
      return until !== undefined && until > now && willing && !disbelieved ? [id] : []
    })
  }

  #prove(peer: string, digest: Digest): void {
    const key = keyOf(prefixOf(digest))
    const proofs = this.#proofs.get(peer) ?? new Map<number, number>()
    this.#proofs.set(peer, proofs)
    // The oldest comes first.
    if (!proofs.delete(key)) this.#size++
    proofs.set(key, this.#options.now() + proofTime)
    if (this.#size > mostProofs) this.#forgetOldest()
  }

  #forgetOldest(): void {
    const now = this.#options.now()
    let most: Map<number, number> | undefined
    for (const proofs of this.#proofs.values()) {
      for (const [key, until] of proofs) {
        if (until > now) break
        proofs.delete(key)
        this.#size--
      }
      if (proofs.size > (most?.size ?? 0)) most = proofs
    }
    // Some at a time, of whom there are most: to look for them costs more than they.
    for (const key of most?.keys() ?? []) {
      if (this.#size <= mostProofs * 0.9) return
      if (most?.delete(key)) this.#size--
    }
  }
}

/**
 * Where a machine stands among those who hold a blob (rendezvous hashing), the same on all machines; docs/protocol.md. It
 * is looked at for every blob that might go, so that it has to be quick.
 */
function rankOf({ high, low }: DigestPrefix, seed: number): number {
  let mixed = Math.imul(high ^ seed, 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 15) ^ low, 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

/** 53 bits of a prefix: as many as a number has. */
function keyOf({ high, low }: DigestPrefix): number {
  return high * 2 ** 21 + (low >>> 11)
}

function tells(given: { readonly digest: Digest; readonly range: ByteRange }, { digest, range }: Challenge): boolean {
  return given.digest === digest && given.range.start < range.end && range.start < given.range.end
}

/** @returns undefined if it cannot be read */
async function readAll(blob: HeldBlob, range: ByteRange): Promise<Buffer | undefined> {
  const bytes = Buffer.alloc(range.end - range.start)
  const reader = blob.read(range)
  try {
    return (await fill(bytes, reader)) === bytes.length ? bytes : undefined
  } catch {
    return undefined
  } finally {
    reader.close()
  }
}

async function isRight(body: PeerBody, size: number, expected: Buffer): Promise<boolean> {
  if (body.size !== size || body.length !== expected.length) {
    body.abort()
    return false
  }
  const bytes = Buffer.alloc(expected.length)
  let count = 0
  await body.pipe(piece => {
    bytes.set(piece, count)
    count += piece.length
    return undefined
  })
  return count === bytes.length && bytes.equals(expected)
}

/** Whether a blob can be read, and has the bytes of its digest. */
async function isSound(blob: HeldBlob, signal: AbortSignal): Promise<boolean> {
  const hasher = new DigestHasher(blob.digest)
  const buffer = Buffer.allocUnsafeSlow(pieceSize)
  const reader = blob.read({ start: 0, end: blob.size })
  try {
    for (let count: number; (count = await reader.read(buffer)) > 0; ) {
      if (signal.aborted) return false
      hasher.update(buffer.subarray(0, count))
    }
    return hasher.matches()
  } catch {
    return false
  } finally {
    reader.close()
  }
}
