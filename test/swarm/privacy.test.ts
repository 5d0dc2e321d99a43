import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Digest, hexOf, parseDigest } from '../../packages/oci/src/digest.ts'
import type { Image } from '../../scripts/internet/image.ts'
import { Internet } from '../../scripts/internet/internet.ts'
import { until } from '../shoal-process.ts'
import type { World } from '../world.ts'
import { FakePeer } from './fake-peer.ts'
import { connected, Office, type PeerRow, statusOf } from './office.ts'
import { frame, hello, Stranger } from './stranger.ts'

const registry = 'registry.office:5000'

async function pull(machine: World, repository: string, image: Image, ns = 'docker.io'): Promise<string[]> {
  const from: string[] = []
  const paths = ['manifests/latest', ...[image.config, ...image.layers].map(({ digest }) => `blobs/${digest}`)]
  for (const path of paths) {
    const { status, headers } = await machine.get(`/v2/${repository}/${path}?ns=${ns}`)
    assert.is(status, 200, `${path}\n${machine.log.join('')}`)
    from.push(String(headers['cache-status']))
  }
  return from
}

const digestsOf = ({ digest, config, layers }: Image): Digest[] =>
  [digest, config.digest, ...layers.map(layer => layer.digest)].map(parseDigest)

/** Everything that a machine says to one who has become its peer. */
class Listener implements AsyncDisposable {
  readonly #stranger: Stranger
  #heard = Buffer.alloc(0)
  #asking: NodeJS.Timeout | undefined

  private constructor(stranger: Stranger) {
    this.#stranger = stranger
  }

  static async open(port: number): Promise<Listener> {
    const listener = new Listener(await Stranger.open())
    const stream = await listener.#stranger.say(port, hello)
    stream.addEventListener('message', ({ data }) => {
      listener.#heard = Buffer.concat([listener.#heard, data.subarray()])
    })
    // What is lost is asked for again.
    listener.#asking = setTimeout(() => stream.send(frame({ t: 'resync' })), 500)
    return listener
  }

  hears(digest: Digest): boolean {
    return this.#heard.includes(Buffer.from(hexOf(digest), 'hex').subarray(0, 8))
  }

  get text(): string {
    return this.#heard.toString('latin1')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#asking)
    await this.#stranger[Symbol.asyncDispose]()
  }
}

test('what needs a user, or is of a registry that is not to be shared, is neither told of nor given', async () => {
  await using office = await Office.open()
  const own = await Internet.open()
  await using _own = own
  const tool = await own.add({ repository: 'team/tool', tag: 'latest', layers: [20_000] })
  own.gcr.repositories.add('team/tool')
  const secret = office.internet.images.image('team/private')
  const shown = office.internet.images.image('library/forty')
  const password = join(office.folder, 'password')
  await writeFile(password, 'secret\n')
  const owner = await office.machine({
    settings: {
      'upstreams-docker-io-username': 'alice',
      'upstreams-docker-io-password-file': password,
      'upstreams-registry-office-5000-endpoints': own.gcr.url,
    },
  })
  const { swarm: port, transfer } = office.portsOf(owner)
  await using listener = await Listener.open(port)

  // The pull works on the machine that has the right to it.
  await pull(owner, 'team/private', secret)
  await pull(owner, 'team/tool', tool, registry)
  await pull(owner, 'library/forty', shown)
  await until(
    () => (digestsOf(shown).every(digest => listener.hears(digest)) ? true : undefined),
    () => 'what is public at Docker Hub is not announced by who has a password there',
  )
  // By now everything else would have been announced, too.
  for (const digest of [...digestsOf(secret), ...digestsOf(tool)]) assert.not(listener.hears(digest), digest)
  for (const name of ['private', 'team', 'tool', 'office']) assert.not.match(listener.text, name)

  // Who knows a digest, or a name, learns no more.
  await using spy = await FakePeer.open({
    bootstrap: [`127.0.0.1:${port}`],
    more: { tags: { believes: true, ttl: 5000, known: () => undefined } },
  })
  await until(
    () => (spy.swarm.connected === 1 ? true : undefined),
    () => 'the spy does not become a member',
  )
  const { peer_id: peerId } = await statusOf(owner)
  const answers = await spy.ask({ peerId, host: '127.0.0.1', port: transfer }, [
    ...digestsOf(secret),
    ...digestsOf(tool),
    ...digestsOf(shown),
  ])
  const mine = digestsOf(secret).length + digestsOf(tool).length
  assert.equal(answers.slice(0, mine), Array(mine).fill(404))
  assert.equal(answers.slice(mine), Array(answers.length - mine).fill(200))
  const signal = AbortSignal.timeout(10_000)
  const told = async (registry: string, repository: string) =>
    (await spy.swarm.tags.last({ registry, repository }, 'latest', signal)) !== undefined
  assert.is(await told('docker.io', 'library/forty'), true)
  assert.is(await told('docker.io', 'team/private'), false)
  assert.is(await told(registry, 'team/tool'), false)
})

test('the same after a restart', async () => {
  await using office = await Office.open()
  const secret = office.internet.images.image('team/private')
  const shown = office.internet.images.image('library/forty')
  const password = join(office.folder, 'password')
  await writeFile(password, 'secret\n')
  const owner = await office.machine({
    settings: { 'upstreams-docker-io-username': 'alice', 'upstreams-docker-io-password-file': password },
  })
  await pull(owner, 'team/private', secret)
  await pull(owner, 'library/forty', shown)
  const other = await office.machine()
  const rows = async (): Promise<readonly PeerRow[]> => connected(other, 1)
  await until(
    async () => ((await rows())[0]?.blobs === digestsOf(shown).length ? true : undefined),
    () => 'what is public is not announced',
  )
  await owner.restart()
  await until(
    async () => ((await statusOf(other)).peers[0]?.blobs === digestsOf(shown).length ? true : undefined),
    () => 'what is public is not announced after a restart',
  )
  await using listener = await Listener.open(office.portsOf(owner).swarm)
  await until(
    () => (digestsOf(shown).every(digest => listener.hears(digest)) ? true : undefined),
    () => 'it is silent',
  )
  for (const digest of digestsOf(secret)) assert.not(listener.hears(digest))
  await pull(other, 'library/forty', shown)
  assert.is((await statusOf(other)).served.peer.requests, digestsOf(shown).length)
})

test('a private image that a peer has as well is not asked for by name', async () => {
  await using office = await Office.open({ settings: { 'tags-from-peers': 'always' } })
  const password = join(office.folder, 'password')
  await writeFile(password, 'secret\n')
  const names: string[] = []
  await using spy = await FakePeer.open({
    more: {
      tags: {
        believes: false,
        ttl: 5000,
        known: name => {
          names.push(name)
          return undefined
        },
      },
    },
  })
  const owner = await office.machine({
    peers: [spy],
    settings: { 'upstreams-docker-io-username': 'alice', 'upstreams-docker-io-password-file': password },
  })
  await connected(owner, 1)
  await office.internet.hub.down()
  await office.internet.gcr.down()
  await owner.get('/v2/team/private/manifests/latest')
  assert.equal(names, [])
})

test.run()
