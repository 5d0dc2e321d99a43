import { spawnSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { test } from 'uvu'
import { testUnless } from '../prerequisites.ts'
import { type Ended, plainEnvironment, run, type ShoalProcess } from '../shoal-process.ts'
import type { Client } from './client.ts'
import { Dockerd, whyNoDockerd } from './dockerd.ts'
import { documented } from './documented.ts'
import { testPulls } from './pulls.ts'

const environment = plainEnvironment({ DOCKER_BUILDKIT: '1' })

/** A docker command that can have BuildKit build. Those of 23.0 and later need Buildx for it. */
const docker = (environment['PATH'] ?? '')
  .split(delimiter)
  .map(folder => join(folder, 'docker'))
  .find(program => spawnSync(program, ['build', '--help'], { env: environment }).status === 0)

const lacking = whyNoDockerd() ?? (docker === undefined ? 'docker has no BuildKit (Debian: docker.io)' : undefined)

/** `docker build` of the BuildKit that is in dockerd, with the daemon.json of docs/clients.md. */
class BuildKit implements Client {
  /** That is what it calls itself. */
  readonly tool = 'containerd'
  readonly #dockerd: Dockerd

  static async start(shoal: ShoalProcess): Promise<BuildKit> {
    return new BuildKit(await Dockerd.start(await documented('/etc/docker/daemon.json', shoal)))
  }

  private constructor(dockerd: Dockerd) {
    this.#dockerd = dockerd
  }

  get wanted(): readonly string[] {
    return this.#dockerd.wanted
  }

  /** Builds an image that is nothing but the one it begins from. */
  async pull(repository: string): Promise<Ended> {
    const { env, folder } = this.#dockerd
    const context = join(folder, 'context')
    await mkdir(context, { recursive: true })
    await writeFile(join(context, 'Dockerfile'), `FROM docker.io/${repository}\n`)
    const args = ['build', '--pull', '--tag', built(repository), context]
    return run(docker ?? 'docker', args, { env: { ...env, DOCKER_BUILDKIT: '1' }, cwd: folder })
  }

  save(repository: string, folder: string): Promise<void> {
    return this.#dockerd.save(built(repository), folder)
  }

  forget(): Promise<void> {
    return this.#dockerd.forget()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dockerd[Symbol.asyncDispose]()
  }
}

function built(repository: string): string {
  return `built/${repository}`
}

testPulls(testUnless(lacking), 'BuildKit', BuildKit.start)

test.run()
