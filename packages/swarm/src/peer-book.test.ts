import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nodeDisk } from '@shoal/store/disk'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { PeerBook, type RememberedPeer } from './peer-book.ts'

const day = 86_400_000

class Shelf implements AsyncDisposable {
  readonly folder: string
  readonly errors: string[] = []
  now = 1_000 * day

  constructor(folder: string) {
    this.folder = folder
  }

  static async make(): Promise<Shelf> {
    return new Shelf(await mkdtemp(join(tmpdir(), 'shoal-book-')))
  }

  open(): Promise<PeerBook> {
    const onError = (error: Error) => void this.errors.push(error.message)
    return PeerBook.open({ folder: this.folder, disk: nodeDisk, now: () => this.now, onError })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true })
  }
}

const peer = (id: string, seenAt: number, network = 'open'): RememberedPeer => ({
  id,
  name: `host-${id}`,
  addresses: ['10.0.0.1:3476'],
  seenAt,
  network,
})

test('peers are remembered over a restart, the last seen first, and each network by itself', async () => {
  await using shelf = await Shelf.make()
  const book = await shelf.open()
  book.remember(peer('a', shelf.now - 2))
  book.remember(peer('b', shelf.now - 1))
  book.remember(peer('c', shelf.now, 'private:1a2b3c4d'))
  await book.flush()
  const again = await shelf.open()
  assert.equal(
    again.rememberedIn('open').map(({ id }) => id),
    ['b', 'a'],
  )
  assert.equal(again.rememberedIn('private:1a2b3c4d'), [peer('c', shelf.now, 'private:1a2b3c4d')])
})

test('one who was not seen for a month is forgotten, and so is the oldest of too many', async () => {
  await using shelf = await Shelf.make()
  const book = await shelf.open()
  book.remember(peer('old', shelf.now - 31 * day))
  for (let count = 0; count < 256; count++) book.remember(peer(`p${count}`, shelf.now - count))
  assert.is(book.rememberedIn('open').length, 256)
  book.remember(peer('new', shelf.now))
  assert.not(book.rememberedIn('open').some(({ id }) => id === 'p255'))
  await book.flush()
})

test('a ban is kept over a restart until it is lifted', async () => {
  await using shelf = await Shelf.make()
  await (await shelf.open()).ban({ id: 'liar', name: 'host', reason: 'wrong bytes', at: shelf.now, until: null })
  const book = await shelf.open()
  assert.ok(book.isBanned('liar'))
  assert.is(await book.unban('liar'), true)
  assert.is(await book.unban('liar'), false)
  assert.not((await shelf.open()).isBanned('liar'))
})

test('a ban for a time ends by itself', async () => {
  await using shelf = await Shelf.make()
  const book = await shelf.open()
  await book.ban({ id: 'slow', name: '', reason: 'next to nothing', at: shelf.now, until: shelf.now + 1000 })
  assert.ok(book.isBanned('slow'))
  shelf.now += 1001
  assert.not(book.isBanned('slow'))
  assert.equal(book.bans, [])
})

test('a file that cannot be read is set aside, not lost', async () => {
  await using shelf = await Shelf.make()
  await writeFile(join(shelf.folder, 'peers.json'), '{"version":1,"peers":"none"}')
  const book = await shelf.open()
  assert.equal(book.rememberedIn('open'), [])
  assert.is(shelf.errors.length, 1)
  assert.match(await readFile(join(shelf.folder, 'peers.json.unreadable'), 'utf8'), /none/)
})

test.run()
