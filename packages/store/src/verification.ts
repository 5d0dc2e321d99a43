import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import type { Digest } from '@shoal/oci/digest'
import { childrenOf } from '@shoal/oci/manifest'
import { formatName, type Name } from '@shoal/oci/name'
import type { Index } from './index.ts'
import type { Tag } from './refs.ts'
import type { Want } from './source.ts'
import type { Loss, Store } from './store.ts'

/** Read and hashed at once, in bytes: a millisecond or so of the thread that serves clients. */
const pieceSize = 512 * 1024

/** How long each piece waits while the store has other work, in ms: some 25 MB/s are left for it. */
const courtesy = 20

/** What a verification found wrong. */
export type Finding = {
  readonly digest: Digest
  /** In bytes, as it was stored. */
  readonly size: number
  /** `sizes`: a manifest that is sound gives another size for content than that has. */
  readonly problem: Loss['problem'] | 'sizes'
  /** Whether its file is in quarantine. */
  readonly quarantined: boolean
  /** Whether the store has it again, as it should be. */
  readonly refetched: boolean
  /** Why not. */
  readonly reason?: string
}

/** Blobs read of all there are to read, and bytes read of all. */
export type Progress = {
  readonly checked: number
  readonly of: number
  readonly bytes: number
  readonly of_bytes: number
}

export type VerificationOptions = {
  readonly store: Store
  /** Gets content into the store. Rejects with why it cannot be had. */
  readonly fetch: (name: Name, digest: Digest, kind: Want['kind'], signal: AbortSignal) => Promise<void>
}

/**
 * Reads everything that was held when it began, one blob after another, and has fetched again what is not as it was
 * stored. Gives way to clients.
 */
export class Verification {
  readonly #options: VerificationOptions
  #progress: Progress = { checked: 0, of: 0, bytes: 0, of_bytes: 0 }

  constructor(options: VerificationOptions) {
    this.#options = options
  }

  get progress(): Progress {
    return this.#progress
  }

  /** Runs once, and gives what it finds. @throws the reason of `signal` */
  async *run(signal: AbortSignal): AsyncGenerator<Finding> {
    const { store } = this.#options
    const blobs = store.blobs
    // As they are now: with its manifest a tag goes.
    const tags = store.refs.list()
    this.#count({ of: blobs.length, of_bytes: blobs.reduce((sum, [, { size }]) => sum + size, 0) })
    const buffer = Buffer.allocUnsafeSlow(pieceSize)
    for (const [digest, { size, mediaType }] of blobs) {
      signal.throwIfAborted()
      // What has gone since the beginning was nobody's fault, and need not be there.
      if (store.sizeOf(digest) === undefined) {
        this.#count({ of: -1, of_bytes: -size })
        continue
      }
      let read = 0
      const lost = await this.#recheck(digest, buffer, async count => {
        read += count
        this.#count({ bytes: count })
        await (store.busy ? sleep(courtesy, undefined, { signal }) : setImmediate(undefined, { signal }))
      })
      signal.throwIfAborted()
      this.#count({ checked: 1, bytes: size - read })
      if (!lost) continue
      const finding = { digest, size, ...lost }
      // What was not dropped is no reason to fetch: it may be there the next time.
      if (lost.reason !== undefined) yield { ...finding, refetched: false }
      else yield { ...finding, ...(await this.#refetch(tags, digest, mediaType ? 'manifest' : 'blob', signal)) }
    }
    for (const [digest, { size, mediaType }] of blobs) {
      if (mediaType === undefined) continue
      const reason = wrongSize(store, digest)
      if (reason !== undefined) yield { digest, size, problem: 'sizes', quarantined: false, refetched: false, reason }
      // Looking up is synchronous.
      await setImmediate(undefined, { signal })
    }
  }

  /** A reason is given where the blob could not be checked, and is held as before. */
  async #recheck(
    digest: Digest,
    buffer: Buffer,
    next: (count: number) => Promise<void>,
  ): Promise<(Loss & { reason?: string }) | undefined> {
    try {
      return await this.#options.store.recheck(digest, buffer, next)
    } catch (error) {
      return { problem: 'unreadable', quarantined: false, reason: reasonOf(error) }
    }
  }

  /** Fetches from the first repository that gives it. */
  async #refetch(
    tags: readonly Tag[],
    digest: Digest,
    kind: Want['kind'],
    signal: AbortSignal,
  ): Promise<{ refetched: boolean; reason?: string }> {
    const { store, fetch } = this.#options
    let reason = 'no repository is known that has it'
    for (const name of await ownersOf(store.index, tags, digest)) {
      try {
        await fetch(name, digest, kind, signal)
        return { refetched: true }
      } catch (error) {
        signal.throwIfAborted()
        reason = reasonOf(error)
      }
    }
    return { refetched: false, reason }
  }

  #count(more: Partial<Progress>): void {
    const { checked, of, bytes, of_bytes } = this.#progress
    this.#progress = {
      checked: checked + (more.checked ?? 0),
      of: of + (more.of ?? 0),
      bytes: bytes + (more.bytes ?? 0),
      of_bytes: of_bytes + (more.of_bytes ?? 0),
    }
  }
}

/** The repositories that content is known to be of: it was had from there, or else one of their tags leads to it. */
async function ownersOf(index: Index, tags: readonly Tag[], digest: Digest): Promise<Iterable<Name>> {
  const known = await index.ownersOf(digest)
  if (known.length > 0) return known.map(({ name }) => name)
  const owners = new Map<string, Name>()
  for (const { name, sighting } of tags) {
    if (leadsTo(index, sighting.descriptor.digest, digest, new Set())) owners.set(formatName(name), name)
    // Looking up is synchronous.
    await setImmediate()
  }
  return owners.values()
}

function leadsTo(index: Index, from: Digest, to: Digest, visited: Set<Digest>): boolean {
  if (from === to) return true
  // An index can list another, and the same one many times.
  if (visited.has(from)) return false
  visited.add(from)
  const manifest = index.manifest(from)
  if (!manifest) return false
  if (childrenOf(manifest).some(child => child.digest === to)) return true
  return manifest.manifests.some(child => leadsTo(index, child.digest, to, visited))
}

/** What is wrong with the sizes that a manifest gives. */
function wrongSize(store: Store, digest: Digest): string | undefined {
  const manifest = store.index.manifest(digest)
  if (!manifest || store.sizeOf(digest) === undefined) return undefined
  for (const child of childrenOf(manifest)) {
    const size = store.sizeOf(child.digest)
    // Schema 1 gives none.
    if (size !== undefined && child.size >= 0 && size !== child.size)
      return `it gives ${child.size} bytes for ${child.digest}, which has ${size}`
  }
  return undefined
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
