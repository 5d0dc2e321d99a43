import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { mediaTypes } from '@shoal/oci/media-type'
import { median, type Program, timed } from './program.ts'
import { startProxy } from './rivals.ts'
import { startShoal } from './shoal.ts'
import { type Layer, randomLayer, startUpstream } from './upstream.ts'

const megabyte = 1_000_000
const sizes = [120, 80, 60, 40, 25, 10].map(each => each * megabyte)
const repository = 'library/image'
const accept = ['-H', `accept: ${mediaTypes.ociManifest}`]

/** An image of 335 MB that is not held, all layers at once, through the daemon and through docker-registry as a proxy. */
export async function coldImage(folder: string, runs: number): Promise<void> {
  const layers: Layer[] = []
  for (const [index, size] of sizes.entries()) layers.push(await randomLayer(join(folder, `layer-${index}`), size))
  const { program: nginx, http, ca } = await startUpstream(folder, repository, layers)
  await using _nginx = nginx
  const pull = async (program: Program, mirror: string, data: string): Promise<number> => {
    await using _program = program
    const urls = layers.map(({ digest }) => `${mirror}/v2/${repository}/blobs/${digest}`)
    const options = ['-sSf', '--no-progress-meter', '--parallel', '--parallel-immediate']
    const seconds =
      (await timed('curl', [...accept, '-sSf', '-o', '/dev/null', `${mirror}/v2/${repository}/manifests/latest`])) +
      (await timed('curl', [...options, ...urls.flatMap(url => ['-o', '/dev/null', url])]))
    await program[Symbol.asyncDispose]()
    await rm(join(folder, data), { recursive: true })
    return seconds
  }
  const contenders = {
    async shoal() {
      const { program, mirror } = await startShoal(folder, { endpoints: [http] })
      return pull(program, mirror, 'shoal')
    },
    async 'docker-registry'() {
      const { program, mirror } = await startProxy(folder, http, ca)
      return pull(program, mirror, 'proxy')
    },
  }
  const seconds = { shoal: [] as number[], 'docker-registry': [] as number[] }
  const names = ['shoal', 'docker-registry'] as const
  for (let run = 0; run < runs; run++)
    for (const name of run % 2 === 0 ? names : names.toReversed()) seconds[name].push(await contenders[name]())
  console.log(`\ncold image of 335 MB, 6 layers at once, http upstream, median of ${runs}`)
  for (const name of names) {
    const ratio = median(seconds[name]) / median(seconds['docker-registry'])
    console.log(`  ${name.padEnd(16)} ${median(seconds[name]).toFixed(2)} s   ${ratio.toFixed(2)} × docker-registry`)
  }
}
