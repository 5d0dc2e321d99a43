import { SourceError } from '@shoal/store/source'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { isRedirect, redirectTarget } from './redirect.ts'

test('the statuses that lead elsewhere', () => {
  const redirects = Array.from({ length: 500 }, (_, i) => 100 + i).filter(isRedirect)
  assert.equal(redirects, [301, 302, 303, 307, 308])
})

test('a Location is taken relative to where it was found', () => {
  const from = new URL('https://registry.example.com:5000/v2/a/blobs/x?y=1')
  const target = (location: string) => redirectTarget(from, location).href
  assert.is(target('https://cdn.example.net/b?sig=1'), 'https://cdn.example.net/b?sig=1')
  assert.is(target('/b'), 'https://registry.example.com:5000/b')
  assert.is(target('b'), 'https://registry.example.com:5000/v2/a/blobs/b')
  assert.is(target('//cdn.example.net/b'), 'https://cdn.example.net/b')
  assert.is(target('?z'), 'https://registry.example.com:5000/v2/a/blobs/x?z')
})

test('a Location that is missing or no URL leads nowhere', () => {
  const from = new URL('https://registry.example.com/')
  for (const location of [undefined, 'https://', 'http://[::1', 'https://exa mple.com/'])
    assert.throws(
      () => redirectTarget(from, location),
      (error: unknown) => error instanceof SourceError && error.code === 'broken',
      location ?? 'none',
    )
})

test.run()
