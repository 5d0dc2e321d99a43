import type { Office } from '../../../test/lan/office.ts'
import type { Run } from './run.ts'

type Totals = {
  readonly local: number
  readonly peer: number
  readonly upstream: number
  readonly received: number
  readonly sent: number
}

const none: Totals = { local: 0, peer: 0, upstream: 0, received: 0, sent: 0 }

/** What each daemon says that a run was for it. */
export class HostStats {
  /** Their counters go on from run to run; those of one that was started anew don't. */
  readonly #before = new Map<string, Totals & { readonly uptime: number }>()

  async linesOf({ hosts }: Run, office: Office): Promise<string[]> {
    const lines: string[] = []
    for (const { name, seconds, upstream, failed } of hosts) {
      const shoal = office.shoals.find(({ host }) => host.name === name)
      const totals = shoal ? await this.#totalsOf(name, shoal) : none
      const { local, peer, upstream: fromUpstream, received, sent } = totals
      const told = [
        `${name.padEnd(7)} ${seconds.toFixed(2)} s`,
        `line ${megabytes(upstream)}`,
        ...(shoal
          ? [`served ${megabytes(local)} local, ${megabytes(peer)} peer, ${megabytes(fromUpstream)} upstream`]
          : []),
        ...(shoal ? [`peers gave ${megabytes(received)}, got ${megabytes(sent)}`] : []),
        ...(failed === undefined ? [] : [`failed: ${failed}`]),
      ]
      lines.push(told.join('; '))
    }
    return lines
  }

  async #totalsOf(name: string, shoal: Office['shoals'][number]): Promise<Totals> {
    const { served, peers, uptime_s: uptime } = await shoal.status()
    const now: Totals = {
      local: served.local.bytes,
      peer: served.peer.bytes,
      upstream: served.upstream.bytes,
      received: peers.reduce((sum, { received_bytes }) => sum + received_bytes, 0),
      sent: peers.reduce((sum, { sent_bytes }) => sum + sent_bytes, 0),
    }
    const known = this.#before.get(name)
    const before = known && known.uptime <= uptime ? known : none
    this.#before.set(name, { ...now, uptime })
    return {
      local: now.local - before.local,
      peer: now.peer - before.peer,
      upstream: now.upstream - before.upstream,
      received: now.received - before.received,
      sent: now.sent - before.sent,
    }
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}
