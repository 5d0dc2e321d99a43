import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Popularity } from '@shoal/retention/popularity'
import { FakePeer } from '../../test/swarm/fake-peer.ts'

/**
 * `gossip-process.ts MACHINES QUIET SETTLING MEASURED`, times in s, in a network of its own: machines that pull one image a
 * minute each, of 300, some much more often than others. Writes a line of JSON: what went over the network, of all
 * machines together, while nothing was pulled, and then when all tell each other what is; and how many rows came.
 */
const [count = 0, quiet = 0, settling = 0, measured = 0] = process.argv.slice(2).map(Number)
const images = 300

/** Bytes and packets that went over the loopback, so far. */
async function traffic(): Promise<{ bytes: number; packets: number }> {
  const line = /lo:\s*(\d+)\s+(\d+)/.exec(await readFile('/proc/net/dev', 'utf8'))
  return { bytes: Number(line?.[1]), packets: Number(line?.[2]) }
}

async function over(seconds: number): Promise<{ bytes: number; packets: number }> {
  const before = await traffic()
  await sleep(seconds * 1000)
  const after = await traffic()
  return { bytes: (after.bytes - before.bytes) / seconds, packets: (after.packets - before.packets) / seconds }
}

/** Lower numbers are likelier: as likely as one over the number. */
function someImage(): string {
  const number = Math.floor(images ** Math.random())
  return `docker.io/some-organisation-${number % 40}/some-repository-${number}:1.${number}`
}

let rows = 0
const machines: { readonly peer: FakePeer; readonly popularity: Popularity }[] = []
for (let made = 0; made < count; made++) {
  const popularity = new Popularity()
  const first = machines[0]?.peer.address
  const peer = await FakePeer.open({
    name: `host-${made}`,
    bootstrap: first === undefined ? [] : [first],
    more: { popularity: { rows: () => popularity, heard: (_peer, told) => void (rows += told.rows.length) } },
  })
  machines.push({ peer, popularity })
}
while (machines.some(({ peer }) => peer.swarm.connected < count - 1)) await sleep(100)
// Until all have been introduced to all, and the mesh stands.
await sleep(30_000)
const before = await over(quiet)
for (const { peer, popularity } of machines)
  void (async () => {
    for (;;) {
      await sleep(120_000 * Math.random())
      popularity.pulled(someImage(), Date.now())
      peer.swarm.popularityChanged()
    }
  })()
await sleep(settling * 1000)
rows = 0
const after = await over(measured)
console.log(JSON.stringify({ before, after, rows }))
process.exit(0)
