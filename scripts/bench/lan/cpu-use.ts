import { readdir, readFile } from 'node:fs/promises'

/** Parts of all the time that the machine's processors had, from 0 to 1. */
export type CpuShare = {
  /** Busy with whatever. */
  readonly machine: number
  /** Busy with this process, and those that it has started and that are still there. */
  readonly own: number
}

type Reading = { readonly total: number; readonly busy: number; readonly own: number }

/** How busy the machine's processors are, from a beginning to an end. Linux only. */
export class CpuUse {
  readonly #before: Reading

  private constructor(before: Reading) {
    this.#before = before
  }

  static async begin(): Promise<CpuUse> {
    return new CpuUse(await read())
  }

  async end(): Promise<CpuShare> {
    const after = await read()
    const total = after.total - this.#before.total
    return { machine: (after.busy - this.#before.busy) / total, own: (after.own - this.#before.own) / total }
  }
}

/** In ticks of the kernel's clock. */
async function read(): Promise<Reading> {
  const [first = ''] = (await readFile('/proc/stat', 'utf8')).split('\n')
  // proc_stat(5): user nice system idle iowait irq softirq steal; what guests had is in user.
  const [user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, softirq = 0, steal = 0] = first
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number)
  const busy = user + nice + system + irq + softirq + steal
  return { total: busy + idle + wait, busy, own: await readOwn() }
}

async function readOwn(): Promise<number> {
  const processes = new Map<number, { readonly parent: number; readonly ticks: number }>()
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    // It may have ended just now.
    const stat = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => undefined)
    const fields = stat?.replace(/^.*\) /s, '').split(' ')
    if (fields)
      processes.set(Number(name), { parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) })
  }
  const isOwn = (pid: number): boolean => {
    const parent = processes.get(pid)?.parent
    return pid === process.pid || (parent !== undefined && isOwn(parent))
  }
  let sum = 0
  for (const [pid, { ticks }] of processes) if (isOwn(pid)) sum += ticks
  return sum
}
