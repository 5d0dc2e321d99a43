import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import type { ByteRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import type { Reader } from '@shoal/store/reader'
import { type Giver, type Offer, type RangeWriter, type Source, SourceError, type Want } from '@shoal/store/source'
import { Store } from '@shoal/store/store'
import type { Transfer } from '@shoal/store/transfer'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type DiskOperation, WatchedDisk } from '../../../test/watched-disk.ts'
import { Filling } from './filling.ts'
import { Rates } from './rates.ts'

/** How long new worlds are made, in ms; the last one ends a little later. */
const duration = 6000

/** How long one world may take, in ms: less than who does not read is waited for. */
const patience = 20_000

const megabyte = 1024 * 1024
const name = parseName('docker.io', 'busybox')

/** Numbers from 0 to 1 that are the same for the same seed (mulberry32). */
function chances(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const faults = ['open', 'write', 'sync', 'rename', 'syncFolder', 'replaceFile', 'read', 'remove', 'sizeOf'] as const

const kinds = ['good', 'cut', 'liar', 'slow', 'no range', 'none', 'failing', 'other size'] as const

type Kind = (typeof kinds)[number] | 'peers'

const peerKinds = ['good', 'cut', 'cut', 'liar', 'cut liar', 'slow', 'drip', 'other size'] as const

/** A peer, and whether it gave a wrong byte or size, and was told that it did. */
class Peer implements Giver {
  readonly kind = 'peer'
  readonly label: (typeof peerKinds)[number]
  told = false

  constructor(label: (typeof peerKinds)[number]) {
    this.label = label
  }

  wrong(): void {
    this.told = true
  }
}

/** One blob, that a disk, sources and readers of a seed's making do their worst to. */
class Storm {
  readonly problems: string[] = []
  readonly #random: () => number
  readonly #blob: Buffer
  readonly #fillings: { filling: Filling; running: Promise<void>; transfer: Transfer; liars: Set<Peer> }[] = []
  readonly #peers: readonly Peer[]
  readonly #rates = new Rates()
  readonly #lastIsGood: boolean
  readonly #sizeIsKnown: boolean
  /** Whether upstreams are honest, so that whatever is read early is right too. */
  readonly #upstreamIsHonest: boolean

  constructor(seed: number) {
    this.#random = chances(seed)
    const size = this.#maybe(0.5)
      ? 1 + this.#below(3 * megabyte)
      : 10 * megabyte + this.#below((this.#maybe(0.8) ? 20 : 60) * megabyte)
    this.#blob = Buffer.alloc(size, Buffer.from(Array.from({ length: 1009 }, () => this.#below(256))))
    this.#lastIsGood = this.#maybe(0.8)
    this.#sizeIsKnown = this.#maybe(0.6)
    this.#upstreamIsHonest = this.#maybe(0.5)
    const count = this.#maybe(0.6) ? 1 + this.#below(5) : 0
    this.#peers = Array.from({ length: count }, () => new Peer(peerKinds[this.#below(peerKinds.length)]!))
    if (this.#maybe(0.7)) for (const kind of kinds) this.#rates.begin(kind)(200 * megabyte, 1000)
  }

  async run(): Promise<void> {
    const disk = await WatchedDisk.open()
    const store = await Store.open({ folder: disk.folder, disk, onWarning: () => {} })
    const digest = digestOf(this.#blob)
    const spoilt = this.#maybe(0.6)
    if (spoilt) this.#spoil(disk)
    const timers = [
      setTimeout(() => {
        this.problems.push('it hangs')
        for (const { filling } of this.#fillings) filling.stop(new SourceError('revoked', 'it hangs'))
      }, patience),
    ]
    if (this.#maybe(0.2)) {
      const stop = () => {
        for (const { filling } of this.#fillings) filling.stop(new SourceError('revoked', 'shoal is stopping'))
      }
      timers.push(setTimeout(stop, this.#below(150)))
    }
    await Promise.all(Array.from({ length: 1 + this.#below(6) }, () => this.#client(store)))
    for (const { running } of this.#fillings) await running
    for (const timer of timers) clearTimeout(timer)

    disk.before = () => {}
    for (let i = 0; disk.openFiles > 0 && i < 1000; i++) await sleep(1)
    this.#expect(disk.openFiles === 0, `${disk.openFiles} files are open`)
    this.#expect(disk.misused.length === 0, disk.misused.join())
    for (const { label, told } of this.#peers)
      this.#expect(!told || label.endsWith('liar') || label === 'other size', `the peer "${label}" is blamed`)
    for (const { transfer, liars } of this.#fillings) {
      const { stored } = await transfer.settled
      // What was of another size is thrown away, whoever gave it; and a disk may lose what could be compared.
      if (!stored || spoilt || !this.#sizeIsKnown) continue
      for (const { told } of liars) this.#expect(told, 'a peer that gave a wrong byte is not blamed')
    }
    this.#expect(store.transfers.length === 0, 'a transfer is left')
    const folder = join(disk.folder, 'blobs', 'sha256')
    for (const file of await readdir(folder))
      this.#expect(hexOf(await readFile(join(folder, file))) === file, `${file} has other bytes than its name says`)
    if (store.sizeOf(digest) === undefined) {
      const transfer = this.#begin(store, ['good'])
      this.#expect((await transfer.settled).stored, 'a disk that is sound again stores nothing')
    }
    await store.close()
    await disk[Symbol.asyncDispose]()
  }

  #expect(fact: boolean, otherwise: string): void {
    if (!fact) this.problems.push(otherwise)
  }

  #maybe(chance: number): boolean {
    return this.#random() < chance
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit)
  }

  /** Has some operations fail, for a while or for good, and some take their time. */
  #spoil(disk: WatchedDisk): void {
    const failing = new Map<DiskOperation, { from: number; to: number; count: number }>()
    for (const fault of faults) {
      if (!this.#maybe(0.3)) continue
      const from = this.#below(fault === 'write' ? this.#blob.length / 100_000 : 4)
      failing.set(fault, { from, to: this.#maybe(0.5) ? from + 1 + this.#below(3) : Infinity, count: 0 })
    }
    const slow = this.#maybe(0.5)
    disk.before = async operation => {
      if (slow && this.#maybe(0.2)) await (this.#maybe(0.5) ? turn() : sleep(this.#below(6)))
      const fault = failing.get(operation)
      if (!fault) return
      const count = fault.count++
      if (count >= fault.from && count < fault.to) throw Object.assign(new Error(`no ${operation}`), { code: 'EIO' })
    }
  }

  #begin(store: Store, sources: readonly Kind[]): Transfer {
    const digest = digestOf(this.#blob)
    const transfer = store.begin(digest)
    const liars = new Set<Peer>()
    const filling = new Filling({
      store,
      transfer,
      want: { name, digest, kind: 'blob', ...(this.#sizeIsKnown && { size: this.#blob.length }) },
      sources: sources.map(kind => (kind === 'peers' ? this.#peersSource(liars) : this.#source(kind))),
      rates: this.#rates,
      ...(this.#maybe(0.1) && { pace: () => (this.#maybe(0.2) ? turn() : undefined) }),
      random: () => this.#random(),
      onWrong: ({ label }) => this.#expect(label === 'liar' || label === 'other size', `${label} is blamed`),
      onUnstored: () => {},
      onFailure: () => {},
    })
    this.#fillings.push({ filling, running: filling.run(), transfer, liars })
    return transfer
  }

  #source(kind: (typeof kinds)[number]): Source {
    return {
      label: kind,
      find: async (_want, signal): Promise<Offer | null> => {
        if (this.#maybe(0.5)) await sleep(this.#below(5))
        signal.throwIfAborted()
        if (kind === 'none') return null
        if (kind === 'failing') throw new SourceError('failing', 'it fails')
        const { length } = this.#blob
        const size = kind === 'other size' ? Math.max(1, length - 1 - this.#below(Math.min(length, 100_000))) : length
        return {
          origin: { kind: 'upstream', host: kind, visibility: 'public' },
          size,
          ranges: () => new RangeSet([{ start: 0, end: size }]),
          onGrow: () => ({ [Symbol.dispose]: () => {} }),
          fetch: (range, into, signal) => this.#give(kind, range, into, signal),
          close: () => {},
        }
      },
    }
  }

  /** Peers that are asked one after another, from where the one before stopped. */
  #peersSource(liars: Set<Peer>): Source {
    return {
      label: 'peers',
      kind: 'peer',
      find: async ({ without }: Want, signal): Promise<Offer | null> => {
        const peers = this.#peers.filter(peer => !without?.has(peer))
        const [first] = peers
        if (!first) return null
        if (this.#maybe(0.5)) await sleep(this.#below(5))
        signal.throwIfAborted()
        const size = this.#blob.length
        const sizeOf = ({ label }: Peer) => (label === 'other size' ? size + 1 : size)
        return {
          origin: { kind: 'peer', host: first.label, visibility: 'public' },
          giver: first,
          size: sizeOf(first),
          ranges: () => new RangeSet([{ start: 0, end: size }]),
          onGrow: () => ({ [Symbol.dispose]: () => {} }),
          fetch: async ({ start, end }, into, signal) => {
            let at = start
            while (into.room > 0) {
              const [peer] = peers
              if (!peer) throw new SourceError('broken', 'no peer has it any longer')
              into.from(peer, sizeOf(peer))
              const before = into.room
              const lied = () => liars.add(peer)
              const same = sizeOf(peer) === sizeOf(first)
              const giving = same ? this.#give(peer.label, { start: at, end }, into, signal, lied) : Promise.resolve()
              await giving.catch(error => {
                if (!(error instanceof SourceError) || signal.aborted) throw error
              })
              at += before - into.room
              if (into.room > 0) peers.shift()
            }
          },
          close: () => {},
        }
      },
    }
  }

  async #give(
    kind: string,
    range: ByteRange,
    into: RangeWriter,
    signal: AbortSignal,
    lied: () => void = () => {},
  ): Promise<void> {
    if (kind === 'no range' && range.start > 0) throw new SourceError('broken', 'no Range here')
    const cut = kind.startsWith('cut') ? range.start + this.#below(2 * this.#blob.length) : Infinity
    const buffer = Buffer.alloc(250_000)
    for (let at = range.start; into.room > 0; ) {
      signal.throwIfAborted()
      const count = Math.min(1 + this.#below(this.#maybe(0.5) ? 250_000 : 20_000), range.end - at)
      if (count <= 0 || at + count > cut)
        throw new SourceError(this.#maybe(0.2) ? 'limited' : 'broken', 'it ends early')
      this.#blob.copy(buffer, 0, at, at + count)
      if (kind === 'other size' || (kind.endsWith('liar') && this.#maybe(0.05))) {
        const wrong = this.#below(count)
        buffer[wrong]! ^= 1
        if (wrong < into.room) lied()
      }
      at += count
      const written = into.write(buffer.subarray(0, count))
      // As the next read of a socket does.
      buffer.fill(0xee)
      await written
      if (kind === 'drip') await sleep(10)
      if (kind === 'slow' || this.#maybe(0.02)) await (this.#maybe(0.1) ? sleep(this.#below(4)) : turn())
    }
  }

  /** Asks for a range, and again if it breaks off. */
  async #client(store: Store): Promise<void> {
    const digest = digestOf(this.#blob)
    await sleep(this.#below(60))
    for (let tries = 0; tries < 3; tries++) {
      const held = await store.open(digest).catch(() => undefined)
      if (held) {
        const reader = held.read({ start: 0, end: held.size })
        held.close()
        if (await this.#read(reader, { start: 0, end: held.size })) return
        continue
      }
      let transfer: Transfer | undefined
      while ((transfer = store.transfer(digest)) && !(transfer.open && transfer.whole)) await transfer.settled
      const lies = (kind: string) => kind === 'liar' || kind === 'other size'
      const usual = kinds.filter(kind => !(this.#upstreamIsHonest && lies(kind)))
      const sources = Array.from({ length: this.#below(4) }, () => usual[this.#below(usual.length)]!)
      const peers = this.#peers.length > 0 ? (['peers'] as const) : []
      const last = this.#lastIsGood ? (['good'] as const) : []
      transfer ??= this.#begin(store, [...peers, ...sources, ...last, ...peers])
      using _interest = transfer.hold()
      const size = await transfer.sized.catch(() => undefined)
      if (size === undefined) continue
      if (this.#maybe(0.3)) await sleep(this.#below(10))
      if (this.#maybe(0.1)) return
      const start = this.#maybe(0.5) ? 0 : this.#below(size)
      const range = { start, end: this.#maybe(0.5) ? size : start + this.#below(size - start + 1) }
      if (await this.#read(transfer.read(range), range)) return
    }
  }

  /** @returns whether it has had all that it wanted */
  async #read(reader: Reader, { start, end }: ByteRange): Promise<boolean> {
    const enough = this.#maybe(0.2) ? start + this.#below(end - start + 1) : Infinity
    const buffer = Buffer.alloc(this.#maybe(0.5) ? 512 * 1024 : 4096 + this.#below(100_000))
    let right = true
    try {
      for (let at = start; at < enough; ) {
        const count = await reader.read(buffer)
        if (count === 0) {
          this.#expect(at === end && right, `a reader of ${start} to ${end} had ${at - start} bytes, right: ${right}`)
          break
        }
        right &&= buffer.compare(this.#blob, at, at + count, 0, count) === 0
        this.#expect(right || !this.#upstreamIsHonest, `a reader had a wrong byte of a peer's, from ${at} on`)
        at += count
        if (this.#maybe(0.05)) await sleep(this.#below(8))
      }
      return true
    } catch {
      return false
    } finally {
      reader.close()
    }
  }
}

function hexOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

test('whatever fails, who has all bytes has the right ones, and nothing is left behind', async () => {
  const { SEED } = process.env
  const first = SEED === undefined ? Math.floor(Math.random() * 1e9) : Number(SEED)
  const until = Date.now() + (SEED === undefined ? duration : 0)
  let seed = first
  do {
    const storm = new Storm(seed)
    await storm.run()
    assert.equal(storm.problems, [], `SEED=${seed}`)
    seed++
  } while (Date.now() < until)
  console.log(`seeds ${first} to ${seed - 1}`)
})

test.run()
