import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Ended, type Environment, plainEnvironment, run, type ShoalProcess } from '../shoal-process.ts'
import { ClosedProxy } from './closed-proxy.ts'
import { documented } from './documented.ts'

/** A user's home folder with what Podman, Buildah and Skopeo read there. */
export class ContainersHome implements AsyncDisposable {
  readonly folder: string
  readonly proxy: ClosedProxy
  readonly #env: Environment

  static async open(shoal: ShoalProcess): Promise<ContainersHome> {
    const folder = await mkdtemp(join(tmpdir(), 'containers-'))
    const home = new ContainersHome(folder, await ClosedProxy.open())
    try {
      const settings = join(folder, '.config', 'containers')
      const dropIns = join(settings, 'registries.conf.d')
      await mkdir(dropIns, { recursive: true })
      const dropIn = await documented('/etc/containers/registries.conf.d/shoal.conf', shoal)
      await writeFile(join(dropIns, 'shoal.conf'), dropIn)
      // These are read in place of the machine's.
      await writeFile(join(settings, 'registries.conf'), '')
      await writeFile(join(settings, 'policy.json'), '{"default": [{"type": "insecureAcceptAnything"}]}')
      await writeFile(home.path('auth.json'), '{}')
      // Podman's locks and events would else be those of the machine.
      const engine = { lock_type: 'file', tmp_dir: home.path('tmp'), static_dir: home.path('static') }
      const lines = Object.entries({ ...engine, events_logger: 'none', cgroup_manager: 'cgroupfs' })
      const network = `[network]\nnetwork_config_dir = "${home.path('network')}"\n`
      const engineLines = lines.map(([key, value]) => `${key} = "${value}"\n`).join('')
      await writeFile(home.path('containers.conf'), `[engine]\n${engineLines}${network}`)
    } catch (error) {
      await home[Symbol.asyncDispose]()
      throw error
    }
    return home
  }

  private constructor(folder: string, proxy: ClosedProxy) {
    this.folder = folder
    this.proxy = proxy
    this.#env = plainEnvironment({
      ...proxy.env,
      HOME: folder,
      TMPDIR: folder,
      CONTAINERS_CONF: this.path('containers.conf'),
      CONTAINERS_REGISTRIES_CONF: undefined,
      REGISTRY_AUTH_FILE: this.path('auth.json'),
    })
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  run(program: string, ...args: string[]): Promise<Ended> {
    return run(program, args, { env: this.#env, cwd: this.folder })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]()
    await rm(this.folder, { recursive: true, force: true, maxRetries: 20 })
  }
}
