import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startDaemon } from '../packages/shoal/src/daemon.ts'
import { createLog } from '../packages/shoal/src/log.ts'
import { loadSettings } from '../packages/shoal/src/settings/load.ts'
import { Internet } from './internet/internet.ts'

/**
 * `npm run try`: shows what Shoal does, without any internet. An image is pulled three times through a Shoal of its own:
 * cold, warm, and with Docker Hub and mirror.gcr.io gone.
 */

const MB = 1e6
const repository = 'library/example'

type Answer = { readonly body: Buffer; readonly type: string; readonly from: string }
type Descriptor = { readonly digest: string; readonly size: number }
type Pull = { readonly seconds: number; readonly bytes: ReadonlyMap<string, number> }

function get(url: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { headers: { accept: '*/*', 'user-agent': 'try' }, agent: false }, response => {
      const pieces: Buffer[] = []
      response.on('data', piece => pieces.push(piece))
      response.on('error', reject)
      response.on('end', () => {
        const body = Buffer.concat(pieces)
        const { 'cache-status': from = '', 'content-type': type = '' } = response.headers
        if (response.statusCode === 200) resolve({ body, type, from: String(from) })
        else reject(new Error(`${url} answers ${response.statusCode}: ${body}`))
      })
    })
    asked.on('error', reject)
    asked.end()
  })
}

/** Pulls as a client does: the manifest by its tag, then the config and all layers at once. Every digest is checked. */
async function pull(mirror: string): Promise<Pull> {
  const bytes = new Map<string, number>()
  const take = ({ body, from }: Answer) => bytes.set(from, (bytes.get(from) ?? 0) + body.length)
  const begin = performance.now()
  const answer = await get(`${mirror}/v2/${repository}/manifests/latest`)
  take(answer)
  const manifest: { config: Descriptor; layers: Descriptor[] } = JSON.parse(answer.body.toString())
  await Promise.all(
    [manifest.config, ...manifest.layers].map(async ({ digest }) => {
      const blob = await get(`${mirror}/v2/${repository}/blobs/${digest}`)
      const got = `sha256:${createHash('sha256').update(blob.body).digest('hex')}`
      if (got !== digest) throw new Error(`asked for ${digest}, got the bytes of ${got}`)
      take(blob)
    }),
  )
  return { seconds: (performance.now() - begin) / 1000, bytes }
}

function size(bytes: number): string {
  return bytes === 0 ? '0' : bytes < MB ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / MB).toFixed(1)} MB`
}

/** In columns, the first to the left and numbers to the right. */
function print(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => row[column]!.length)))
  const toTheRight = new Set([1, 2, 3])
  for (const row of rows) {
    const cells = row.map((cell, i) => (toTheRight.has(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
    console.log(`  ${cells.join('   ').trimEnd()}`)
  }
}

async function main(): Promise<void> {
  await using opened = new AsyncDisposableStack()
  const internet = opened.use(await Internet.open())
  const { hub, gcr, log } = internet
  // mirror.gcr.io has the image, but not all of it, as it happens.
  gcr.repositories.add(repository)
  const { layers } = await internet.add({ repository, tag: 'latest', layers: [40 * MB, 20 * MB, 4 * MB] })
  gcr.lacks.add(layers[1]!.digest)

  const folder = await mkdtemp(join(tmpdir(), 'shoal-try-'))
  opened.defer(() => rm(folder, { recursive: true, force: true }))
  const argvFlags = {
    'data-dir': join(folder, 'data'),
    'mirror-listen': '127.0.0.1:0',
    'admin-listen': '127.0.0.1:0',
    'swarm-enabled': 'false',
    'upstreams-docker-io-endpoints': `${gcr.url},${hub.url}`,
    // As if some time had passed between the pulls: each asks whether the tag has moved.
    'tags-ttl': '1ms',
  }
  const { settings } = await loadSettings({ argvFlags, env: {} })
  const daemon = await startDaemon(
    settings,
    createLog(() => {}),
  )
  opened.defer(() => daemon.close())
  const mirror = `http://127.0.0.1:${daemon.mirror.port}`

  console.log(`
Stand-ins for Docker Hub and mirror.gcr.io run on this machine, and a Shoal that asks them.
An image of three layers, 64 MB in all, is pulled through Shoal three times; every digest is checked.
mirror.gcr.io has the image, but lacks one of its layers.
`)
  const names = new Map([
    ['shoal; hit; detail=local', 'this machine'],
    ['shoal; hit; detail=stale', 'this machine'],
    [`shoal; fwd=miss; detail="${new URL(gcr.url).host}"`, 'mirror.gcr.io'],
    [`shoal; fwd=miss; detail="${new URL(hub.url).host}"`, 'Docker Hub'],
  ])
  const rows = [['', 'time', 'upstream requests', 'upstream bytes', 'the bytes came from']]
  const show = async (name: string) => {
    log.clear()
    const { seconds, bytes } = await pull(mirror)
    await log.idle()
    const heads = log.requests({ method: 'HEAD' }).length
    const asked = heads === 0 ? `${log.entries.length}` : `${log.entries.length}, ${heads} of them HEAD`
    const sums = new Map<string, number>()
    for (const [from, count] of bytes) {
      const source = names.get(from) ?? from
      sums.set(source, (sums.get(source) ?? 0) + count)
    }
    const sources = [...sums].map(([source, count]) => `${source} ${size(count)}`).join(', ')
    rows.push([name, `${Math.round(seconds * 1000)} ms`, asked, size(log.bytes()), sources])
  }
  await show('first pull')
  await show('second pull')
  await hub.down()
  await gcr.down()
  await show('without internet')
  print(rows)
  console.log(`
A HEAD asks whether the tag has moved; Docker Hub does not count it against the rate limit. The times are of
stand-ins on this machine, in one process with Shoal: a real line makes the first pull much slower, the others hardly.

Your own Docker: "npm start", then "sudo npx shoal setup docker", and "docker pull" as ever.
`)
}

await main()
