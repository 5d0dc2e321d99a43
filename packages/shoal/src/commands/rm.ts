import prettyBytes from 'pretty-bytes'
import { haveDaemonTell } from '../admin/client.ts'
import type { Removal } from '../admin/removal.ts'
import { printable } from '../printable.ts'
import type { Settings } from '../settings/schema.ts'

/** `shoal rm IMAGE`: it is held no longer. @throws DaemonError */
export async function rmCommand(args: {
  readonly settings: Settings
  readonly image: string
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): Promise<number> {
  const { settings, image, json, out } = args
  const removal = await haveDaemonTell<Removal>(settings, 'rm', { image })
  if (json) {
    out(JSON.stringify(removal))
    return 0
  }
  const { name, blobs, bytes, kept_for } = removal
  const [other] = kept_for
  if (other !== undefined)
    out(`${printable(name)} is gone; what it was stays, as ${kept_for.map(printable).join(', ')}.`)
  else if (blobs > 0) out(`${printable(name)} is gone: ${count(blobs)}, ${prettyBytes(bytes)}.`)
  else out(`${printable(name)} is gone; its content is in use, or of another image, and stays for now.`)
  return 0
}

function count(blobs: number): string {
  return `${blobs.toLocaleString('en')} ${blobs === 1 ? 'blob' : 'blobs'}`
}
