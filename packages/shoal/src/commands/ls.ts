import prettyBytes from 'pretty-bytes'
import { askDaemon } from '../admin/client.ts'
import type { Image } from '../admin/images.ts'
import { plainTable } from '../plain-table.ts'
import type { Settings } from '../settings/schema.ts'

/** `shoal ls`: the images that are held. @throws DaemonError */
export async function lsCommand(args: {
  readonly settings: Settings
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): Promise<number> {
  const { settings, json, out } = args
  const images = await askDaemon<readonly Image[]>(settings, 'images')
  if (json) {
    out(JSON.stringify(images))
    return 0
  }
  if (images.length === 0) {
    out('No images yet: they come with the first pull.')
    return 0
  }
  const table = plainTable(['IMAGE', 'DIGEST', 'HELD', 'COMPLETE FOR', 'SEEN', 'AT', 'PINNED'])
  for (const { name, digest, bytes, platforms, seen_at, seen_from, pinned } of images) {
    const complete = platforms.length > 0 ? platforms.join(', ') : 'no platform yet'
    const seen = seen_at.replace(/\.\d+Z$/, 'Z')
    table.push([name, digest.slice(0, 19), prettyBytes(bytes), complete, seen, seen_from, pinned ? 'yes' : ''])
  }
  out(table.toString())
  return 0
}
