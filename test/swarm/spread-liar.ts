import type { ByteRange } from '../../packages/oci/src/byte-range.ts'
import type { Digest } from '../../packages/oci/src/digest.ts'
import { parseName } from '../../packages/oci/src/name.ts'
import { RangeSet } from '../../packages/oci/src/range-set.ts'
import type { JointDownload } from '../../packages/store/src/joint.ts'
import type { FakePeer } from './fake-peer.ts'
import { repository } from './rush.ts'

/** Of a chunk that an author brings at a time, in bytes, and how often, in ms. */
const piece = 1024 * 1024
const every = 60

/**
 * Takes part in the spread of a blob, and lies: as a member, it gives other bytes than it got; as an author, it is the one
 * who fetches, and brings other bytes than those of the blob.
 */
export class SpreadLiar implements AsyncDisposable {
  /** Times that bytes were read from it. */
  lies = 0
  readonly #peer: FakePeer
  readonly #digest: Digest
  readonly #bytes: Buffer
  readonly #isAuthor: boolean
  readonly #have = new RangeSet()
  #download: JointDownload | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(peer: FakePeer, digest: Digest, bytes: Buffer, behaviour: 'member' | 'author') {
    this.#peer = peer
    this.#digest = digest
    this.#isAuthor = behaviour === 'author'
    this.#bytes = Buffer.from(bytes)
    if (this.#isAuthor) for (let at = 0; at < bytes.length; at += 1000) this.#bytes[at]! ^= 1
  }

  async join(): Promise<void> {
    const { length } = this.#bytes
    const name = parseName('docker.io', repository)
    this.#download = this.#peer.swarm.downloads.join(
      { name, digest: this.#digest, kind: 'blob', size: length },
      {
        have: this.#have,
        fetch: ranges => this.#fetch(ranges),
        write: async (bytes, start) => {
          Buffer.from(bytes).copy(this.#bytes, start)
          this.#have.add({ start, end: start + bytes.length })
        },
        peek: range => {
          let { start } = range
          return {
            read: async buffer => {
              const count = this.#bytes.copy(buffer, 0, start, Math.min(range.end, start + buffer.length))
              this.lies++
              if (!this.#isAuthor) buffer[0]! ^= 1
              start += count
              return count
            },
            cancel: () => {},
            close: () => {},
          }
        },
        line: () => this.#isAuthor,
      },
    )
  }

  #fetch(ranges: RangeSet): void {
    clearInterval(this.#timer)
    const left: ByteRange[] = [...ranges]
    this.#timer = setInterval(() => {
      const [first] = left
      if (!first) return clearInterval(this.#timer)
      const range = { start: first.start, end: Math.min(first.start + piece, first.end) }
      if (range.end === first.end) left.shift()
      else left[0] = { start: range.end, end: first.end }
      this.#have.add(range)
      this.#download?.arrived(range)
    }, every)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    this.#download?.end(false)
  }
}
