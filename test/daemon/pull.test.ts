import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { World } from '../world.ts'

test('a manifest by tag comes from upstream first, and from the store afterwards', async () => {
  await using world = await World.open()
  const { digest, manifest } = world.internet.images.image('library/busybox', '1.35')
  const cold = await world.get('/v2/library/busybox/manifests/1.35')
  assert.is(cold.status, 200)
  assert.is(cold.headers['docker-content-digest'], digest)
  assert.is(cold.headers['content-type'], manifest.mediaType)
  assert.match(cold.headers['cache-status'] as string, /^shoal; fwd=miss; detail="127\.0\.0\.1:\d+"$/)
  const warm = await world.get('/v2/library/busybox/manifests/1.35')
  assert.is(warm.headers['cache-status'], 'shoal; hit; detail=local')
  assert.equal(warm.body, cold.body)
})

test('every blob of a pull arrives whole, and is then held', async () => {
  await using world = await World.open()
  const { layers, config } = world.internet.images.image('library/forty')
  await world.get('/v2/library/forty/manifests/latest')
  for (const { digest, size } of [config, ...layers]) {
    const { status, body } = await world.get(`/v2/library/forty/blobs/${digest}`)
    assert.is(status, 200)
    assert.is(body.length, size)
  }
  await world.internet.hub.down()
  await world.internet.gcr.down()
  for (const { digest } of layers) {
    const { headers } = await world.get(`/v2/library/forty/blobs/${digest}`)
    assert.is(headers['cache-status'], 'shoal; hit; detail=local')
  }
})

test.run()
