import type { Ended, ShoalProcess } from '../shoal-process.ts'
import { type Client, done } from './client.ts'
import { ContainersHome } from './containers-home.ts'

/** Podman or Buildah: they have their store and its flags in common. */
export class ContainersStorage implements Client {
  readonly tool: 'podman' | 'buildah'
  readonly #home: ContainersHome

  static async open(tool: ContainersStorage['tool'], shoal: ShoalProcess): Promise<ContainersStorage> {
    return new ContainersStorage(tool, await ContainersHome.open(shoal))
  }

  private constructor(tool: ContainersStorage['tool'], home: ContainersHome) {
    this.tool = tool
    this.#home = home
  }

  get wanted(): readonly string[] {
    return this.#home.proxy.wanted
  }

  pull(repository: string): Promise<Ended> {
    return this.#run('pull', `docker.io/${repository}`)
  }

  async save(repository: string, folder: string): Promise<void> {
    const image = `docker.io/${repository}`
    // Podman's push to a folder compresses; Buildah has no save.
    if (this.tool === 'buildah') done(await this.#run('push', '--disable-compression', image, `dir:${folder}`))
    else done(await this.#run('save', '--format', 'docker-dir', '--uncompressed', '--output', folder, image))
  }

  async forget(): Promise<void> {
    done(await this.#run('rmi', '--all', '--force'))
  }

  #run(...args: string[]): Promise<Ended> {
    const home = this.#home
    const store = ['--root', home.path('root'), '--runroot', home.path('runroot'), '--storage-driver', 'vfs']
    return home.run(this.tool, ...store, ...args)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#home[Symbol.asyncDispose]()
  }
}
