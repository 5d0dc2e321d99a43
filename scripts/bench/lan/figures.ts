import { bytesOf } from '../../../test/lan/office.ts'
import { median } from '../program.ts'
import type { CpuShare } from './cpu-use.ts'
import type { Run } from './run.ts'

/** What one run comes to, or the medians of several. */
export type Figures = {
  /** Bytes that came over the line, for one of the image. */
  readonly upstream: number
  readonly manifestGets: number
  readonly manifestHeads: number
  /** In s; of the hosts that count. */
  readonly slowest: number
  readonly p50: number
  readonly p99: number
  readonly failed: number
  readonly cpu: CpuShare
}

/** @param size of the image, in bytes */
export function figuresOf({ hosts, tally, cpu }: Run, size: number): Figures {
  const { manifestGets, manifestHeads } = tally
  const seconds = hosts.map(host => host.seconds).sort((a, b) => a - b)
  return {
    upstream: bytesOf(tally) / size,
    manifestGets,
    manifestHeads,
    slowest: seconds.at(-1) ?? 0,
    p50: median(seconds),
    // Nearest rank: of fewer than 100 hosts, the slowest.
    p99: seconds[Math.ceil(0.99 * seconds.length) - 1] ?? 0,
    failed: hosts.filter(({ failed }) => failed !== undefined).length,
    cpu,
  }
}

/** Each by itself; of the hosts that failed, the sum. */
export function medianOf(runs: readonly Figures[]): Figures {
  const of = (part: (figures: Figures) => number) => median(runs.map(part))
  return {
    upstream: of(({ upstream }) => upstream),
    manifestGets: of(({ manifestGets }) => manifestGets),
    manifestHeads: of(({ manifestHeads }) => manifestHeads),
    slowest: of(({ slowest }) => slowest),
    p50: of(({ p50 }) => p50),
    p99: of(({ p99 }) => p99),
    failed: runs.reduce((sum, { failed }) => sum + failed, 0),
    cpu: { machine: of(({ cpu }) => cpu.machine), own: of(({ cpu }) => cpu.own) },
  }
}
