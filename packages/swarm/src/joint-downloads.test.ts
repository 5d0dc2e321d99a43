import { hash, randomBytes } from 'node:crypto'
import { mock } from 'node:test'
import type { ByteRange } from '@shoal/oci/byte-range'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import type { JointDownload, JointTransfer } from '@shoal/store/joint'
import type { Reader } from '@shoal/store/reader'
import type { Giver, Want } from '@shoal/store/source'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { heldBlob } from '../../../test/transfer-peer.ts'
import { type JointDownloadsOptions, PeerDownloads } from './joint-downloads.ts'
import { type PeerAnswer, type PeerBody, PeerViolation } from './peer-client.ts'
import { Provider } from './provider.ts'
import { bytesToSign } from './spread/chunk-hashes.ts'
import { ChunkSet, Chunks, chunkSizeOf } from './spread/chunks.ts'
import { coordinatorsOf } from './spread/coordinators.ts'
import type { HashBatch, Have, SpreadMessage } from './spread/spread-message.ts'

const self = 'self'
const hour = 3_600_000
const large = 1_500_000

/** Bytes that nobody has seen before, and whose download one of these coordinates. */
function content(size: number, coordinator = 'bob', others: readonly string[] = ['bob', 'eve']): Buffer {
  for (;;) {
    const bytes = randomBytes(size)
    if (coordinatorsOf(digestOf(bytes), [self, ...others], 1)[0] === coordinator) return bytes
  }
}

const signatureOf = (author: string, bytes: Uint8Array) =>
  Buffer.from(hash('sha512', author + Buffer.from(bytes)), 'hex')

function readerOf(bytes: Buffer): Reader {
  let at = 0
  return {
    async read(buffer) {
      const count = bytes.copy(buffer, 0, at)
      at += count
      return count
    },
    cancel() {},
    close() {},
  }
}

async function allOf(reader: Reader): Promise<Buffer> {
  const pieces: Buffer[] = []
  for (const buffer = Buffer.alloc(64 * 1024); ; ) {
    const count = await reader.read(buffer)
    if (count === 0) return Buffer.concat(pieces)
    pieces.push(Buffer.from(buffer.subarray(0, count)))
  }
}

function bodyOf(bytes: Buffer, { start = 0, size = bytes.length } = {}): PeerBody {
  return {
    status: 206,
    size,
    start,
    length: bytes.length,
    contentType: undefined,
    async pipe(sink) {
      for (let at = 0; at < bytes.length; at += 60_000) await sink(bytes.subarray(at, at + 60_000))
    },
    abort() {},
  }
}

/** How long something is waited for that must come, in ms. */
const longest = 20_000

/** Waits for what comes by itself. */
async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + longest
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not within ${longest / 1000} s: ${condition}`)
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

/** A while in which what should not happen would. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
}

type Written = { readonly start: number; readonly end: number; readonly giver: Giver; readonly size: number }

/** A transfer that is in memory. */
class MemoryTransfer implements JointTransfer {
  readonly have: RangeSet
  readonly written: Written[] = []
  /** What the sources are to bring, as they were last told. */
  allowed: readonly ByteRange[] = []
  hasLine = true
  download: JointDownload | undefined
  readonly #bytes: Buffer

  /** @param have an earlier run has left */
  constructor(size: number, have: readonly ByteRange[] = []) {
    this.#bytes = Buffer.alloc(size)
    this.have = new RangeSet(have)
  }

  fetch(ranges: RangeSet): void {
    this.allowed = [...ranges]
  }

  async write(bytes: Uint8Array, start: number, giver: Giver, size: number): Promise<void> {
    this.#bytes.set(bytes, start)
    const range = { start, end: start + bytes.length }
    this.written.push({ ...range, giver, size })
    this.#add(range)
  }

  peek({ start, end }: ByteRange): Reader {
    return readerOf(this.#bytes.subarray(start, end))
  }

  line(): boolean {
    return this.hasLine
  }

  /** The sources bring some of what it is to be. */
  bring(bytes: Buffer, range: ByteRange): void {
    bytes.copy(this.#bytes, range.start, range.start, range.end)
    this.#add(range)
  }

  #add(range: ByteRange): void {
    this.have.add(range)
    this.download?.arrived(range)
  }
}

type Asked = {
  readonly peer: string
  readonly chunk: number | undefined
  readonly range: ByteRange | undefined
  /** What it was told that is here. */
  readonly has: readonly number[]
}
type Ban = { readonly peer: string; readonly ms: number | null }

/** A machine that shares downloads with two others, whom a test plays. */
class World implements Disposable {
  readonly bytes: Buffer
  readonly digest: Digest
  readonly chunks: Chunks
  readonly transfer: MemoryTransfer
  readonly downloads: PeerDownloads
  /** What was said to others, message by message, and how many at a time. */
  readonly said: { readonly to: string; readonly message: SpreadMessage }[] = []
  readonly sizes: number[] = []
  readonly asked: Asked[] = []
  readonly bans: Ban[] = []
  readonly errands: { readonly to: string; readonly want: Want }[] = []
  readonly providers: ReadonlyMap<string, Provider>
  /** How a peer answers that is asked for bytes. @default as it should */
  answer: (asked: Asked) => PeerAnswer | Error | undefined = () => undefined
  /** Whether all of it is stored. */
  stored = false

  constructor(
    bytes: Buffer,
    options: Partial<JointDownloadsOptions> & { readonly before?: readonly ByteRange[] } = {},
    members: readonly string[] = ['bob', 'eve'],
  ) {
    const { before = [], ...more } = options
    this.bytes = bytes
    this.digest = digestOf(bytes)
    this.chunks = new Chunks(bytes.length, chunkSizeOf(bytes.length))
    this.transfer = new MemoryTransfer(bytes.length, before)
    const now = () => performance.now()
    this.providers = new Map(
      members.map(id => [id, new Provider(id, id, now, () => this.bans.push({ peer: id, ms: null }))]),
    )
    this.downloads = new PeerDownloads({
      self,
      now,
      random: () => 0.5,
      sign: bytes => signatureOf(self, bytes),
      verify: (author, bytes, signature) => signatureOf(author, bytes).equals(signature),
      isBanned: id => this.bans.some(({ peer }) => peer === id),
      members: () => members,
      client: {
        get: async ({ peerId }, _digest, { chunk, range, has }) => {
          const asked = { peer: peerId, chunk, range, has: [...new ChunkSet(this.chunks.count).lackingOf(has!)] }
          this.asked.push(asked)
          const { start, end } = range ?? { start: 0, end: bytes.length }
          const answer = this.answer(asked) ?? bodyOf(bytes.subarray(start, end), { start, size: bytes.length })
          if (answer instanceof Error) throw answer
          return answer
        },
      },
      peer: id => {
        const provider = this.providers.get(id)
        return provider && { provider, address: { peerId: id, host: '10.0.0.1', port: 3477 } }
      },
      provider: id => this.providers.get(id),
      send: (to, messages) => {
        this.sizes.push(messages.length)
        for (const message of messages) this.said.push({ to, message })
      },
      sendErrand: (to, want) => this.errands.push({ to, want }),
      holders: () => 0,
      gives: () => true,
      maxUploads: 2,
      open: async () => (this.stored ? heldBlob(bytes) : undefined),
      ban: (peer, _reason, ms) => this.bans.push({ peer, ms }),
      ...more,
    })
  }

  get want(): Want {
    const name = parseName('docker.io', 'nginx')
    return { name, digest: this.digest, kind: 'blob', size: this.bytes.length }
  }

  join(want = this.want): JointDownload | undefined {
    this.transfer.download = this.downloads.join(want, this.transfer)
    return this.transfer.download
  }

  /** Joins, and is told by the coordinator that others fetch it. */
  follow(): void {
    this.join()
    const { size, chunk } = this.chunks
    const { digest } = this
    const n = this.told('bob', 'ask')[0]!.n
    this.downloads.receive('bob', { t: 'lease', digest, n, size, chunk, epoch: 1, fetch: [], members: ['bob', 'eve'] })
  }

  /** What was said to somebody, of one kind. */
  told<T extends SpreadMessage['t']>(to: string, t: T): Extract<SpreadMessage, { t: T }>[] {
    const is = (message: SpreadMessage): message is Extract<SpreadMessage, { t: T }> => message.t === t
    return this.said
      .filter(said => said.to === to)
      .map(({ message }) => message)
      .filter(is)
  }

  /** Chunks that somebody was told to be had here. */
  offered(to: string): number[] {
    const runs = this.told(to, 'have').flatMap(({ add }) => add)
    return runs
      .flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i))
      .sort((a, b) => a - b)
  }

  /** What an author has signed. @param bytes of which */
  batch(author: string, first: number, end: number, bytes = this.bytes): HashBatch {
    const { chunks, digest } = this
    const hashes = Array.from({ length: end - first }, (_, i) => {
      const range = chunks.rangeOf(first + i)
      return hash('sha256', bytes.subarray(range.start, range.end), 'hex')
    })
    return {
      author,
      first,
      hashes,
      signature: signatureOf(author, bytesToSign(digest, chunks.chunk, { first, hashes })),
    }
  }

  /** Somebody says what it has. */
  says(from: string, fields: Partial<Have>): void {
    const { digest } = this
    const { size, chunk } = this.chunks
    const nothing = { add: [], hashes: [], claim: [], first: true, handing: false, gives: true, epoch: 1 }
    this.downloads.receive(from, { t: 'have', digest, size, chunk, ...nothing, ...fields })
  }

  /** The sources bring chunks, which are then told of. */
  async brings(first: number, end: number): Promise<void> {
    const range = { start: this.chunks.rangeOf(first).start, end: this.chunks.rangeOf(end - 1).end }
    this.transfer.bring(this.bytes, range)
    await until(() => this.offered('bob').includes(end - 1))
  }

  [Symbol.dispose](): void {
    this.transfer.download?.end(false)
    this.downloads.close()
  }
}

const all = (world: World): readonly [number, number][] => [[0, world.chunks.count]]

test('what others say to have is got from them, written, and offered further', async () => {
  using it = new World(content(large))
  it.follow()
  assert.equal(it.transfer.allowed, [])
  it.says('bob', { add: all(it), hashes: [it.batch('bob', 0, it.chunks.count)] })
  await until(() => it.transfer.have.covers({ start: 0, end: large }))
  await until(() => it.offered('eve').length === it.chunks.count)
  assert.equal(await allOf(it.transfer.peek({ start: 0, end: large })), it.bytes)
  assert.is(it.asked.length, it.chunks.count)
  for (const { peer, chunk, range } of it.asked) {
    assert.is(peer, 'bob')
    assert.equal(range, it.chunks.rangeOf(chunk!))
  }
  for (const { size } of it.transfer.written) assert.is(size, large)
  assert.equal(it.bans, [])
})

test('a chunk that is not what its giver has signed is not written, and its giver is banned', async () => {
  using it = new World(content(large))
  it.answer = ({ range }) => bodyOf(Buffer.alloc(range!.end - range!.start), { start: range!.start, size: large })
  it.follow()
  it.says('bob', { add: [[0, 1]], hashes: [it.batch('bob', 0, 1)] })
  await until(() => it.bans.length > 0)
  await settle()
  assert.equal(it.bans, [{ peer: 'bob', ms: null }])
  assert.equal(it.transfer.written, [])
  assert.equal(it.offered('eve'), [])
})

test('whoever gives another chunk than somebody else has signed is asked why', async () => {
  using it = new World(content(large))
  const other = randomBytes(large)
  it.answer = ({ peer, range }) =>
    peer === 'bob' ? bodyOf(other.subarray(range!.start, range!.end), { start: range!.start, size: large }) : undefined
  it.follow()
  it.says('bob', { add: [[0, 1]], hashes: [it.batch('eve', 0, 1)] })
  await until(() => it.told('bob', 'why').length === 1)
  assert.equal(it.transfer.written, [])
  assert.equal(it.bans, [])
  // It has nothing to show.
  it.downloads.receive('bob', { t: 'because', digest: it.digest, number: 0, hashes: [] })
  assert.equal(it.bans, [{ peer: 'bob', ms: null }])
  it.says('eve', { add: [[0, 1]] })
  await until(() => it.transfer.written.length === 1)
})

test('the author of its hash is who gave a chunk, as far as blame goes, and banned for an hour', async () => {
  using it = new World(content(large))
  it.follow()
  it.says('bob', { add: [[0, 2]], hashes: [it.batch('eve', 0, 1), it.batch('bob', 1, 2)] })
  await until(() => it.transfer.written.length === 2)
  for (const { giver } of [...it.transfer.written].sort((a, b) => a.start - b.start)) giver.wrong('it differs')
  assert.equal(it.bans, [
    { peer: 'eve', ms: hour },
    { peer: 'bob', ms: hour },
  ])
})

test('who has signed other hashes of what turns out right is banned for an hour', async () => {
  using it = new World(content(large))
  it.follow()
  it.says('bob', { add: [[0, 1]], hashes: [it.batch('bob', 0, 1)] })
  await until(() => it.transfer.written.length === 1)
  it.says('eve', { hashes: [it.batch('eve', 0, 1, randomBytes(large))] })
  assert.equal(it.bans, [])
  it.stored = true
  it.transfer.download?.end(true)
  assert.equal(it.bans, [{ peer: 'eve', ms: hour }])
})

const refusals: Record<string, PeerAnswer | Error> = {
  'lacks it': { status: 404 },
  'has a shorter blob': { status: 416, size: 5 },
  'gives less of another blob': bodyOf(Buffer.alloc(5), { size: 5 }),
  'does not answer': new Error('it cannot be reached'),
}
for (const [what, refusal] of Object.entries(refusals))
  test(`one that ${what} costs nothing but to ask another`, async () => {
    using it = new World(content(large))
    it.answer = ({ peer }) => (peer === 'bob' ? refusal : undefined)
    it.follow()
    it.says('bob', { add: [[0, 1]], hashes: [it.batch('bob', 0, 1)] })
    await until(() => it.asked.length === 1)
    await settle()
    assert.equal(it.transfer.written, [])
    it.says('eve', { add: [[0, 1]] })
    await until(() => it.transfer.written.length === 1)
    assert.is(it.asked.at(-1)?.peer, 'eve')
    assert.equal(it.bans, [])
  })

test('who is busy is asked again, and who rests is known to', async () => {
  using it = new World(content(large))
  it.answer = () => (it.asked.length < 3 ? { status: 503, refusal: 'busy' } : undefined)
  it.follow()
  it.says('bob', { add: [[0, 1]], hashes: [it.batch('bob', 0, 1)] })
  await until(() => it.transfer.written.length === 1)
  assert.is(it.asked.length, 3)
  it.answer = () => ({ status: 503, refusal: 'resting' })
  it.says('bob', { first: false, add: [[1, 2]], hashes: [it.batch('bob', 1, 2)] })
  await until(() => it.providers.get('bob')?.willing === false)
  assert.equal(it.bans, [])
})

test('an answer that no peer gives is the end of it', async () => {
  using it = new World(content(large))
  it.answer = () => new PeerViolation('the answer is no HTTP/1.1')
  it.follow()
  it.says('bob', { add: [[0, 1]], hashes: [it.batch('bob', 0, 1)] })
  await until(() => it.bans.length === 1)
  assert.equal(it.bans, [{ peer: 'bob', ms: null }])
  assert.is(it.providers.get('bob')?.active, 0)
})

test('what the sources bring is offered to others, chunk by chunk, and given', async () => {
  using it = new World(content(large, self))
  it.join()
  assert.equal(it.transfer.allowed, [{ start: 0, end: large }])
  it.downloads.receive('bob', { ...askOf(it), n: 7 })
  assert.equal(it.told('bob', 'lease')[0]?.fetch, [])
  it.says('bob', {})
  // Half of the second one is there.
  it.transfer.bring(it.bytes, { start: 0, end: it.chunks.chunk * 1.5 })
  await until(() => it.told('bob', 'hand').length > 0)
  assert.equal(it.told('bob', 'hand')[0]?.chunks, [0])
  const given = await it.downloads.openChunk('bob', it.digest, 0)
  assert.ok(given !== 'lacks' && 'read' in given)
  assert.equal({ range: given.range, size: given.size }, { range: it.chunks.rangeOf(0), size: large })
  assert.equal(await allOf(given.read()), it.bytes.subarray(0, it.chunks.chunk))
  given.close()
  assert.is(await it.downloads.openChunk('bob', it.digest, 1), 'lacks')
  assert.is(await it.downloads.openChunk('bob', digestOf(Buffer.from('something else')), 0), 'lacks')
})

test('a request and its answer tell what both have, and no message tells it again', async () => {
  using it = new World(content(large))
  const { count } = it.chunks
  it.answer = ({ peer, range }) => {
    const { start, end } = range!
    const has = new ChunkSet(count, peer === 'eve' ? [[1, 3]] : [[0, 1]]).bits
    return { ...bodyOf(it.bytes.subarray(start, end), { start, size: large }), has }
  }
  it.follow()
  it.says('eve', {})
  it.says('bob', { add: [[0, 1]], hashes: [it.batch('bob', 0, count)] })
  await until(() => it.transfer.written.length === 1)
  const given = await it.downloads.openChunk('eve', it.digest, 0, new ChunkSet(count, [[1, 2]]).bits)
  assert.ok(given !== 'lacks' && 'read' in given)
  assert.equal([...new ChunkSet(count).lackingOf(given.has)], [0])
  given.close()
  // Of the second one it has told in its request, of the third one in its answer.
  await until(() => it.transfer.written.length === 3)
  assert.equal(
    it.asked.map(({ peer, chunk, has }) => ({ peer, chunk, has })),
    [
      { peer: 'bob', chunk: 0, has: [] },
      { peer: 'eve', chunk: 1, has: [0] },
      // The second one is being written yet.
      { peer: 'eve', chunk: 2, has: [0] },
    ],
  )
  await until(() => it.offered('bob').includes(2))
  assert.equal(it.offered('bob'), [0, 1, 2], 'who coordinates is told all')
  assert.equal(it.offered('eve'), [1, 2])
})

test('what is asked for and not handed on is given to so many at once', async () => {
  using it = new World(content(large))
  it.follow()
  it.says('bob', { add: [[0, 2]], hashes: [it.batch('bob', 0, 2)] })
  await until(() => it.offered('eve').length === 2)
  const give = (peer: string) => it.downloads.openChunk(peer, it.digest, 0)
  const [first, second] = [await give('eve'), await give('joe')]
  assert.ok(first !== 'lacks' && 'read' in first && second !== 'lacks' && 'read' in second)
  assert.equal(await give('kim'), { busy: true, has: new ChunkSet(it.chunks.count, [[0, 2]]).bits })
  first.close()
  const third = await give('kim')
  assert.ok(third !== 'lacks' && 'read' in third)
  for (const each of [second, third]) each.close()
})

test('once all is stored, it is given from there, for a while', async () => {
  using it = new World(content(large))
  it.follow()
  it.says('bob', { add: all(it), hashes: [it.batch('bob', 0, it.chunks.count)] })
  await until(() => it.offered('eve').length === it.chunks.count)
  it.stored = true
  it.transfer.download?.end(true)
  const last = it.chunks.count - 1
  const given = await it.downloads.openChunk('eve', it.digest, last)
  assert.ok(given !== 'lacks' && 'read' in given)
  assert.equal(await allOf(given.read()), it.bytes.subarray(it.chunks.rangeOf(last).start))
  given.close()
  it.stored = false
  assert.is(await it.downloads.openChunk('eve', it.digest, 0), 'lacks')
  it.downloads.close()
  it.stored = true
  assert.is(await it.downloads.openChunk('eve', it.digest, 0), 'lacks')
})

test('after one that was wrong, nothing of it is given', async () => {
  using it = new World(content(large))
  it.follow()
  it.says('bob', { add: [[0, 1]], hashes: [it.batch('bob', 0, 1)] })
  await until(() => it.offered('eve').length === 1)
  it.transfer.download?.end(false)
  assert.is(await it.downloads.openChunk('eve', it.digest, 0), 'lacks')
})

test('what an earlier run has left is not fetched again, and given only when all was found right', async () => {
  const bytes = content(large, self)
  const { chunk } = new Chunks(large, chunkSizeOf(large))
  // All of the first one, and half of the second.
  using it = new World(bytes, { before: [{ start: 0, end: chunk * 1.5 }] })
  it.transfer.bring(bytes, { start: 0, end: chunk * 1.5 })
  it.join()
  assert.equal(it.transfer.allowed, [{ start: chunk, end: large }])
  it.says('bob', {})
  await it.brings(1, 3)
  assert.equal(it.offered('bob'), [2])
  for (const kept of [0, 1]) assert.is(await it.downloads.openChunk('bob', it.digest, kept), 'lacks')
  it.stored = true
  it.transfer.download?.end(true)
  await until(() => [0, 1].every(kept => it.offered('bob').includes(kept)))
})

test('who has what is small is asked for it, with no ceremony', () => {
  const small = content(1000)
  using held = new World(small, { holders: () => 1 })
  assert.is(held.join(), undefined)
  using nowhere = new World(small)
  assert.ok(nowhere.join())
  using big = new World(content(large), { holders: () => 1 })
  assert.ok(big.join())
})

test('what has no known size, or a digest that is no hash of chunks, is not shared', () => {
  using it = new World(content(large))
  const { size: _size, ...unknown } = it.want
  assert.is(it.join(unknown), undefined)
  const sha512 = `sha512:${'0'.repeat(128)}` as Digest
  assert.is(it.join({ ...it.want, digest: sha512 }), undefined)
  assert.equal(it.said, [])
})

test('a manifest is shared whole, whatever its size, and needs no author', async () => {
  using it = new World(content(3000))
  it.transfer.download = it.downloads.join({ ...it.want, kind: 'manifest' }, it.transfer)
  const { digest } = it
  const [ask] = it.told('bob', 'ask')
  assert.is(ask?.size, 0)
  const of = { size: 0, chunk: 1 }
  it.downloads.receive('bob', { t: 'lease', digest, n: ask!.n, ...of, epoch: 1, fetch: [], members: ['bob'] })
  it.says('bob', { ...of, add: [[0, 1]] })
  await until(() => it.transfer.written.length === 1)
  const { start, end, size, giver } = it.transfer.written[0]!
  assert.equal({ start, end, size }, { start: 0, end: 3000, size: 3000 })
  // Its hash is known: who gave another would have been found out.
  assert.is(giver.label, 'bob')
  assert.equal(it.asked, [{ peer: 'bob', chunk: 0, range: undefined, has: [] }])
})

test('a manifest that others gave is given whole, also before it is stored', async () => {
  using it = new World(content(3000))
  it.transfer.download = it.downloads.join({ ...it.want, kind: 'manifest' }, it.transfer)
  const { digest } = it
  const [ask] = it.told('bob', 'ask')
  const of = { size: 0, chunk: 1 }
  it.downloads.receive('bob', { t: 'lease', digest, n: ask!.n, ...of, epoch: 1, fetch: [], members: ['bob'] })
  it.says('bob', { ...of, add: [[0, 1]] })
  await until(() => it.transfer.written.length === 1)
  await settle()
  const given = await it.downloads.openChunk('eve', digest, 0)
  assert.ok(given !== 'lacks' && 'read' in given)
  assert.equal({ range: given.range, size: given.size }, { range: { start: 0, end: 3000 }, size: 3000 })
  assert.equal(await allOf(given.read()), it.bytes)
  given.close()
})

test('a manifest that this machine fetches is given when it is verified, and not before', async () => {
  using it = new World(content(3000, self))
  it.transfer.download = it.downloads.join({ ...it.want, kind: 'manifest' }, it.transfer)
  assert.is(it.transfer.allowed[0]?.start, 0)
  it.says('bob', { size: 0, chunk: 1 })
  it.transfer.bring(it.bytes, { start: 0, end: 3000 })
  await settle()
  assert.is(await it.downloads.openChunk('bob', it.digest, 0), 'lacks')
  it.stored = true
  it.transfer.download?.end(true)
  await until(() => it.offered('bob').length === 1)
  const given = await it.downloads.openChunk('bob', it.digest, 0)
  assert.ok(given !== 'lacks' && 'read' in given)
  assert.equal({ range: given.range, size: given.size }, { range: { start: 0, end: 3000 }, size: 3000 })
  assert.equal(await allOf(given.read()), it.bytes)
  given.close()
})

test('who gives nothing says so', () => {
  using it = new World(content(large), { gives: () => false })
  it.join()
  assert.is(it.told('bob', 'ask')[0]?.gives, false)
})

test('nobody about: all is fetched at once, and nothing said', () => {
  using it = new World(content(large, self, []), {}, [])
  it.join()
  assert.equal(it.transfer.allowed, [{ start: 0, end: large }])
  assert.equal(it.said, [])
})

test('a question is asked at once, what else there is to say is gathered', () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  try {
    using it = new World(content(large))
    it.join()
    assert.equal(it.sizes, [1])
    it.downloads.receive('bob', { ...leaseOf(it), members: ['bob'] })
    it.downloads.receive('bob', { t: 'why', digest: it.digest, number: 0 })
    it.downloads.receive('bob', { t: 'why', digest: it.digest, number: 1 })
    assert.equal(it.sizes, [1])
    mock.timers.tick(15)
    assert.equal(it.sizes, [1, 3])
    assert.equal(
      it.said.slice(1).map(({ message }) => message.t),
      ['have', 'because', 'because'],
    )
  } finally {
    mock.timers.reset()
  }
})

test('with no line, one after another is asked to fetch it, six at most, until something comes', () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  try {
    const many = ['bob', 'eve', 'joe', 'kim', 'lea', 'max', 'ned', 'pam']
    using it = new World(content(large, 'bob', many), {}, many)
    it.transfer.hasLine = false
    it.join()
    assert.is(it.told('bob', 'ask')[0]?.line, false)
    assert.equal(
      it.errands.map(({ want }) => want),
      [it.want],
    )
    mock.timers.tick(700)
    assert.is(it.errands.length, 2)
    it.transfer.have.add({ start: 0, end: 10 })
    mock.timers.tick(700)
    assert.is(it.errands.length, 2)
    for (let turn = 0; turn < 10; turn++) mock.timers.tick(700)
    assert.is(it.errands.length, 6)
    assert.is(new Set(it.errands.map(({ to }) => to)).size, 6)
  } finally {
    mock.timers.reset()
  }
})

test('whose line turns out dead asks from then on, and nobody once it is over', () => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  try {
    using it = new World(content(large))
    it.join()
    mock.timers.tick(700)
    assert.equal(it.errands, [])
    it.transfer.hasLine = false
    mock.timers.tick(700)
    assert.is(it.errands.length, 1)
    it.transfer.download?.end(false)
    mock.timers.tick(7000)
    assert.is(it.errands.length, 1)
  } finally {
    mock.timers.reset()
  }
})

/** What one asks who has just come. */
function askOf({ digest, bytes }: World) {
  const fresh = { n: 1, chunk: 0, epoch: 0, want: [], gives: true, line: true } as const
  return { t: 'ask', digest, size: bytes.length, why: 'new', ...fresh } as const
}

/** What the coordinator answers who is to join the others. */
function leaseOf(it: World) {
  const { size, chunk } = it.chunks
  const n = it.told('bob', 'ask')[0]!.n
  return { t: 'lease', digest: it.digest, n, size, chunk, epoch: 1, fetch: [], members: ['bob', 'eve'] } as const
}

test.run()
