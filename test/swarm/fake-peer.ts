import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Digest } from '../../packages/oci/src/digest.ts'
import { nodeDisk } from '../../packages/store/src/disk.ts'
import type { Reader } from '../../packages/store/src/reader.ts'
import type { HeldBlob } from '../../packages/store/src/store.ts'
import { makeCertificate } from '../../packages/swarm/src/certificate.ts'
import { loadIdentity } from '../../packages/swarm/src/identity.ts'
import { type Network, openNetwork } from '../../packages/swarm/src/network.ts'
import { type PeerAddress, PeerClient } from '../../packages/swarm/src/peer-client.ts'
import { Swarm, type SwarmOptions } from '../../packages/swarm/src/swarm.ts'

/** How a peer gives what it has announced. */
export type Behaviour =
  | 'honest'
  /** Other bytes, of the right length. */
  | 'wrong'
  /** A byte more than there is. */
  | 'longer'
  /** A gigabyte, and on. */
  | 'endless'
  /** A few bytes a second. */
  | 'drip'
  /** The first half, then nothing more. */
  | 'stall'
  /** The first half, then the connection is broken off. */
  | 'cut'
  /** Says that it lacks what it has announced. */
  | 'lacking'

export type FakePeerOptions = {
  readonly blobs?: ReadonlyMap<Digest, Buffer>
  readonly behaviour?: Behaviour
  readonly network?: Network
  readonly bootstrap?: readonly string[]
  readonly name?: string
  readonly maxUploads?: number
  readonly more?: Partial<SwarmOptions>
}

/** A member of the swarm that has what a test gives it, and may lie about that. On loopback. */
export class FakePeer implements AsyncDisposable {
  readonly swarm: Swarm
  /** What was asked of it: digests, in order. */
  readonly asked: Digest[]
  readonly bans: string[]
  readonly #folder: string

  private constructor(swarm: Swarm, folder: string, asked: Digest[], bans: string[]) {
    this.swarm = swarm
    this.asked = asked
    this.bans = bans
    this.#folder = folder
  }

  static async open(options: FakePeerOptions = {}): Promise<FakePeer> {
    const { blobs = new Map<Digest, Buffer>(), behaviour = 'honest', network = openNetwork, bootstrap = [] } = options
    const folder = await mkdtemp(join(tmpdir(), 'shoal-peer-'))
    const asked: Digest[] = []
    const bans: string[] = []
    const swarm = await Swarm.open({
      folder,
      disk: nodeDisk,
      network,
      listen: { host: '127.0.0.1', port: 0 },
      transferListen: { host: '127.0.0.1', port: 0 },
      mdns: false,
      bootstrap,
      name: options.name ?? 'fake',
      sharing: {
        has: digest => blobs.has(digest),
        digests: () => blobs.keys(),
        onChange: () => ({ [Symbol.dispose]: () => {} }),
      },
      open: async digest => {
        asked.push(digest)
        const bytes = blobs.get(digest)
        if (!bytes || behaviour === 'lacking') return undefined
        return { blob: new FakeBlob(digest, bytes, behaviour), contentType: 'application/octet-stream' }
      },
      tags: { believes: false, ttl: 5000, known: () => undefined },
      errand: async () => {},
      maxUploads: options.maxUploads ?? 8,
      uploadPace: undefined,
      resting: () => undefined,
      now: () => performance.now(),
      clock: Date.now,
      random: Math.random,
      events: {
        joined: () => {},
        left: () => {},
        banned: ({ name }) => void bans.push(name),
        gave: () => {},
        limit: () => {},
        warning: () => {},
      },
      ...options.more,
    })
    return new FakePeer(swarm, folder, asked, bans)
  }

  /** As `swarm.bootstrap` names it. */
  get address(): string {
    return `127.0.0.1:${this.swarm.ports.swarm}`
  }

  /** Asks a peer for blobs, whether that has announced them or not. @returns the status of each answer */
  async ask(address: PeerAddress, digests: readonly Digest[]): Promise<number[]> {
    const { privateKey } = await loadIdentity(this.#folder, nodeDisk)
    const client = new PeerClient({ certificate: await makeCertificate(privateKey) })
    const patience = { connectTimeout: 5000, answerTimeout: 5000, silenceTimeout: 5000 }
    const signal = AbortSignal.timeout(10_000)
    try {
      const statuses: number[] = []
      for (const digest of digests) {
        const answer = await client.get(address, digest, { ...patience, signal })
        statuses.push(answer.status)
        if (answer.status === 200) await answer.pipe(() => undefined)
      }
      return statuses
    } finally {
      await client.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.swarm.close()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

class FakeBlob implements HeldBlob {
  readonly digest: Digest
  readonly #bytes: Buffer
  readonly #behaviour: Behaviour

  constructor(digest: Digest, bytes: Buffer, behaviour: Behaviour) {
    this.digest = digest
    this.#bytes = bytes
    this.#behaviour = behaviour
  }

  get size(): number {
    if (this.#behaviour === 'longer') return this.#bytes.length + 1
    return this.#behaviour === 'endless' ? 2 ** 40 : this.#bytes.length
  }

  read({ start, end }: { readonly start: number; readonly end: number }): Reader {
    let position = start
    const left = new AbortController()
    const half = start + Math.floor((end - start) / 2)
    return {
      read: async buffer => {
        const behaviour = this.#behaviour
        let length = Math.min(buffer.length, end - position)
        if (behaviour === 'stall' || behaviour === 'cut') {
          if (position >= half && behaviour === 'cut') throw new Error('cut')
          if (position >= half) await pause(left.signal, 3_600_000)
          length = Math.min(length, half - position)
        }
        if (behaviour === 'drip' && length > 0) {
          await pause(left.signal, 200)
          length = Math.min(length, 10)
        }
        for (let index = 0; index < length; index++) buffer[index] = this.#byteAt(position + index)
        position += length
        return length
      },
      cancel: () => left.abort(new Error('cancelled')),
      close: () => left.abort(new Error('closed')),
    }
  }

  close(): void {}

  #byteAt(position: number): number {
    const byte = this.#bytes[position] ?? 0
    const last = position === this.#bytes.length - 1
    return this.#behaviour === 'wrong' && last ? byte ^ 1 : byte
  }
}

function pause(signal: AbortSignal, ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(signal.reason)
    })
  })
}
