import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, rm } from 'node:fs/promises'
import { Agent, get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { parseDigest } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { FakePeer } from '../../test/swarm/fake-peer.ts'
import { startBarePair } from './peer-pair.ts'
import { median } from './program.ts'
import { meets, startShoal, statusOf } from './shoal.ts'
import { type Layer, randomLayer, startUpstream } from './upstream.ts'

const blobs = 200
/** At first, connections are made and code is compiled. */
const warmup = 50
const repository = 'library/small'

/**
 * Small blobs that a peer has, one after another: until they are verified, and until a client has them from a daemon that
 * has them on its disk; beside requests of a bare pair of node:https for the same bytes, which it throws away.
 */
export async function peerSmall(folder: string, runs: number): Promise<void> {
  for (const size of [2048, 65_536]) {
    const own = join(folder, String(size))
    await mkdir(own)
    const layers: Layer[] = []
    for (let nth = 0; nth < blobs; nth++) layers.push(await randomLayer(join(own, `blob-${nth}`), size))
    const { program: nginx, http } = await startUpstream(own, repository, layers)
    await using _nginx = nginx
    const endpoints = [http]
    const giver = await startShoal(own, { endpoints, name: 'giver', bootstrap: [] })
    await using _giver = giver.program
    await fetchAll(giver.mirror, layers)
    await using pair = await startBarePair(own, layers[0]!)
    await using peer = await FakePeer.open({ bootstrap: [giver.swarm] })
    const measured: Record<string, number[]> = {
      'bare node:https pair': [],
      'a peer, verified': [],
      'a daemon, on its disk': [],
    }
    const add = (name: string, values: readonly number[]) => measured[name]!.push(...values.slice(warmup))
    for (let run = 0; run < runs; run++) {
      const getter = await startShoal(own, { endpoints, name: 'getter', bootstrap: [giver.swarm] })
      await using _getter = getter.program
      await meets(getter, 1, blobs + 1)
      add('bare node:https pair', await pair.roundTrips(blobs))
      add('a peer, verified', await take(peer, layers))
      add('a daemon, on its disk', await fetchAll(getter.mirror, layers))
      const { served } = await statusOf(getter)
      if (served.peer.requests < blobs) throw new Error('not all came from the peer')
      await getter.program[Symbol.asyncDispose]()
      await rm(join(own, 'getter'), { recursive: true })
    }
    console.log(`\nblobs of ${size} bytes from a peer, ${runs} × ${blobs - warmup}`)
    const bare = median(measured['bare node:https pair']!)
    for (const [name, values] of Object.entries(measured)) {
      const p90 = values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.9)]!
      console.log(
        `  ${name.padEnd(22)} median ${median(values).toFixed(2)} ms   90 % within ${p90.toFixed(2)} ms   ` +
          `${(median(values) / bare).toFixed(2)} × bare`,
      )
    }
  }
}

/** Through a daemon. @returns what each blob took, in ms */
async function fetchAll(mirror: string, layers: readonly Layer[]): Promise<number[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const took: number[] = []
  for (const path of ['manifests/latest', ...layers.map(({ digest }) => `blobs/${digest}`)]) {
    const begin = performance.now()
    const [response]: IncomingMessage[] = await once(get(`${mirror}/v2/${repository}/${path}`, { agent }), 'response')
    if (response?.statusCode !== 200) throw new Error(`${path}: ${response?.statusCode}`)
    response.resume()
    await once(response, 'end')
    took.push(performance.now() - begin)
  }
  agent.destroy()
  return took.slice(1)
}

/** As a daemon takes them, with no store and no client. @returns what each blob took, in ms */
async function take({ swarm }: FakePeer, layers: readonly Layer[]): Promise<number[]> {
  const name = parseName('docker.io', repository)
  const signal = AbortSignal.timeout(60_000)
  const took: number[] = []
  for (const { digest: text, size } of layers) {
    const begin = performance.now()
    const digest = parseDigest(text)
    const offer = await swarm.source.find({ name, digest, kind: 'blob', size }, signal)
    if (!offer) throw new Error('no peer has it')
    const bytes = Buffer.alloc(size)
    let length = 0
    const into = {
      get room() {
        return size - length
      },
      write(piece: Uint8Array) {
        bytes.set(piece, length)
        length += piece.length
        return undefined
      },
      from: () => {},
    }
    await offer.fetch({ start: 0, end: size }, into, signal)
    offer.close()
    if (`sha256:${createHash('sha256').update(bytes).digest('hex')}` !== digest) throw new Error('wrong bytes')
    took.push(performance.now() - begin)
  }
  return took
}
