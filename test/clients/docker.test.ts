import { spawnSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Internet } from '../../scripts/internet/internet.ts'
import { testUnless } from '../prerequisites.ts'
import { type Ended, ShoalProcess } from '../shoal-process.ts'
import { type Client, done } from './client.ts'
import { Dockerd, whyNoDockerd } from './dockerd.ts'
import { documented } from './documented.ts'
import { testPulls } from './pulls.ts'

const dockerTest = testUnless(whyNoDockerd())

// Docker Engine 23.0 release notes: "Add support for pulling zstd compressed layers".
const [, version = ''] = /version (\d+\.\S+?),?\s/.exec(String(spawnSync('dockerd', ['--version']).stdout)) ?? []
const knowsZstd = Number.parseInt(version, 10) >= 23
if (dockerTest === test && !knowsZstd) console.log(`skipped: Docker ${version} does not know layers of zstd`)
const zstdTest = knowsZstd ? dockerTest : test.skip

/** As people leave it: other keys, and a layout of its own. */
const oddly = '{"log-opts" : {"max-size":"1m"  },\n\n   "debug":false\n      ,"max-concurrent-downloads": 3 }\n'

/** A stand-in internet, Shoal in front of it, and a Docker engine that "shoal setup docker" has pointed at Shoal. */
class Office implements AsyncDisposable {
  readonly internet: Internet
  readonly shoal: ShoalProcess
  readonly dockerd: Dockerd
  readonly #opened: AsyncDisposableStack

  private constructor(internet: Internet, shoal: ShoalProcess, dockerd: Dockerd, opened: AsyncDisposableStack) {
    this.internet = internet
    this.shoal = shoal
    this.dockerd = dockerd
    this.#opened = opened
  }

  static async open({ setUp = true }: { readonly setUp?: boolean } = {}): Promise<Office> {
    await using opened = new AsyncDisposableStack()
    const internet = opened.use(await Internet.open())
    const shoal = opened.use(await ShoalProcess.start({ internet, env: { SHOAL_TAGS_TTL: '1ms' } }))
    const dockerd = opened.use(await Dockerd.start(oddly))
    const office = new Office(internet, shoal, dockerd, opened.move())
    if (setUp) {
      done(await office.setup())
      await dockerd.reload()
    }
    return office
  }

  /** `shoal setup docker`. */
  setup(...flags: string[]): Promise<Ended> {
    return this.#with('setup', 'docker', ...flags)
  }

  doctor(): Promise<Ended> {
    return this.#with('doctor')
  }

  /** What Docker Hub and mirror.gcr.io gave since the last time: `gcr HEAD library/busybox/manifests/latest`. */
  async asked(): Promise<string[]> {
    const { log } = this.internet
    await log.idle()
    const asked = log
      .requests({ status: 200, path: '/v2/' })
      .map(({ server, method, path }) => `${server} ${method} ${path.replace(/^\/v2\/|\?.*/g, '')}`)
    log.clear()
    return asked
  }

  async internetDown(): Promise<void> {
    await this.internet.hub.down()
    await this.internet.gcr.down()
  }

  #with(...args: string[]): Promise<Ended> {
    const { folder, host } = this.dockerd
    return this.shoal.run([...args, '--docker-dir', folder], { DOCKER_HOST: host })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
}

/** `docker pull`, with the daemon.json of docs/clients.md. */
class Docker implements Client {
  readonly tool = 'docker'
  readonly #dockerd: Dockerd

  static async start(shoal: ShoalProcess): Promise<Docker> {
    return new Docker(await Dockerd.start(await documented('/etc/docker/daemon.json', shoal)))
  }

  private constructor(dockerd: Dockerd) {
    this.#dockerd = dockerd
  }

  get wanted(): readonly string[] {
    return this.#dockerd.wanted
  }

  pull(repository: string): Promise<Ended> {
    return this.#dockerd.docker('pull', `docker.io/${repository}`)
  }

  save(repository: string, folder: string): Promise<void> {
    return this.#dockerd.save(`docker.io/${repository}`, folder)
  }

  forget(): Promise<void> {
    return this.#dockerd.forget()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dockerd[Symbol.asyncDispose]()
  }
}

testPulls(dockerTest, 'Docker', Docker.start)

dockerTest('setup points Docker at Shoal, and tells what it changed', async () => {
  await using office = await Office.open({ setUp: false })
  const { dockerd, shoal } = office
  const dry = done(await office.setup('--dry-run'))
  assert.is(await readFile(dockerd.daemonJson, 'utf8'), oddly)
  assert.match(dry, `+      ,"max-concurrent-downloads": 3`)
  const said = done(await office.setup())
  assert.match(said, /^\+.*"registry-mirrors"/m)
  assert.match(said, 'kill -HUP $(pidof dockerd)')
  await dockerd.reload()
  assert.equal(await dockerd.mirrors(), [`${shoal.mirror}/`])
  assert.match(done(await dockerd.docker('info')), `Registry Mirrors:\n  ${shoal.mirror}/`)
  assert.match(done(await office.setup()), 'Nothing to change.')
})

dockerTest('a pull asks each source for what it has, once, and goes by no other way', async () => {
  await using office = await Office.open()
  const { dockerd, internet } = office
  const { config, layers, digest } = internet.images.image('library/busybox')
  done(await dockerd.docker('pull', 'busybox'))
  for (const { userAgent } of internet.log.requests({ path: '/v2/' })) assert.match(userAgent ?? '', /^shoal\/\d/)
  const index = internet.images.repositories.get('library/busybox')?.tags.get('latest')
  assert.equal(
    (await office.asked()).sort(),
    [
      'gcr HEAD library/busybox/manifests/latest',
      'hub HEAD library/busybox/manifests/latest',
      `gcr GET library/busybox/manifests/${index}`,
      `hub GET library/busybox/manifests/${digest}`,
      ...[config, ...layers].map(blob => `gcr GET library/busybox/blobs/${blob.digest}`),
    ].sort(),
  )
  assert.equal(dockerd.wanted, [])
  const pulled = await dockerd.docker('image', 'inspect', '--format', '{{.Id}} {{.RepoDigests}}', 'busybox')
  assert.is(done(pulled), `${config.digest} [busybox@${index}]\n`)
})

dockerTest('what was pulled runs, and is pulled again without upstream, and without any internet', async () => {
  await using office = await Office.open()
  const { dockerd } = office
  const runs = async (line: string) =>
    assert.is(done(await dockerd.docker('run', '--rm', '--network', 'none', 'busybox', 'echo', line)), `${line}\n`)
  done(await dockerd.docker('pull', 'busybox'))
  await runs('hello')
  await office.asked()

  done(await dockerd.docker('rmi', 'busybox'))
  done(await dockerd.docker('pull', 'busybox'))
  const warm = await office.asked()
  assert.ok(
    warm.every(line => / HEAD .*\/manifests\/latest$/.test(line)),
    warm.join('\n'),
  )

  done(await dockerd.docker('rmi', 'busybox'))
  await office.internetDown()
  done(await dockerd.docker('pull', 'busybox'))
  await runs('hello again')
  assert.equal(await office.asked(), [])
  assert.equal(dockerd.wanted, [])
})

dockerTest('an image of forty layers, and one of Docker schema 2', async () => {
  await using office = await Office.open()
  const { dockerd, internet } = office
  const layersOf = async (image: string) => {
    const { stdout } = await dockerd.docker('image', 'inspect', '--format', '{{json .RootFS.Layers}}', image)
    return JSON.parse(stdout) as string[]
  }
  done(await dockerd.docker('pull', 'forty'))
  const { layers } = internet.images.image('library/forty')
  assert.equal(
    await layersOf('forty'),
    layers.map(({ diffId }) => diffId),
  )
  const blobs = (await office.asked()).filter(line => line.includes('/blobs/'))
  assert.is(blobs.length, 41)
  // The layer that mirror.gcr.io lacks comes from Docker Hub, which sends to its CDN.
  const [path, ...more] = blobs.flatMap(line => (line.startsWith('cdn GET ') ? [line] : []))
  assert.match(path ?? '', layers[20]?.digest.slice('sha256:'.length) ?? 'no such layer')
  assert.equal(more, [])
  assert.is(blobs.filter(line => line.startsWith('gcr GET ')).length, 40)
  done(await dockerd.docker('pull', 'busybox:1.35'))
  assert.equal(
    await layersOf('busybox:1.35'),
    internet.images.image('library/busybox', '1.35').layers.map(({ diffId }) => diffId),
  )
  assert.equal(dockerd.wanted, [])
})

zstdTest('layers of zstd', async () => {
  await using office = await Office.open()
  const { dockerd } = office
  done(await dockerd.docker('pull', 'zstd'))
  assert.equal(dockerd.wanted, [])
})

dockerTest('an image that no source has fails as it does without Shoal', async () => {
  await using office = await Office.open()
  const { dockerd } = office
  const { status, stderr } = await dockerd.docker('pull', 'nonesuch')
  assert.is(status, 1)
  // The one that Docker Hub's own answer leads to; here that is the proxy's.
  assert.is(stderr, 'Error response from daemon: Get "https://registry-1.docker.io/v2/": Service Unavailable\n')
  // A mirror's 404 sends Docker to Docker Hub itself.
  assert.equal(dockerd.wanted, ['registry-1.docker.io:443'])
})

dockerTest('doctor tells whether Docker is set up, and has asked', async () => {
  await using office = await Office.open({ setUp: false })
  const { dockerd, shoal } = office
  const before = done(await office.doctor())
  assert.match(before, `does not ask ${shoal.mirror}\n          -> run "sudo npx shoal setup docker"`)
  done(await office.setup())
  const unread = await office.doctor()
  assert.is(unread.status, 1)
  assert.match(unread.stdout, /^PROBLEM {2}docker: .* dockerd has not read that yet\n {10}-> sudo kill -HUP /m)
  await dockerd.reload()
  const unasked = done(await office.doctor())
  assert.match(unasked, `image store: is set up to ask ${shoal.mirror}\n`)
  assert.match(unasked, /^warning {2}docker: has not asked this mirror since it was started$/m)
  done(await dockerd.docker('pull', 'busybox'))
  assert.match(
    done(await office.doctor()),
    /^ok {7}docker: has asked \d+ times, the last \d+ s ago\nNo problem found\.$/m,
  )
  assert.match(done(await shoal.run(['status'])), /^client docker: \d+ requests/m)
})

dockerTest('undo restores the file to the byte, and Docker forgets Shoal when it is restarted', async () => {
  await using office = await Office.open()
  const { dockerd, shoal } = office
  assert.is.not(await readFile(dockerd.daemonJson, 'utf8'), oddly)
  const said = done(await office.setup('--undo'))
  assert.match(said, `Restored ${dockerd.daemonJson}.\nTo put it into force: restart dockerd`)
  assert.is(await readFile(dockerd.daemonJson, 'utf8'), oddly)
  await dockerd.stop()
  await dockerd.start()
  assert.equal(await dockerd.mirrors(), [])
  assert.not.match(done(await dockerd.docker('info')), shoal.mirror)
  assert.match(done(await office.setup('--undo')), 'Nothing to undo.')
})

test.run()
