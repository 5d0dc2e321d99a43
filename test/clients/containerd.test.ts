import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Internet } from '../../scripts/internet/internet.ts'
import { testUnless, whyNot } from '../prerequisites.ts'
import { ShoalProcess } from '../shoal-process.ts'
import { ClientWorld } from './client-world.ts'
import { Containerd } from './containerd.ts'
import { testPulls } from './pulls.ts'

const containerdTest = testUnless(whyNot(['containerd', 'ctr'], 'containerd'))

testPulls(containerdTest, 'containerd', Containerd.start)

containerdTest('containerd asks for ns=docker.io, and hears where each answer is from', async () => {
  await using world = await ClientWorld.open(Containerd.start)
  const { client, repository, internet } = world
  const heard = async () => {
    const { status, stdout, stderr } = await client.pull(repository, '--http-dump')
    const dump = stdout + stderr
    assert.is(status, 0, dump)
    const requests = dump.match(/(?:GET|HEAD) \/v2\/\S* HTTP\/1\.1/g) ?? []
    assert.ok(requests.length >= 2 + world.blobs.length, dump)
    for (const request of requests) assert.match(request, /\?ns=docker\.io HTTP/)
    const sources = dump.match(/(?<=Cache-Status: )shoal; .*(?="$)/gm) ?? []
    assert.is(sources.length, requests.length, dump)
    return [...new Set(sources)]
  }
  const hub = new URL(internet.hub.url).host
  assert.equal(await heard(), [`shoal; fwd=miss; detail=\\"${hub}\\"`])
  await client.forget()
  assert.equal(await heard(), ['shoal; hit; detail=local'])
})

containerdTest('containerd pulls from a registry that Shoal serves beside Docker Hub', async () => {
  await using office = await Internet.open()
  await using internet = await Internet.open()
  const env = { SHOAL_UPSTREAMS_REGISTRY_OFFICE_5000_ENDPOINTS: office.hub.url }
  await using shoal = await ShoalProcess.start({ internet, env })
  await using client = await Containerd.start(shoal)
  await client.mirror('registry.office:5000', shoal)
  const { status, stdout, stderr } = await client.pull('registry.office:5000/library/busybox')
  assert.is(status, 0, stdout + stderr)
  assert.equal(client.wanted, [])
  assert.equal(internet.log.entries, [])
  await office.hub.down()
  await client.forget()
  assert.is((await client.pull('registry.office:5000/library/busybox')).status, 0)
})

test.run()
