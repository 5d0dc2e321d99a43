import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import type { ByteRange } from '@shoal/oci/byte-range'
import { digestOf } from '@shoal/oci/digest'
import { parseName } from '@shoal/oci/name'
import { RangeSet } from '@shoal/oci/range-set'
import type { Reader } from '@shoal/store/reader'
import { type Offer, type Source, SourceError } from '@shoal/store/source'
import { Store } from '@shoal/store/store'
import type { Transfer } from '@shoal/store/transfer'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type DiskOperation, WatchedDisk } from '../../../test/watched-disk.ts'
import { Filling } from './filling.ts'

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

/** One blob, that a disk, sources and readers of a seed's making do their worst to. */
class Storm {
  readonly problems: string[] = []
  readonly #random: () => number
  readonly #blob: Buffer
  readonly #fillings: { filling: Filling; running: Promise<void> }[] = []
  readonly #lastIsGood: boolean
  readonly #sizeIsKnown: boolean

  constructor(seed: number) {
    this.#random = chances(seed)
    const size = this.#maybe(0.5)
      ? 1 + this.#below(3 * megabyte)
      : 10 * megabyte + this.#below((this.#maybe(0.8) ? 20 : 60) * megabyte)
    this.#blob = Buffer.alloc(size, Buffer.from(Array.from({ length: 1009 }, () => this.#below(256))))
    this.#lastIsGood = this.#maybe(0.8)
    this.#sizeIsKnown = this.#maybe(0.6)
  }

  async run(): Promise<void> {
    const disk = await WatchedDisk.open()
    const store = await Store.open({ folder: disk.folder, disk, onWarning: () => {} })
    const digest = digestOf(this.#blob)
    if (this.#maybe(0.8)) this.#spoil(disk)
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

  #begin(store: Store, sources: readonly (typeof kinds)[number][]): Transfer {
    const digest = digestOf(this.#blob)
    const transfer = store.begin(digest)
    const filling = new Filling({
      store,
      transfer,
      want: { name, digest, kind: 'blob', ...(this.#sizeIsKnown && { size: this.#blob.length }) },
      sources: sources.map(kind => this.#source(kind)),
      random: () => this.#random(),
      onWrong: ({ label }) => this.#expect(label === 'liar' || label === 'other size', `${label} is blamed`),
      onUnstored: () => {},
      onFailure: () => {},
    })
    this.#fillings.push({ filling, running: filling.run() })
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

  async #give(kind: string, range: ByteRange, into: Parameters<Offer['fetch']>[1], signal: AbortSignal): Promise<void> {
    if (kind === 'no range' && range.start > 0) throw new SourceError('broken', 'no Range here')
    const cut = kind === 'cut' ? range.start + this.#below(2 * this.#blob.length) : Infinity
    const buffer = Buffer.alloc(250_000)
    for (let at = range.start; into.room > 0; ) {
      signal.throwIfAborted()
      const count = Math.min(1 + this.#below(this.#maybe(0.5) ? 250_000 : 20_000), range.end - at)
      if (count <= 0 || at + count > cut)
        throw new SourceError(this.#maybe(0.2) ? 'limited' : 'broken', 'it ends early')
      this.#blob.copy(buffer, 0, at, at + count)
      if (kind === 'other size' || (kind === 'liar' && this.#maybe(0.05))) buffer[this.#below(count)]! ^= 1
      at += count
      const written = into.write(buffer.subarray(0, count))
      // As the next read of a socket does.
      buffer.fill(0xee)
      await written
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
      const sources = Array.from({ length: this.#below(4) }, () => kinds[this.#below(kinds.length)]!)
      transfer ??= this.#begin(store, [...sources, ...(this.#lastIsGood ? (['good'] as const) : [])])
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
