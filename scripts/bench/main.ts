import { mkdtemp, rm } from 'node:fs/promises'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { clone } from './clone.ts'
import { coldBlob } from './cold-blob.ts'
import { coldImage } from './cold-image.ts'
import { crowd } from './crowd.ts'
import { firstByte } from './first-byte.ts'
import { gossip } from './gossip.ts'
import { idle } from './idle.ts'
import { lookup } from './lookup.ts'
import { memory } from './memory.ts'
import { peerBlob } from './peer-blob.ts'
import { peerSmall } from './peer-small.ts'
import { peersAbout } from './peers-about.ts'
import { victims } from './victims.ts'
import { warmBlob } from './warm-blob.ts'
import { warmManifest } from './warm-manifest.ts'

/**
 * `npm run bench [-- NAME …] [--runs N]`: measures the daemon beside its rivals, in one run, in turn. Needs Linux, curl,
 * openssl, and Debian's nginx, docker-registry and wrk.
 */

const benches = {
  'warm-blob': warmBlob,
  'warm-manifest': warmManifest,
  'cold-blob': coldBlob,
  'cold-image': coldImage,
  'first-byte': firstByte,
  memory,
  'peer-blob': peerBlob,
  'peer-small': peerSmall,
  'peers-about': peersAbout,
  lookup,
  victims,
  crowd,
  idle,
  gossip,
  clone,
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { runs: { type: 'string', default: '5' } },
})

const names = Object.keys(benches) as (keyof typeof benches)[]
const chosen = positionals.length === 0 ? names : names.filter(name => positionals.includes(name))
const runs = Number(values.runs)
if (chosen.length === 0 || !Number.isInteger(runs) || runs < 1) {
  console.error(`usage: npm run bench [-- NAME …] [--runs N]; names: ${names.join(', ')}`)
  process.exit(2)
}

console.log(
  `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}, ${Math.round(totalmem() / 1e9)} GB of memory`,
)
for (const name of chosen) {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-bench-'))
  try {
    await benches[name](folder, runs)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
