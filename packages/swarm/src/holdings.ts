import type { Digest } from '@shoal/oci/digest'
import { prefixLength, prefixOf, readPrefix } from './digest-prefix.ts'
import { type PrefixHash, PrefixSet, seededHash } from './prefix-set.ts'

/** Prefixes kept of one peer, and in all; more are ignored. */
export const mostOfPeer = 200_000
export const mostInAll = 4_000_000

/** Rows of a sketch, a power of two: for 10,000 prefixes of a peer, one row in thirteen has its bit. */
const rowBits = 17
const rows = 1 << rowBits

/** Marks of what is gone that a sketch may have before they are wiped out. */
const mostStale = 16_384

export type HoldingsOptions = {
  /** From 0 to 1. */
  readonly random: () => number
  /** Told once of a peer of whose prefixes some are ignored. */
  readonly onFull: (peer: string) => void
}

/**
 * What each peer holds, as it says.
 *
 * The truth is a set of prefixes for each peer: it costs 8 bytes a place, and is gone at once with its peer. To probe a
 * hundred sets is a hundred cache misses, so a sketch tells first where to look: a row has a bit for each of 32 peers,
 * set if the peer has a prefix that falls on that row. Tried with 100 peers of 10,000 blobs that no two share, for a
 * lookup that finds a peer, and in memory: the sets alone, 10.1 µs, 13 MB; one table of prefixes with a bit for each
 * peer, 0.25 µs, 25 MB; chains of prefix and peer, 0.6 µs, 19 MB; a Map of Sets, 2 µs, 285 MB. The last three have to be
 * walked through to forget a peer, 14 ms for the table: a peer that begins one snapshot after another could have that
 * wasted without end. Sets with sketches: `npm run bench -- lookup`.
 */
export class Holdings {
  readonly #onFull: (peer: string) => void
  /** One for all sets, so that a lookup hashes once. */
  readonly #hash: PrefixHash
  readonly #peers = new Map<string, Peer>()
  readonly #sketches: Sketch[] = []
  #size = 0

  constructor({ random, onFull }: HoldingsOptions) {
    this.#onFull = onFull
    this.#hash = seededHash(random)
  }

  /** What the peer has announced before no longer holds. */
  snapshotBegun(id: string): void {
    const peer = this.#peers.get(id)
    if (peer) this.#empty(peer)
  }

  /** @param bytes prefixes, one after another */
  add(id: string, bytes: Uint8Array): void {
    const peer = this.#peers.get(id) ?? this.#welcome(id)
    const { set, sketch, bit } = peer
    for (let offset = 0; offset + prefixLength <= bytes.length; offset += prefixLength) {
      const prefix = readPrefix(bytes, offset)
      const hash = this.#hash(prefix)
      if (set.size >= mostOfPeer || this.#size >= mostInAll) {
        if (set.has(prefix, hash)) continue
        if (!peer.full) this.#onFull(id)
        peer.full = true
        break
      }
      if (!set.add(prefix, hash)) continue
      this.#size++
      peer.marks++
      sketch.mark(hash, bit)
    }
  }

  /** @param bytes prefixes, one after another */
  remove(id: string, bytes: Uint8Array): void {
    const peer = this.#peers.get(id)
    if (!peer) return
    for (let offset = 0; offset + prefixLength <= bytes.length; offset += prefixLength) {
      const prefix = readPrefix(bytes, offset)
      if (peer.set.delete(prefix, this.#hash(prefix))) this.#size--
    }
    this.#redraw(peer)
  }

  /** The peer has announced a blob, and then said that it has none. */
  lacks(id: string, digest: Digest): void {
    const peer = this.#peers.get(id)
    const prefix = prefixOf(digest)
    if (peer?.set.delete(prefix, this.#hash(prefix))) this.#size--
  }

  /** The peer has gone. */
  forget(id: string): void {
    const peer = this.#peers.get(id)
    if (!peer) return
    this.#empty(peer)
    peer.sketch.peers[peer.bit] = undefined
    this.#peers.delete(id)
  }

  count(id: string): number {
    return this.#peers.get(id)?.set.size ?? 0
  }

  /** The peers that say they have it, in no order. */
  holdersOf(digest: Digest): readonly string[] {
    const prefix = prefixOf(digest)
    const hash = this.#hash(prefix)
    const holders: string[] = []
    for (const sketch of this.#sketches)
      for (let bits = sketch.marksAt(hash); bits !== 0; bits &= bits - 1) {
        const peer = sketch.peers[31 - Math.clz32(bits & -bits)]
        if (peer?.set.has(prefix, hash)) holders.push(peer.id)
      }
    return holders
  }

  #welcome(id: string): Peer {
    let sketch = this.#sketches.find(({ free }) => free >= 0)
    if (!sketch) this.#sketches.push((sketch = new Sketch()))
    const bit = sketch.free
    const peer: Peer = { id, sketch, bit, set: new PrefixSet(this.#hash), marks: 0, full: false }
    sketch.peers[bit] = peer
    this.#peers.set(id, peer)
    return peer
  }

  #empty(peer: Peer): void {
    if (peer.marks === 0) return
    this.#size -= peer.set.size
    peer.set = new PrefixSet(this.#hash)
    peer.marks = 0
    peer.sketch.wipe(peer.bit)
  }

  /** Wipes out a peer's marks of what it no longer has, if they have become many. */
  #redraw(peer: Peer): void {
    const { set, sketch, bit } = peer
    if (peer.marks - set.size <= Math.max(mostStale, set.size)) return
    sketch.wipe(bit)
    for (const prefix of set) sketch.mark(this.#hash(prefix), bit)
    peer.marks = set.size
  }
}

type Peer = {
  readonly id: string
  readonly sketch: Sketch
  /** Its place in the sketch. */
  readonly bit: number
  set: PrefixSet
  /** How often the sketch was marked for it since it was wiped. */
  marks: number
  /** Whether it has announced more than is kept. */
  full: boolean
}

/** Which of 32 peers may hold a prefix: never misses one that does. */
class Sketch {
  readonly peers: (Peer | undefined)[] = Array.from({ length: 32 })
  readonly #rows = new Uint32Array(rows)

  /** A place for one more peer; -1 if there is none. */
  get free(): number {
    return this.peers.indexOf(undefined)
  }

  // The sets look at the low bits of the hash, this at the high ones.
  mark(hash: number, bit: number): void {
    this.#rows[hash >>> (32 - rowBits)]! |= 1 << bit
  }

  /** A bit for each peer. */
  marksAt(hash: number): number {
    return this.#rows[hash >>> (32 - rowBits)]! | 0
  }

  wipe(bit: number): void {
    const others = ~(1 << bit)
    for (let row = 0; row < rows; row++) this.#rows[row]! &= others
  }
}
