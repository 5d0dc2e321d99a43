import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { formatCacheStatus } from './cache-status.ts'

test('each source has its header', () => {
  assert.is(formatCacheStatus({ kind: 'local' }), 'shoal; hit; detail=local')
  assert.is(formatCacheStatus({ kind: 'stale' }), 'shoal; hit; detail=stale')
  assert.is(formatCacheStatus({ kind: 'peer' }), 'shoal; fwd=miss; detail=peer')
  assert.is(formatCacheStatus({ kind: 'upstream', host: 'mirror.gcr.io' }), 'shoal; fwd=miss; detail="mirror.gcr.io"')
  assert.is(formatCacheStatus({ kind: 'upstream', host: '[::1]:5000' }), 'shoal; fwd=miss; detail="[::1]:5000"')
})

test('a host cannot end its string', () => {
  const header = formatCacheStatus({ kind: 'upstream', host: 'a"; hit; b\\' })
  assert.is(header, 'shoal; fwd=miss; detail="a\\"; hit; b\\\\"')
})

test.run()
