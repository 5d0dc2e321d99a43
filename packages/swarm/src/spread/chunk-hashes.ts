import { Buffer } from 'node:buffer'
import type { Digest } from '@shoal/oci/digest'
import type { SpreadContext } from './spread-context.ts'
import type { HashBatch } from './spread-message.ts'

/** What is signed begins with this, so that a signature for something else is none for hashes. */
const purpose = 'shoal-chunks:'

/** In one batch, at most. */
const mostHashes = 1024

/** What a chunk's hash is said to be, and by whom. */
export type Said = { readonly hash: string; readonly author: string }

/** What the hashes of a blob's chunks are said to be, by those who have fetched them. */
export class ChunkHashes {
  readonly #digest: Digest
  readonly #chunk: number
  readonly #context: Pick<SpreadContext, 'self' | 'sign' | 'verify' | 'isBanned'>
  readonly #said: (Said | undefined)[]
  /** Those that were the first to tell of a chunk, in the order in which they came; nothing in the place of one forgotten. */
  readonly #batches: (HashBatch | undefined)[] = []
  readonly #byKey = new Map<string, HashBatch>()
  /** Of this machine's own, those that no batch tells of yet. */
  #own: number[] = []
  /** Who has signed something else of a chunk than what is believed here. */
  readonly #deniers = new Map<string, { readonly index: number; readonly hash: string }>()

  constructor(
    digest: Digest,
    chunk: number,
    count: number,
    context: Pick<SpreadContext, 'self' | 'sign' | 'verify' | 'isBanned'>,
  ) {
    this.#digest = digest
    this.#chunk = chunk
    this.#context = context
    this.#said = new Array<Said | undefined>(count).fill(undefined)
  }

  of(index: number): Said | undefined {
    return this.#said[index]
  }

  /** Notes what needs no author: the digest says it. */
  known(index: number, hash: string): void {
    this.#said[index] = { hash, author: '' }
  }

  /** Notes what this machine has found by itself. */
  found(index: number, hash: string): void {
    const said = this.#said[index]
    if (said && said.hash !== hash) this.#deniers.set(said.author, { index, hash: said.hash })
    this.#said[index] = { hash, author: this.#context.self }
    this.#own.push(index)
  }

  /** Signs what this machine has found since the last time. */
  sign(): void {
    const { self, sign } = this.#context
    const own = this.#own.sort((a, b) => a - b)
    this.#own = []
    for (let i = 0; i < own.length; ) {
      const first = own[i]!
      const hashes: string[] = []
      for (; own[i] === first + hashes.length && hashes.length < mostHashes; i++) hashes.push(this.#said[own[i]!]!.hash)
      const batch = { author: self, first, hashes }
      this.#keep({ ...batch, signature: sign(bytesToSign(this.#digest, this.#chunk, batch)) })
    }
  }

  /** All that others are to hear of. */
  get batches(): readonly (HashBatch | undefined)[] {
    return this.#batches
  }

  /** What was told of a chunk as it is believed here. */
  batchOf(index: number): HashBatch | undefined {
    const said = this.#said[index]
    return this.#batches.find(
      batch => batch && batch.author === said?.author && batch.hashes[index - batch.first] === said.hash,
    )
  }

  /**
   * Notes what a member has told.
   * @returns the batch as it is kept, if it is one of those that others are to hear of, and whether its author has said
   * something else before, and signed both
   */
  add(batch: HashBatch): { readonly kept: HashBatch | undefined; readonly contradicts: boolean } {
    const kept = this.#byKey.get(keyOf(batch))
    const { author, first, hashes } = batch
    const { self, isBanned } = this.#context
    if (author === self || first + hashes.length > this.#said.length || isBanned(author))
      return { kept, contradicts: false }
    const isNew = hashes.some((_, i) => !this.#said[first + i])
    const differs = hashes.some((hash, i) => (this.#said[first + i]?.hash ?? hash) !== hash)
    if ((!isNew && !differs) || !this.isSigned(batch)) return { kept, contradicts: false }
    let contradicts = false
    for (const [i, hash] of hashes.entries()) {
      const said = (this.#said[first + i] ??= { hash, author })
      if (said.hash === hash) continue
      if (said.author === author) contradicts = true
      else this.#deniers.set(author, { index: first + i, hash })
    }
    if (isNew && !kept) this.#keep(batch)
    return { kept: isNew ? (kept ?? batch) : kept, contradicts }
  }

  #keep(batch: HashBatch): void {
    this.#batches.push(batch)
    this.#byKey.set(keyOf(batch), batch)
  }

  /** Forgets what an author has said of chunks that are not there. */
  forget(author: string, have: { has(index: number): boolean }): void {
    // What is there may have to be accounted for.
    for (const [place, batch] of this.#batches.entries())
      if (batch?.author === author && !batch.hashes.some((_, i) => have.has(batch.first + i))) {
        this.#batches[place] = undefined
        this.#byKey.delete(keyOf(batch))
      }
    for (const [index, said] of this.#said.entries())
      if (said?.author === author && !have.has(index)) this.#said[index] = undefined
  }

  /** Who has signed what is wrong, if what is there is right. */
  deniers(have: { has(index: number): boolean }): string[] {
    return [...this.#deniers]
      .filter(([, { index, hash }]) => have.has(index) && this.#said[index]?.hash !== hash)
      .map(([author]) => author)
  }

  isSigned(batch: HashBatch): boolean {
    return this.#context.verify(batch.author, bytesToSign(this.#digest, this.#chunk, batch), batch.signature)
  }
}

/** What the author of hashes signs. */
export function bytesToSign(
  digest: Digest,
  chunk: number,
  { first, hashes }: Pick<HashBatch, 'first' | 'hashes'>,
): Uint8Array {
  return Buffer.from(`${purpose}${digest} ${chunk} ${first} ${hashes.join(' ')}`)
}

function keyOf({ author, first }: Pick<HashBatch, 'author' | 'first'>): string {
  return `${author} ${first}`
}
