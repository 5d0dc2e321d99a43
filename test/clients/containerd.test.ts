import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { testUnless, whyNot } from '../prerequisites.ts'
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

test.run()
