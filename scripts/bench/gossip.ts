import { fileURLToPath } from 'node:url'
import { NetworkNamespace } from '../../test/network-namespace.ts'

const program = fileURLToPath(new URL('gossip-process.ts', import.meta.url))
const machines = 20
/** In s: each tells what has changed about every 5 minutes. */
const quiet = 120
const settling = 300
const measured = 600

/**
 * What it costs a whole LAN that machines tell each other what is pulled on them: 20 of them, one pull a minute on each, in
 * one process, on the loopback of a network of their own. Takes 18 minutes, whatever the number of runs, and root.
 */
export async function gossip(): Promise<void> {
  await using network = await NetworkNamespace.open()
  const args = [program, machines, quiet, settling, measured].map(String)
  const { stdout } = await network.execute(process.execPath, args)
  const { before, after, rows } = JSON.parse(String(stdout)) as {
    readonly before: { readonly bytes: number; readonly packets: number }
    readonly after: { readonly bytes: number; readonly packets: number }
    readonly rows: number
  }
  const rate = ({ bytes, packets }: typeof before) => `${bytes.toFixed(0)} bytes/s, ${packets.toFixed(1)} packets/s`
  const told = rows / measured / machines / (machines - 1)
  console.log(
    `\n${machines} machines, one pull a minute on each, over ${measured} s: all links together, all headers included`,
  )
  console.log(`  nothing is pulled                ${rate(before)}`)
  console.log(`  all tell all what is             ${rate(after)}`)
  console.log(`  gossip                           ${(after.bytes - before.bytes).toFixed(0)} bytes/s`)
  console.log(`  each hears of each other         ${(told * 60).toFixed(2)} rows a minute`)
}
