import { setTimeout as sleep } from 'node:timers/promises'
import { type Digest, digestOf } from '../../packages/oci/src/digest.ts'
import { FakePeer } from './fake-peer.ts'

/**
 * A part of a crowd, in a process of its own: `crowd-process.ts COUNT TOTAL BLOBS [BOOTSTRAP]`. Writes a line of JSON with the
 * address of the first of its peers, and one when all of them are connected to all others and know what those have.
 */
const [count = 0, total = 0, blobs = 0] = process.argv.slice(2, 5).map(Number)
const [, , , , , bootstrap] = process.argv

const begin = performance.now()
const tell = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)
const peers: FakePeer[] = []
for (let made = 0; made < count; made++) {
  const held = new Map<Digest, Buffer>()
  for (let blob = 0; blob < blobs; blob++) {
    const bytes = Buffer.from(`${process.pid} ${made} ${blob}`)
    held.set(digestOf(bytes), bytes)
  }
  const first = peers[0]?.address
  const known = bootstrap ?? first
  peers.push(
    await FakePeer.open({ blobs: held, name: `host-${made}`, ...(known !== undefined && { bootstrap: [known] }) }),
  )
  if (made === 0) tell({ address: peers[0]?.address })
}

const all = () => peers.every(({ swarm }) => swarm.connected >= total - 1)
const converged = () =>
  peers.every(
    ({ swarm }) =>
      swarm.peers.filter(({ state, blobs: held }) => state === 'connected' && held === blobs).length >= total - 1,
  )
const report = (more: object) =>
  tell({
    ...more,
    least: Math.min(...peers.map(({ swarm }) => swarm.connected)),
    ms: Math.round(performance.now() - begin),
  })

let told = performance.now()
while (!all()) {
  if (performance.now() - told > 1000) {
    told = performance.now()
    report({ waiting: true })
  }
  await sleep(50)
}
report({ connected: true })
while (!converged()) await sleep(50)
report({ converged: true, rss: Math.round(process.memoryUsage().rss / 1e6) })
// Until it is ended.
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
