import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { startBarePair } from './peer-pair.ts'
import { median, timed } from './program.ts'
import { startDockerRegistry, startProxy } from './rivals.ts'
import { meets, startShoal, statusOf } from './shoal.ts'
import { randomLayer, startUpstream } from './upstream.ts'

const size = 1024 ** 3
const repository = 'library/big'

/** Seconds, and CPU seconds of who gives and of who gets. */
type Measured = { readonly seconds: number; readonly giver: number; readonly getter: number }

/**
 * A blob of 1 GiB that a peer has, until it is hashed and on disk: beside a bare pair of node:https with mutual TLS that
 * hashes and writes it too. And until a client has it whole: beside docker-registry as the proxy of another one, over
 * plain http.
 */
export async function peerBlob(folder: string, runs: number): Promise<void> {
  const layer = await randomLayer(join(folder, 'blob'), size)
  const { program: nginx, http } = await startUpstream(folder, repository, [layer])
  await using _nginx = nginx
  const path = `/v2/${repository}/blobs/${layer.digest}`
  const endpoints = [http]
  const giver = await startShoal(folder, { endpoints, name: 'giver', bootstrap: [] })
  await using _giver = giver.program
  for (const each of ['manifests/latest', `blobs/${layer.digest}`])
    await timed('curl', ['-sSf', '-o', '/dev/null', `${giver.mirror}/v2/${repository}/${each}`])
  await using pair = await startBarePair(folder, layer)
  const registry = await startDockerRegistry(folder, layer)
  await using _registry = registry.program

  /** @param args of curl: what the client asks for */
  const shoal = async (...args: string[]): Promise<Measured> => {
    const getter = await startShoal(folder, { endpoints, name: 'getter', bootstrap: [giver.swarm] })
    await using _getter = getter.program
    await meets(getter, 1, 2)
    const before = [await giver.program.cpuSeconds(), await getter.program.cpuSeconds()] as const
    const seconds = await timed('curl', ['-sSf', '-o', '/dev/null', ...args, `${getter.mirror}${path}`])
    const { served } = await statusOf(getter)
    if (served.upstream.requests > 0 || served.peer.requests !== 1) throw new Error('it did not come from the peer')
    const measured = {
      seconds,
      giver: (await giver.program.cpuSeconds()) - before[0],
      getter: (await getter.program.cpuSeconds()) - before[1],
    }
    await getter.program[Symbol.asyncDispose]()
    await rm(join(folder, 'getter'), { recursive: true })
    return measured
  }
  const contenders: Record<string, () => Promise<Measured>> = {
    async 'bare node:https pair, to its disk'() {
      const { seconds, server, client } = await pair.fetch()
      return { seconds, giver: server, getter: client }
    },
    // The last byte is there when all of them are verified.
    'shoal, to its disk': () => shoal('--range', '-1'),
    'shoal, to the client': () => shoal(),
    async 'docker-registry over http, to the client'() {
      const proxy = await startProxy(folder, new URL(registry.url).origin, '')
      await using _proxy = proxy.program
      const before = [await registry.program.cpuSeconds(), await proxy.program.cpuSeconds()] as const
      const seconds = await timed('curl', ['-sSf', '-o', '/dev/null', `${proxy.mirror}${path}`])
      const measured = {
        seconds,
        giver: (await registry.program.cpuSeconds()) - before[0],
        getter: (await proxy.program.cpuSeconds()) - before[1],
      }
      await proxy.program[Symbol.asyncDispose]()
      await rm(join(folder, 'proxy'), { recursive: true })
      return measured
    },
  }
  const names = Object.keys(contenders)
  const measured = new Map<string, Measured[]>(names.map(name => [name, []]))
  for (let run = 0; run < runs; run++)
    for (const name of run % 2 === 0 ? names : names.toReversed()) measured.get(name)!.push(await contenders[name]!())
  console.log(`\na blob of 1 GiB from a peer, median of ${runs}`)
  const of = (name: string, key: keyof Measured) => median(measured.get(name)!.map(each => each[key]))
  const bare = of(names[0]!, 'seconds')
  for (const name of names) {
    const rate = size / of(name, 'seconds') / 1e9
    const cpu = (['giver', 'getter'] as const).map(side => (of(name, side) / (size / 1e9)).toFixed(2)).join(' + ')
    console.log(
      `  ${name.padEnd(42)} ${of(name, 'seconds').toFixed(2)} s   ${rate.toFixed(2)} GB/s   ` +
        `${(bare / of(name, 'seconds')).toFixed(2)} × bare   ${cpu} CPU-s/GB`,
    )
  }
}
