import type { Resolver } from '@shoal/mirror/resolver'
import type { Digest } from '@shoal/oci/digest'
import type { Name } from '@shoal/oci/name'
import { abortable } from '@shoal/store/abortable'
import type { Want } from '@shoal/store/source'
import type { Store } from '@shoal/store/store'
import { type Finding, type Progress, Verification } from '@shoal/store/verification'
import { type Action, ConflictError } from './server.ts'

/** How a verification ended. */
export type VerificationSummary = {
  /** Blobs that were read, and their bytes. */
  readonly checked: number
  readonly bytes: number
  readonly seconds: number
  /** How many there are, and of how many of them the store has what it should again. */
  readonly findings: number
  readonly refetched: number
}

/** A line of the answer to `POST /api/v1/verify`; docs/api.md. */
export type VerificationLine =
  | { readonly progress: Progress }
  | { readonly finding: Finding }
  | { readonly summary: VerificationSummary }

/** How often the progress is told, in ms, whether or not there is any. */
const beat = 500

/** @param now in ms, never going back */
export function verifications({
  store,
  resolver,
  now,
}: {
  readonly store: Store
  readonly resolver: Resolver
  readonly now: () => number
}): Action {
  let running = false
  return async (accept, signal) => {
    if (running) throw new ConflictError('a verification is running already')
    running = true
    let ticking: Promise<void> | undefined
    let timer: NodeJS.Timeout | undefined
    try {
      const send: (line: VerificationLine) => Promise<void> = accept()
      const begin = now()
      const verification = new Verification({ store, fetch: fetchBy(resolver) })
      timer = setInterval(() => {
        // A client that does not read is not written to.
        ticking ??= send({ progress: verification.progress })
          .catch(() => {})
          .finally(() => (ticking = undefined))
      }, beat)
      let [findings, refetched] = [0, 0]
      for await (const finding of verification.run(signal)) {
        findings++
        if (finding.refetched) refetched++
        await send({ finding })
      }
      clearInterval(timer)
      await ticking
      const { checked, bytes } = verification.progress
      await send({ progress: verification.progress })
      const seconds = Math.round((now() - begin) / 100) / 10
      await send({ summary: { checked, bytes, seconds, findings, refetched } })
    } finally {
      clearInterval(timer)
      running = false
    }
  }
}

/** As a client would have it fetched. */
function fetchBy(resolver: Resolver) {
  return async (name: Name, digest: Digest, kind: Want['kind'], signal: AbortSignal): Promise<void> => {
    if (kind === 'manifest') {
      await resolver.manifest(name, digest, signal)
      return
    }
    const found = await resolver.blob(name, digest, signal)
    if ('held' in found) return found.held.close()
    using _interest = found.interest
    const settled = await abortable(found.transfer.settled, signal)
    if (settled.error) throw settled.error
    if (!settled.stored) throw new Error('the disk takes no more')
  }
}
