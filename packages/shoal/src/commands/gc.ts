import prettyBytes from 'pretty-bytes'
import { DaemonError, haveDaemon } from '../admin/client.ts'
import type { CollectedBlob, CollectionLine, CollectionSummary } from '../admin/collection.ts'
import { plainTable } from '../plain-table.ts'
import { printable } from '../printable.ts'
import type { Settings } from '../settings/schema.ts'

/** `shoal gc`: what is to go goes now. @param args.dryRun only tells @throws DaemonError */
export async function gcCommand(args: {
  readonly settings: Settings
  readonly dryRun: boolean
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): Promise<number> {
  const { settings, dryRun, json, out } = args
  const blobs: CollectedBlob[] = []
  const parked: { readonly digest: string; readonly bytes: number }[] = []
  let summary: CollectionSummary | undefined
  for await (const line of haveDaemon<CollectionLine>(settings, 'gc', { dry_run: dryRun })) {
    if ('summary' in line) summary = line.summary
    else if ('blob' in line) blobs.push(line.blob)
    else parked.push(line.parked)
  }
  if (!summary) throw new DaemonError('the daemon has broken off: its log says why')
  if (json) {
    out(JSON.stringify({ ...summary, blobs, parked }))
    return 0
  }
  if (blobs.length + parked.length > 0) {
    const table = plainTable(['BLOB', 'SIZE', 'OF', 'WHY'])
    for (const { digest, bytes } of parked)
      table.push([digest.slice(0, 19), prettyBytes(bytes), '', 'left of a download that was broken off'])
    for (const blob of blobs)
      table.push([blob.digest.slice(0, 19), prettyBytes(blob.bytes), imagesText(blob.images), reasonOf(blob)])
    out(table.toString())
  }
  out(summaryText(summary))
  return 0
}

function imagesText(images: readonly string[]): string {
  const [first = '', ...more] = images
  return `${printable(first)}${more.length > 0 ? ` and ${more.length} more` : ''}`
}

function reasonOf({ because, pulls, here, copies }: CollectedBlob): string {
  if (because === 'alone') return 'no image here needs it'
  if (because === 'incomplete') return 'needs what goes'
  const times = `${rounded(pulls)} ${rounded(pulls) === '1' ? 'pull' : 'pulls'} lately, ${rounded(here)} here`
  return copies > 1 ? `${times}; ${copies} machines have it` : times
}

function rounded(count: number): string {
  return count.toLocaleString('en', { maximumFractionDigits: 2 })
}

function summaryText({ dry_run, blobs, freed_bytes, bytes, max_bytes }: CollectionSummary): string {
  const held = `${prettyBytes(bytes)} of ${prettyBytes(max_bytes)}`
  if (freed_bytes === 0) return `Nothing has to go: the store has ${held}.`
  const what = `${blobs.toLocaleString('en')} ${blobs === 1 ? 'blob' : 'blobs'}, ${prettyBytes(freed_bytes)}`
  return dry_run ? `Would remove ${what}: the store would have ${held}.` : `Removed ${what}: the store has ${held}.`
}
