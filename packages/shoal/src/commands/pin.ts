import { haveDaemonTell } from '../admin/client.ts'
import type { Pinned } from '../admin/pinning.ts'
import { printable } from '../printable.ts'
import type { Settings } from '../settings/schema.ts'

/** `shoal pin IMAGE`, `shoal unpin IMAGE`. @throws DaemonError */
export async function pinCommand(args: {
  readonly settings: Settings
  readonly image: string
  readonly action: 'pin' | 'unpin'
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): Promise<number> {
  const { settings, image, action, json, out } = args
  const pinned = await haveDaemonTell<Pinned>(settings, action, { image })
  if (json) {
    out(JSON.stringify(pinned))
    return 0
  }
  const { name, digest, changed } = pinned
  const now = action === 'unpin' ? 'is no longer pinned' : changed ? 'is pinned' : 'was pinned already'
  out(`${printable(name)} ${now}: ${digest}`)
  return 0
}
