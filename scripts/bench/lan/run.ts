import type { Tally } from '../../../test/lan/internet-program.ts'
import type { Office, Rush } from '../../../test/lan/office.ts'
import { type CpuShare, CpuUse } from './cpu-use.ts'

/** What one host got, and how long that took it. */
export type HostResult = {
  readonly name: string
  /** From its own beginning on. */
  readonly seconds: number
  readonly failed: string | undefined
  /** Bytes of blobs that came to it over the line. */
  readonly upstream: number
}

/** One pull by all of them. */
export type Run = {
  readonly hosts: readonly HostResult[]
  readonly tally: Tally
  readonly cpu: CpuShare
}

/** Of a client, in ms: it hears nothing until a layer is whole, and on a slow network that takes its time. */
const patience = 600_000

/** @param meanwhile goes on beside it */
export async function measure(office: Office, rush: Rush, meanwhile?: () => Promise<void>): Promise<Run> {
  const use = await CpuUse.begin()
  const [pulled] = await Promise.all([office.rush({ ...rush, patience }), meanwhile?.()])
  const cpu = await use.end()
  const tally = await office.tally()
  const hosts = pulled.map(({ host: { name, address }, began, ended, failed }) => {
    return { name, seconds: (ended - began) / 1000, failed, upstream: tally.byClient[address] ?? 0 }
  })
  return { hosts, tally, cpu }
}
