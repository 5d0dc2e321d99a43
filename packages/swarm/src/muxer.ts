import { yamux } from '@chainsafe/libp2p-yamux'
import { type MessageStream, type StreamMuxerFactory, serviceCapabilities } from '@libp2p/interface'

/** Of a frame: its head, and what may follow, in bytes. No stream of this side ever takes more at once. */
const headLength = 12
const longestBody = 256 * 1024

/** Of the frames that are followed by something, in their second byte. */
const dataFrame = 0

/** Yamux that gathers no frame which is longer than any may be: left to itself, it would take up to 4 GiB for one. */
export function boundedYamux(): StreamMuxerFactory {
  // Sessions look for life themselves, less often.
  const muxers = yamux({ enableKeepAlive: false })()
  const bounded = {
    protocol: muxers.protocol,
    [Symbol.toStringTag]: 'bounded Yamux',
    [serviceCapabilities]: ['@libp2p/stream-multiplexing'],
    createStreamMuxer(carrier: MessageStream) {
      const frames = new Frames()
      // Before the muxer sees it.
      carrier.addEventListener('message', ({ data }) => {
        if (!frames.bear(data instanceof Uint8Array ? [data] : data))
          carrier.abort(new Error('a frame of Yamux is longer than it may be'))
      })
      return muxers.createStreamMuxer(carrier)
    },
  }
  return bounded
}

/** The frames that come over one connection. */
class Frames {
  readonly #head = Buffer.alloc(headLength)
  /** Bytes of the head that are there. */
  #known = 0
  /** Bytes until the next head. */
  #left = 0

  /** @returns whether none of them is too long, so far */
  bear(pieces: Iterable<Uint8Array>): boolean {
    for (const bytes of pieces)
      for (let at = 0; at < bytes.length; ) {
        const count = Math.min(this.#left > 0 ? this.#left : headLength - this.#known, bytes.length - at)
        if (this.#left > 0) this.#left -= count
        else {
          this.#head.set(bytes.subarray(at, at + count), this.#known)
          this.#known = (this.#known + count) % headLength
          if (this.#known === 0 && this.#head[1] === dataFrame) this.#left = this.#head.readUInt32BE(8)
        }
        if (this.#left > longestBody) return false
        at += count
      }
    return true
  }
}
