import type { Collected, Evicted, Eviction } from '@shoal/store/eviction'
import type { Action } from './server.ts'

/** A line of the answer to `POST /api/v1/gc`; docs/api.md. Bytes. */
export type CollectionLine =
  | { readonly blob: CollectedBlob }
  /** What a transfer has left that could have gone on. */
  | { readonly parked: { readonly digest: string; readonly bytes: number } }
  | { readonly summary: CollectionSummary }

export type CollectedBlob = {
  readonly digest: string
  readonly bytes: number
  /** The tags here that it is of. */
  readonly images: readonly string[]
  /** `least`: it was worth least; `incomplete`: it needs something that goes; `alone`: no image here needs it. */
  readonly because: Evicted['because']
  /** How often what needs it was pulled lately, in the whole office and on this machine, and how many machines hold it. */
  readonly pulls: number
  readonly here: number
  readonly copies: number
  readonly worth: number
}

/** `bytes`: what is held when it is over, of how many that may be. */
export type CollectionSummary = {
  readonly dry_run: boolean
  readonly blobs: number
  readonly freed_bytes: number
  readonly bytes: number
  readonly max_bytes: number
}

/** `POST /api/v1/gc`: what is to go goes now; `{"dry_run": true}` only tells. */
export function collections(eviction: Eviction, maxBytes: number): Action {
  return async (accept, signal, input) => {
    const dryRun = typeof input === 'object' && input !== null && 'dry_run' in input && input.dry_run === true
    const send: (line: CollectionLine) => Promise<void> = accept()
    let [blobs, freed] = [0, 0]
    // Who reads slowly holds up nobody but itself.
    let sent = Promise.resolve()
    await eviction.collect(dryRun, collected => {
      signal.throwIfAborted()
      const line = lineOf(collected)
      if ('blob' in line) blobs++
      freed += ('blob' in line ? line.blob : line.parked).bytes
      sent = sent.then(() => send(line))
      sent.catch(() => {})
    })
    await sent
    const bytes = eviction.bytes - (dryRun ? freed : 0)
    await send({ summary: { dry_run: dryRun, blobs, freed_bytes: freed, bytes, max_bytes: maxBytes } })
  }
}

function lineOf(collected: Collected): Exclude<CollectionLine, { summary: unknown }> {
  if ('parked' in collected) return { parked: { digest: collected.parked.digest, bytes: collected.parked.size } }
  const { digest, size, images, because, demand, copies, worth } = collected.blob
  return {
    blob: { digest, bytes: size, images, because, pulls: demand.office, here: demand.own, copies, worth },
  }
}
