import { cp, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import { testUnless, whyNot } from '../prerequisites.ts'
import type { Ended, ShoalProcess } from '../shoal-process.ts'
import type { Client } from './client.ts'
import { ContainersHome } from './containers-home.ts'
import { testPulls } from './pulls.ts'

/** Skopeo, which copies images to a folder. */
class Skopeo implements Client {
  readonly tool = 'skopeo'
  readonly #home: ContainersHome

  static async open(shoal: ShoalProcess): Promise<Skopeo> {
    return new Skopeo(await ContainersHome.open(shoal))
  }

  private constructor(home: ContainersHome) {
    this.#home = home
  }

  get wanted(): readonly string[] {
    return this.#home.proxy.wanted
  }

  async pull(repository: string): Promise<Ended> {
    await mkdir(this.#copies(repository), { recursive: true })
    return this.#home.run('skopeo', 'copy', `docker://docker.io/${repository}`, `dir:${this.#copies(repository)}`)
  }

  async save(repository: string, folder: string): Promise<void> {
    await cp(this.#copies(repository), folder, { recursive: true })
  }

  async forget(): Promise<void> {
    await rm(this.#copies(), { recursive: true })
  }

  #copies(repository = ''): string {
    return join(this.#home.path('copies'), repository)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#home[Symbol.asyncDispose]()
  }
}

testPulls(testUnless(whyNot(['skopeo'], 'skopeo', { needsRoot: false })), 'Skopeo', Skopeo.open)

test.run()
