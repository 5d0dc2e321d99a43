import { createHash } from 'node:crypto'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { Filling } from '@shoal/mirror/filling'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { mediaTypes } from '@shoal/oci/media-type'
import { parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import { isAbsent } from '@shoal/store/disk'
import { Layout } from '@shoal/store/layout'
import { type Offer, type Source, SourceError, type Want } from '@shoal/store/source'
import { Store } from '@shoal/store/store'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { CrashingDisk, type Loss } from '../crashing-disk.ts'
import { readAll } from '../read-all.ts'

const MiB = 1024 * 1024
const name = parseName('docker.io', 'library/crash')
const tag = 'latest'

/** Bytes that are the same in every run. */
function bytesOf(seed: string, length: number): Buffer {
  const block = createHash('sha512').update(seed).digest()
  const bytes = Buffer.alloc(length, block)
  // No two blocks are the same, so that none can stand in for another.
  for (let at = 0; at + 4 <= length; at += block.length) bytes.writeUInt32LE(at, at)
  return bytes
}

type Kind = Want['kind']

type Content = { readonly kind: Kind; readonly bytes: Buffer; readonly digest: Digest; readonly mediaType: string }

const content = (kind: Kind, mediaType: string, bytes: Buffer): Content => ({
  kind,
  mediaType,
  bytes,
  digest: digestOf(bytes),
})

const described = ({ mediaType, digest, bytes }: Content) => ({ mediaType, digest, size: bytes.length })

type Image = { readonly index: Content; readonly manifest: Content; readonly blobs: readonly Content[] }

/** An index, and the one image that it lists. */
function imageOf(layers: readonly Content[]): Image {
  const json = (kind: Kind, mediaType: string, value: object) =>
    content(kind, mediaType, Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...value })))
  const config = json('blob', 'application/vnd.oci.image.config.v1+json', { layers: layers.length })
  const manifest = json('manifest', mediaTypes.ociManifest, {
    config: described(config),
    layers: layers.map(described),
  })
  const index = json('manifest', mediaTypes.ociIndex, { manifests: [described(manifest)] })
  return { index, manifest, blobs: [config, ...layers] }
}

const layerOf = (seed: string, length: number) =>
  content('blob', 'application/vnd.oci.image.layer.v1.tar', bytesOf(seed, length))

const shared = layerOf('shared', 90_000)
const parked = layerOf('parked', 400_000)
const spoilt = layerOf('spoilt', 200_000)
const images = {
  old: imageOf([shared, layerOf('old', 250_000), layerOf('byte', 1)]),
  new: imageOf([shared, parked, spoilt]),
  large: imageOf([layerOf('large', 65 * MiB)]),
}
const all = Object.values(images).flatMap(({ index, manifest, blobs }) => [index, manifest, ...blobs])
const contents: ReadonlyMap<Digest, Content> = new Map(all.map(each => [each.digest, each]))

/** Has everything; with a fault, it ends early or gives a wrong byte. */
class Shelf implements Source {
  readonly label = 'shelf'
  readonly #fault: { readonly until: number } | 'wrong' | undefined

  constructor(fault?: { readonly until: number } | 'wrong') {
    this.#fault = fault
  }

  async find({ digest }: Want): Promise<Offer | null> {
    const { bytes, mediaType } = contents.get(digest)!
    const size = bytes.length
    const fault = this.#fault
    return {
      origin: { kind: 'upstream', host: this.label, visibility: 'public' },
      size,
      mediaType,
      ranges: () => new RangeSet([{ start: 0, end: size }]),
      onGrow: () => ({ [Symbol.dispose]: () => {} }),
      close: () => {},
      fetch: async ({ start, end }, into) => {
        const piece = size > MiB ? MiB : 60_000
        for (let at = start; into.room > 0; at += piece) {
          const until = typeof fault === 'object' ? Math.max(fault.until, start) : end
          const sent = Buffer.from(bytes.subarray(at, Math.min(at + piece, end, until)))
          // Final, so that it is not asked again.
          if (sent.length === 0) throw new SourceError('denied', 'it ends early')
          if (fault === 'wrong' && at === start) sent[0]! ^= 1
          await into.write(sent)
          await setImmediate()
        }
      },
    }
  }
}

/** What clients were given to the end, and so may count on. */
class Acknowledged {
  readonly digests = new Set<Digest>()
  /** What the tag was when it was written, one after another. */
  readonly tags: Digest[] = []

  constructor(other?: Acknowledged) {
    for (const digest of other?.digests ?? []) this.digests.add(digest)
    this.tags.push(...(other?.tags ?? []))
  }
}

/** Clients of one store. */
class Clients {
  readonly #store: Store
  readonly #acknowledged: Acknowledged

  constructor(store: Store, acknowledged = new Acknowledged()) {
    this.#store = store
    this.#acknowledged = acknowledged
  }

  /** Gets one piece of content; again if it breaks off because what came first was wrong. */
  async get(content: Content, sources: readonly Source[] = [new Shelf()]): Promise<void> {
    for (let last = false; ; last = true)
      try {
        const held = await this.held(content)
        if (held) this.#take(content, held)
        else await this.#fetch(content, sources)
        return
      } catch (error) {
        const again = error instanceof Error && 'code' in error && (error.code === 'broken' || error.code === 'ROTTEN')
        if (!again || last) throw error
      }
  }

  /** @throws if it breaks off */
  async #fetch(content: Content, sources: readonly Source[]): Promise<void> {
    const { digest, kind, bytes } = content
    const store = this.#store
    const transfer = store.begin(digest)
    const running = new Filling({
      store,
      transfer,
      want: { name, digest, kind, size: bytes.length },
      sources,
      random: () => 0,
      onWrong: () => assert.ok(sources.length > 1, `a source was blamed for ${digest}`),
      onFailure: () => {},
      onUnstored: () => {},
    }).run()
    using _interest = transfer.hold()
    try {
      if (kind === 'blob') {
        await transfer.sized
        const got = await readAll(transfer.read({ start: 0, end: bytes.length }))
        // What only passes through, because the disk took no more, nobody counts on.
        if (transfer.stores) this.#take(content, got)
      } else {
        const settled = await transfer.settled
        if (settled.error) throw settled.error
        if (!settled.stored) return
        this.#take(content, (await store.manifest(digest))?.bytes)
        await store.visibilities.note(name, digest, 'public')
      }
    } finally {
      await running
    }
  }

  /** A client has all of it, and counts on it from here on. */
  #take({ digest, bytes }: Content, got: Buffer | undefined): void {
    assert.ok(got?.equals(bytes), `${digest} has the right bytes`)
    this.#acknowledged.digests.add(digest)
  }

  /** What the store gives with nobody to ask. @throws if it has rotten */
  async held({ digest, kind }: Content): Promise<Buffer | undefined> {
    if (kind === 'manifest') return (await this.#store.manifest(digest))?.bytes
    const held = await this.#store.open(digest)
    if (!held) return undefined
    try {
      return await readAll(held.read({ start: 0, end: held.size }))
    } finally {
      held.close()
    }
  }

  /** Pulls an image as docker does: what it is made of at once. */
  async pull({ index, manifest, blobs }: Image, how: ReadonlyMap<Content, Source[]> = new Map()): Promise<void> {
    const { refs } = this.#store
    refs.see(name, tag, { descriptor: described(index), at: Date.now(), from: 'shelf', visibility: 'public' })
    await this.get(index)
    await this.get(manifest)
    await Promise.all(blobs.map(blob => this.get(blob, how.get(blob))))
    // What the daemon does within two seconds.
    await refs.flush()
    this.#acknowledged.tags.push(index.digest)
  }

  /** Has an image go, with all that it is made of. */
  async evict({ index, manifest, blobs }: Image): Promise<void> {
    const digests = [index, manifest, ...blobs].map(({ digest }) => digest)
    assert.equal(await this.#store.evict(digests), digests)
  }
}

/** A disk, and what clients may count on to be there. */
type State = { readonly disk: CrashingDisk; readonly acknowledged: Acknowledged }

/** What is on the disk before, and what is then done until the crash. */
type Scenario = {
  readonly before?: State
  readonly act: (clients: Clients) => Promise<void>
  readonly image: Image
  /** The first operation to stop at. @default the first of all */
  readonly from?: (operation: string) => boolean
  readonly losses: Readonly<Record<string, Loss>>
  /** Whose file is spoilt before. */
  readonly rotten?: Content
  /** What goes: a part of it may be left, but no manifest without what it needs. */
  readonly going?: Image
}

const kept = () => 'kept' as const
const lost = () => 'lost' as const

/** Whether a path is of `blobs/`. */
const ofBlobs = (path: string) => path.includes('blobs')

/** Decides for each path by itself, and in the same way in every run. */
function byChance(seed: number): Loss {
  const draw = (path: string) => createHash('sha256').update(`${seed} ${path}`).digest()[0]!
  return {
    bytes: path => (['kept', 'lost', 'cut', 'zeros'] as const)[draw(path) % 4]!,
    names: path => (draw(path) % 2 === 0 ? 'kept' : 'lost'),
  }
}

const losses: Readonly<Record<string, Loss>> = {
  'the process is killed': { bytes: kept, names: kept },
  'all that was not synced is lost': { bytes: lost, names: lost },
  'names survive, their bytes do not': { bytes: lost, names: kept },
  'names survive, with half of their bytes': { bytes: () => 'cut', names: kept },
  'names survive, with zeros for their bytes': { bytes: () => 'zeros', names: kept },
  'bytes survive, their names do not': { bytes: kept, names: lost },
  'only names of blobs are lost': { bytes: kept, names: path => (ofBlobs(path) ? 'lost' : 'kept') },
  'only names of blobs survive': { bytes: lost, names: path => (ofBlobs(path) ? 'kept' : 'lost') },
  'each file and folder has a fate of its own': byChance(1),
  'each file and folder has another fate': byChance(2),
}

/** Level's files do not go through the store's disk: whatever they are after a crash, it must do. */
const indexes = ['as it was before', 'as it is', 'gone'] as const

class Crashes implements AsyncDisposable {
  readonly folder: string
  readonly warnings: string[] = []
  points = 0
  crashes = 0

  private constructor(folder: string) {
    this.folder = folder
  }

  static async open(): Promise<Crashes> {
    return new Crashes(await mkdtemp(join(tmpdir(), 'shoal-crash-')))
  }

  get data(): string {
    return join(this.folder, 'data')
  }

  get index(): string {
    return join(this.data, 'index')
  }

  disk(stopAt?: number): CrashingDisk {
    const { folder: top, index: real } = this
    return new CrashingDisk({ top, real, ...(stopAt !== undefined && { stopAt }) })
  }

  open(disk: CrashingDisk): Promise<Store> {
    return Store.open({ folder: this.data, disk, onWarning: warning => this.warnings.push(warning) })
  }

  /** Acts until the disk stops, or to the end. @returns what was given until then */
  async act(
    { disk, acknowledged: before }: State,
    act: Scenario['act'],
    copyIndex?: string,
  ): Promise<{ acknowledged: Acknowledged; done: boolean }> {
    const acknowledged = new Acknowledged(before)
    let store: Store | undefined
    let done = false
    const opening = this.open(disk)
    const acting = (async () => {
      store = await opening
      await act(new Clients(store, acknowledged))
      await store.close()
      done = true
    })()
    await Promise.race([acting, disk.stopped])
    // What the store would still give to its clients, it is given the time for.
    for (let turn = 0; turn < 10 && !done; turn++) {
      await store?.index.listing('')
      await setImmediate()
    }
    if (copyIndex !== undefined) await copy(this.index, copyIndex)
    // What comes after the end of the disk does not count.
    const given = { acknowledged: new Acknowledged(acknowledged), done }
    disk.end()
    await acting.catch(() => {})
    await (await opening.catch(() => undefined))?.index.close()
    return given
  }

  /** Acts to the end, stops as one should, and then the power fails. */
  async whole(act: Scenario['act'], disk = this.disk(), acknowledged = new Acknowledged()): Promise<State> {
    const { done, acknowledged: given } = await this.act({ disk, acknowledged }, act)
    assert.ok(done)
    return { disk: disk.after({ bytes: lost, names: lost }), acknowledged: given }
  }

  /** Crashes a scenario at each of its operations, in each way; and once more while it recovers from that. */
  async run(scenario: Scenario): Promise<void> {
    const { before, act, image, losses, from = () => true } = scenario
    const [indexBefore, indexAfter] = [join(this.folder, 'index-before'), join(this.folder, 'index-after')]
    await copy(this.index, indexBefore)
    const start = (stopAt?: number): State => ({
      disk: before ? before.disk.after({ bytes: kept, names: kept }, stopAt) : this.disk(stopAt),
      acknowledged: before?.acknowledged ?? new Acknowledged(),
    })
    const rehearsal = start()
    await this.act(rehearsal, act)
    const first = Math.max(rehearsal.disk.operations.findIndex(from), 0)
    for (let stopAt = first, done = false; !done; stopAt++) {
      await copy(indexBefore, this.index)
      const { disk, acknowledged } = start(stopAt)
      const acted = await this.act({ disk, acknowledged }, act, indexAfter)
      done = acted.done
      this.points++
      for (const [nth, [what, loss]] of Object.entries(losses).entries()) {
        const index = indexes[(stopAt + nth) % indexes.length]!
        await copy(index === 'gone' ? 'nowhere' : index === 'as it is' ? indexAfter : indexBefore, this.index)
        let state = { disk: disk.after(loss), acknowledged: acted.acknowledged }
        let again = ''
        try {
          // What is pulled again comes with its manifest first.
          if (!scenario.going && nth === stopAt % Object.keys(losses).length) {
            const second = disk.after(loss, (7 * stopAt) % 40)
            const recovery = { disk: second, acknowledged: acted.acknowledged }
            const { acknowledged } = await this.act(recovery, clients => clients.pull(image))
            state = { disk: second.after(loss), acknowledged }
            again = `, and then after ${second.operations.at(-1)}`
            this.crashes++
          }
          await this.#recover(state, scenario)
        } catch (error) {
          const where = `${what}, the index ${index}, at operation ${stopAt}, after ${disk.operations.at(-1)}${again}`
          throw new Error(`${where}: ${error instanceof Error ? error.message : error}`, { cause: error })
        }
        this.crashes++
      }
    }
  }

  /** Starts again on what is left, and checks that it is what was promised. */
  async #recover({ disk, acknowledged: { digests, tags } }: State, { image, rotten, going }: Scenario): Promise<void> {
    const store = await this.open(disk)
    try {
      const clients = new Clients(store)
      const layout = await Layout.open(this.data, disk)
      for (const digest of await layout.blobs()) {
        const bytes = await disk.readFile(layout.blob(digest))
        const sound = bytes.equals(contents.get(digest)!.bytes)
        assert.ok(sound || digest === rotten?.digest, `the file of ${digest} has the right bytes`)
      }
      for (const digest of digests) {
        const content = contents.get(digest)!
        assert.ok((await clients.held(content))?.equals(content.bytes), `${digest} was given, and is held`)
      }
      if (going) {
        const left = new Set(await layout.blobs())
        const { index, manifest, blobs } = going
        assert.ok(!left.has(index.digest) || left.has(manifest.digest), 'no index is left without its manifest')
        const whole = blobs.every(({ digest }) => left.has(digest))
        assert.ok(!left.has(manifest.digest) || whole, 'no manifest is left without what it needs')
      }
      const held = store.refs.held(name, tag)?.descriptor.digest
      const known = held !== undefined && (held === tags.at(-1) || !tags.includes(held))
      assert.ok(known || tags.length === 0, 'the tag was written, and is known')
      if (held) assert.ok(store.sizeOf(held) !== undefined, 'a tag points to what is held')
      await clients.pull(image)
      assert.is(store.refs.held(name, tag)?.descriptor.digest, image.index.digest)
      await store.refs.flush()
      const allowed = [
        'oci-layout',
        'index.json',
        'index.json.new',
        'blobs',
        'ingest',
        ...(rotten ? ['quarantine'] : []),
      ]
      const left = (await disk.list(this.data)).filter(name => !allowed.includes(name))
      assert.equal(left, [], 'nothing is left over')
      assert.equal(await disk.list(join(this.data, 'ingest')), [], 'nothing is left over in ingest/')
      assert.ok((await disk.list(join(this.data, 'quarantine'))).length <= 1, 'only what has rotten is in quarantine')
    } finally {
      await store.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** Makes a folder what another is; removes it if there is no other. */
async function copy(from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true })
  await cp(from, to, { recursive: true }).catch(error => {
    if (!isAbsent(error)) throw error
  })
}

const pullOld = (clients: Clients) => clients.pull(images.old)

let points = 0
let crashes = 0

async function crash(prepare: (crashes: Crashes) => Promise<Scenario>): Promise<void> {
  await using run = await Crashes.open()
  await run.run(await prepare(run))
  assert.equal(
    run.warnings.filter(warning => /cannot be read/.test(warning)),
    [],
    'no file of the store was torn',
  )
  points += run.points
  crashes += run.crashes
}

test('a first pull into a new folder may crash anywhere', () =>
  crash(async () => ({ act: pullOld, image: images.old, losses })))

test('a pull that moves a tag, parks, goes on, and is given wrong bytes may crash anywhere', () =>
  crash(async run => ({
    before: await run.whole(pullOld),
    act: async clients => {
      for (const until of [120_000, 250_000])
        await clients.get(parked, [new Shelf({ until })]).then(
          () => assert.unreachable(),
          () => {},
        )
      await clients.pull(images.new, new Map([[spoilt, [new Shelf('wrong'), new Shelf()]]]))
    },
    image: images.new,
    losses,
  })))

test('a pull that finds a blob rotten may crash anywhere', () =>
  crash(async run => {
    const { disk, acknowledged } = await run.whole(pullOld)
    const path = (await Layout.open(run.data, disk)).blob(shared.digest)
    const file = await disk.open(path, 'read')
    await file.write(Buffer.from('rotten'), 100)
    await file.sync()
    acknowledged.digests.delete(shared.digest)
    return { before: { disk, acknowledged }, act: pullOld, image: images.old, losses, rotten: shared }
  }))

test('a pull long enough to be noted on the way may crash from there on', () =>
  crash(async run => ({
    before: await run.whole(pullOld),
    act: clients => clients.pull(images.large),
    image: images.large,
    from: operation => operation.startsWith('create') && operation.endsWith('.json.new'),
    losses: Object.fromEntries(Object.entries(losses).filter((_, nth) => nth === 0 || nth === 1 || nth === 4)),
  })))

test('an image that goes may be cut off anywhere', () =>
  crash(async run => ({
    // Nobody counts on what is to go.
    before: { disk: (await run.whole(pullOld)).disk, acknowledged: new Acknowledged() },
    act: clients => clients.evict(images.old),
    image: images.old,
    going: images.old,
    losses,
  })))

test.after(() => {
  console.log(`\nmeasured: ${points} crash points, ${crashes} crashes with what each left of the disk`)
})

test.run()
