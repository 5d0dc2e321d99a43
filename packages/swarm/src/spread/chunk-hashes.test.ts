import { Buffer } from 'node:buffer'
import type { Digest } from '@shoal/oci/digest'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ChunkHashes } from './chunk-hashes.ts'
import { ChunkSet } from './chunks.ts'
import type { HashBatch } from './spread-message.ts'

const digest = `sha256:${'ab'.repeat(32)}` as Digest
const signatureOf = (author: string, bytes: Uint8Array) => Buffer.from(`${author} ${Buffer.from(bytes)}`)

/** What one of several machines knows, and whom it has banned. */
function hashesOf(self: string, banned: readonly string[] = []): ChunkHashes {
  return new ChunkHashes(digest, 65_536, 10, {
    self,
    sign: bytes => signatureOf(self, bytes),
    verify: (author, bytes, signature) => Buffer.compare(signatureOf(author, bytes), signature) === 0,
    isBanned: member => banned.includes(member),
  })
}

/** What an author tells that has found these hashes. */
function toldBy(author: string, found: Readonly<Record<number, string>>): HashBatch[] {
  const hashes = hashesOf(author)
  for (const [index, hash] of Object.entries(found)) hashes.found(Number(index), hash)
  hashes.sign()
  return hashes.batches.filter(batch => batch !== undefined)
}

test('what an author has signed is believed from whomever it comes', () => {
  const hashes = hashesOf('me')
  const [batch] = toldBy('author', { 3: 'three', 4: 'four' })
  assert.ok(hashes.add(batch!).kept)
  assert.equal(hashes.of(4), { hash: 'four', author: 'author' })
  assert.equal(hashes.batches, [batch])
})

test('what an author has not signed is not', () => {
  const hashes = hashesOf('me')
  const [batch] = toldBy('author', { 3: 'three' })
  assert.not.ok(hashes.add({ ...batch!, hashes: ['tree'] }).kept)
  assert.not.ok(hashes.add({ ...batch!, author: 'another' }).kept)
  assert.not.ok(hashes.add({ ...batch!, first: 4 }).kept)
  assert.is(hashes.of(3), undefined)
  assert.is(hashes.batches.length, 0)
})

test('chunks that there are none of are not', () => {
  const [batch] = toldBy('author', { 9: 'nine' })
  const signed = { ...batch!, hashes: ['nine', 'ten'] }
  assert.not.ok(hashesOf('me').add(signed).kept)
})

test('the first to tell of a chunk is believed, and the other is known for what it said', () => {
  const hashes = hashesOf('me')
  hashes.add(toldBy('one', { 3: 'three' })[0]!)
  const { contradicts } = hashes.add(toldBy('two', { 3: 'tree' })[0]!)
  assert.not.ok(contradicts)
  assert.is(hashes.of(3)?.author, 'one')
  assert.equal(hashes.deniers(new ChunkSet(10)), [], 'nobody knows yet who is right')
  assert.equal(hashes.deniers(new ChunkSet(10, [[3, 4]])), ['two'])
})

test('who signs two hashes of one chunk is caught', () => {
  const hashes = hashesOf('me')
  assert.not.ok(hashes.add(toldBy('author', { 3: 'three' })[0]!).contradicts)
  assert.not.ok(hashes.add(toldBy('author', { 3: 'three', 4: 'four' })[0]!).contradicts)
  assert.ok(hashes.add(toldBy('author', { 4: 'for', 5: 'five' })[0]!).contradicts)
})

test('what this machine finds by itself counts more than what it was told', () => {
  const hashes = hashesOf('me')
  hashes.add(toldBy('author', { 3: 'tree' })[0]!)
  hashes.found(3, 'three')
  assert.equal(hashes.of(3), { hash: 'three', author: 'me' })
  assert.equal(hashes.deniers(new ChunkSet(10, [[3, 4]])), ['author'])
})

test('the word of one who is banned is worth nothing, and what it said is forgotten but for what is there', () => {
  assert.not.ok(hashesOf('me', ['author']).add(toldBy('author', { 3: 'three' })[0]!).kept)
  const hashes = hashesOf('me')
  const [three, five] = toldBy('author', { 3: 'three', 5: 'five' })
  hashes.add(three!)
  hashes.add(five!)
  hashes.forget('author', new ChunkSet(10, [[3, 4]]))
  assert.is(hashes.of(5), undefined)
  // It may have to be shown where that came from.
  assert.equal(hashes.batchOf(3), three)
})

test('a batch is not longer than others take it', () => {
  const hashes = new ChunkHashes(digest, 65_536, 3000, {
    self: 'me',
    sign: () => new Uint8Array(),
    verify: () => true,
    isBanned: () => false,
  })
  for (let index = 0; index < 3000; index++) hashes.found(index, 'hash')
  hashes.sign()
  assert.equal(
    hashes.batches.map(batch => [batch?.first, batch?.hashes.length]),
    [
      [0, 1024],
      [1024, 1024],
      [2048, 952],
    ],
  )
})

test.run()
