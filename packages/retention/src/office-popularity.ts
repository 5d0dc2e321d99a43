import { countOf, halfLife, type Score } from './decay.ts'
import { plausible, type Row, weakest } from './popularity.ts'

/** What a peer says of what is pulled on it. */
export type Told = {
  /** The peer's clock when it said so, in ms since the epoch. */
  readonly at: number
  readonly rows: readonly Row[]
}

/** Rows that one peer is believed: its most pulled images. */
export const mostRows = 256

/** Peers whose rows are kept. Who was heard of longest ago is forgotten first. */
export const mostPeers = 256

/** How long rows of a peer that is not heard of are kept, in ms. */
export const mostSilence = 4 * halfLife

/** How many pulls of an image one peer's word may count for: nobody can say that everything else is worth nothing. */
export const mostOfPeer = 4

/** How far a peer's clock may be off before its scores are taken as of another time than they say, in ms. */
const clockTolerance = 5 * 60_000

/**
 * How often images were pulled on other machines, as each of them says. Each peer's rows are a set that only its own word
 * adds to: merged by maximum, so that it does not matter in which order, how often and over whom that comes.
 */
export class OfficePopularity {
  readonly #peers = new Map<string, { heardAt: number; readonly scores: Map<string, Score> }>()
  /** The same by image: one that is not popular is looked up as quickly as one that is. */
  readonly #images = new Map<string, Map<string, Score>>()

  readonly #mostRows: number
  readonly #isHere: (peer: string) => boolean

  /**
   * @param most rows that one peer is believed
   * @param isHere whether a peer is connected: it tells only what changes, and is not forgotten
   */
  constructor(most = mostRows, isHere: (peer: string) => boolean = () => false) {
    this.#mostRows = most
    this.#isHere = isHere
  }

  get size(): number {
    return this.#images.size
  }

  /** In no order. */
  images(): Iterable<string> {
    return this.#images.keys()
  }

  /** How many peers have pulled an image. */
  tellersOf(image: string): number {
    return this.#images.get(image)?.size ?? 0
  }

  /** The rows of a peer, in no order. */
  *rowsOf(peer: string): Generator<Row> {
    for (const [image, score] of this.#peers.get(peer)?.scores ?? []) yield { image, score }
  }

  /** Who has told something, and when it was heard of last, in ms since the epoch. */
  *peers(): Generator<{ readonly peer: string; readonly heardAt: number }> {
    for (const [peer, { heardAt }] of this.#peers) yield { peer, heardAt }
  }

  /**
   * Adds what a peer has said. If its clock is wrong, what it says is taken as of now.
   * @param now in ms since the epoch
   */
  merge(peer: string, { at, rows }: Told, now: number): void {
    const known = this.#peers.get(peer) ?? { heardAt: now, scores: new Map<string, Score>() }
    known.heardAt = now
    this.#peers.set(peer, known)
    const offset = Math.abs(at - now) > clockTolerance ? (at - now) / halfLife : 0
    for (const { image, score } of rows) {
      const heard = plausible(score - offset, now)
      const before = known.scores.get(image)
      if (!Number.isFinite(heard) || (before !== undefined && plausible(before, now) >= heard)) continue
      this.#set(peer, known.scores, image, heard)
    }
    if (known.scores.size > this.#mostRows)
      for (const { image } of weakest(this.rowsOf(peer), this.#mostRows)) this.#remove(peer, known.scores, image)
    this.#forgetOthers(now)
  }

  /** How often an image was pulled lately on other machines, all together; see {@link mostOfPeer}. */
  count(image: string, now: number): number {
    let count = 0
    for (const score of this.#images.get(image)?.values() ?? []) count += Math.min(countOf(score, now), mostOfPeer)
    return count
  }

  /** Nothing that the peer has said counts any more. */
  forget(peer: string): void {
    const known = this.#peers.get(peer)
    if (!known) return
    for (const image of known.scores.keys()) this.#unlist(peer, image)
    this.#peers.delete(peer)
  }

  #set(peer: string, scores: Map<string, Score>, image: string, score: Score): void {
    scores.set(image, score)
    const tellers = this.#images.get(image)
    if (tellers) tellers.set(peer, score)
    else this.#images.set(image, new Map([[peer, score]]))
  }

  #remove(peer: string, scores: Map<string, Score>, image: string): void {
    scores.delete(image)
    this.#unlist(peer, image)
  }

  #unlist(peer: string, image: string): void {
    const tellers = this.#images.get(image)
    if (tellers?.delete(peer) && tellers.size === 0) this.#images.delete(image)
  }

  #forgetOthers(now: number): void {
    const away = [...this.#peers].filter(([peer]) => !this.#isHere(peer))
    for (const [peer, { heardAt }] of away) if (now - heardAt > mostSilence) this.forget(peer)
    if (this.#peers.size <= mostPeers) return
    const [oldest] = away.sort(([, a], [, b]) => a.heardAt - b.heardAt)
    if (oldest) this.forget(oldest[0])
  }
}
