import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Lookup } from './lookup-process.ts'
import { median } from './program.ts'

const script = fileURLToPath(new URL('lookup-process.ts', import.meta.url))
const columns = ['hit', 'miss', 'memory', 'add', 'forget'] as const

/** What it takes to look up who of 100 peers holds a blob, beside a Map of Sets. */
export async function lookup(_folder: string, runs: number): Promise<void> {
  console.log(`\nwho of 100 peers of 10,000 blobs holds one, median of ${runs}`)
  console.log("                                      µs: held  nobody's     MB   ms a peer: to add  to forget")
  for (const [overlap, what] of [
    ['distinct', 'no two share a blob'],
    ['same', 'all have the same'],
  ] as const)
    for (const [kind, name] of [
      ['holdings', 'Holdings'],
      ['map', 'Map of Sets'],
    ] as const) {
      const measured: Lookup[] = []
      for (let run = 0; run < runs; run++) measured.push(await measure(kind, overlap))
      const [hit, miss, memory, add, forget] = columns.map(column => median(measured.map(each => each[column])))
      console.log(
        `  ${what.padEnd(20)} ${name.padEnd(12)} ${cell(hit, 12)} ${cell(miss, 9)} ${cell(memory, 6, 1)} ` +
          `${cell(add, 18)} ${cell(forget, 10)}`,
      )
    }
}

function cell(value: number | undefined, width: number, digits = 2): string {
  return (value ?? Number.NaN).toFixed(digits).padStart(width)
}

/** In a process of its own, so that memory is that of the table alone. */
async function measure(kind: string, overlap: string): Promise<Lookup> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script, kind, overlap])
  return JSON.parse(stdout)
}
