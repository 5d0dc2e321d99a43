import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { done } from '../clients/client.ts'
import { Containerd } from '../clients/containerd.ts'
import { Dockerd, whyNoDockerd } from '../clients/dockerd.ts'
import { documented } from '../clients/documented.ts'
import { testUnless, whyNot } from '../prerequisites.ts'
import type { Outline } from './internet-program.ts'
import type { LanShoal } from './lan-shoal.ts'
import { LanWorld, whyNoLan } from './lan-world.ts'

const dockerTest = testUnless(whyNoLan() ?? whyNoDockerd())
const containerdTest = testUnless(whyNoLan() ?? whyNot(['containerd', 'ctr'], 'containerd'))

const repository = 'library/four'

/** Two machines that know each other, and an image that Docker Hub alone has. */
async function office(world: LanWorld): Promise<{ first: LanShoal; second: LanShoal; image: Outline }> {
  const layers = [1_500_000, 200_000, 5000]
  const image = await world.internet.agent.call('add', { repository, tag: 'latest', layers })
  const [first, second] = await world.shoals(['first', 'second'])
  assert.ok(first && second)
  await Promise.all([first.meets([second]), second.meets([first])])
  return { first, second, image }
}

/** The second machine has had the image from the first, and asked upstream what its tag is at most. */
async function checkSecond({ internet }: LanWorld, second: LanShoal, image: Outline): Promise<void> {
  assert.is(await internet.blobBytes(second.host.address), 0)
  const blobs = [image.config, ...image.layers]
  const { served, peers } = await second.status()
  const bytes = blobs.reduce((sum, { size }) => sum + size, 0)
  assert.ok(served.peer.bytes >= bytes, `${served.peer.bytes} of ${bytes} bytes`)
  assert.ok((peers[0]?.received_bytes ?? 0) >= bytes)
}

dockerTest('docker pull on the second machine takes its bytes from the first', async () => {
  await LanWorld.use(async world => {
    const { first, second, image } = await office(world)
    const start = async (shoal: LanShoal) =>
      Dockerd.start(await documented('/etc/docker/daemon.json', shoal), shoal.host.namespace)
    await using one = await start(first)
    await using two = await start(second)
    done(await one.docker('pull', `docker.io/${repository}`))
    await second.hearsOf(image.layers.length + 2, first)
    done(await two.docker('pull', `docker.io/${repository}`))
    await checkSecond(world, second, image)
    const pulled = await two.docker('image', 'inspect', '--format', '{{.Id}}', `docker.io/${repository}`)
    assert.is(done(pulled).trim(), image.config.digest)
  })
})

dockerTest(
  'in a private network, docker pull takes its bytes from the first machine without any internet',
  async () => {
    await LanWorld.use(async world => {
      const { first, second, image } = await office(world)
      const token = done(await first.shoal(['network', 'create'])).trim()
      for (const shoal of [first, second]) done(await shoal.shoal(['network', 'join', token]))
      await Promise.all([first.meets([second]), second.meets([first])])
      const start = async (shoal: LanShoal) =>
        Dockerd.start(await documented('/etc/docker/daemon.json', shoal), shoal.host.namespace)
      await using one = await start(first)
      await using two = await start(second)
      done(await one.docker('pull', `docker.io/${repository}`))
      await second.hearsOf(image.layers.length + 2, first)
      await world.internet.cut()
      done(await two.docker('pull', `docker.io/${repository}`))
      await checkSecond(world, second, image)
    })
  },
)

containerdTest('a pull by containerd on the second machine takes its bytes from the first', async () => {
  await LanWorld.use(async world => {
    const { first, second, image } = await office(world)
    await using one = await Containerd.start(first, first.host.namespace)
    await using two = await Containerd.start(second, second.host.namespace)
    done(await one.pull(repository))
    await second.hearsOf(image.layers.length + 2, first)
    const { stdout, stderr } = await two.pull(repository, '--http-dump')
    const sources = (stdout + stderr).match(/(?<=Cache-Status: ).*?(?="$)/gm) ?? []
    assert.ok(sources.length > 0, stdout + stderr)
    const fromPeers = sources.filter(source => source === 'shoal; fwd=miss; detail=peer')
    assert.ok(fromPeers.length >= image.layers.length + 2, sources.join('\n'))
    await checkSecond(world, second, image)
  })
})

test.run()
