import { yamux } from '@chainsafe/libp2p-yamux'
import { type MessageStream, type StreamMuxerFactory, serviceCapabilities } from '@libp2p/interface'
import type { Uint8ArrayList } from 'uint8arraylist'

/** Of a frame: its head, and what may follow, in bytes. No stream of this side ever takes more at once. */
const headLength = 12
const longestBody = 256 * 1024

/** The second byte of a frame: whether it is followed by something, or lets the other side send more. */
const dataFrame = 0
const windowUpdate = 1

/** How much more the other side may send until it is told so, in bytes: a part of what it may before it has to wait. */
const worthTelling = 64 * 1024

/**
 * Yamux with two bounds. It gathers no frame which is longer than any may be: left to itself, it would take up to 4 GiB
 * for one. And it does not answer each message that comes with a frame which lets the other side send as much again: that
 * costs both sides as much as the message itself.
 */
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
      const windows = new Windows()
      const send = carrier.send.bind(carrier)
      carrier.send = data => {
        const frame = windows.gather(data)
        return frame ? send(frame) : true
      }
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

/** What streams let the other side send, and have not told it yet. */
class Windows {
  readonly #untold = new Map<number, number>()

  /** @returns what is to be sent now, in place of a frame */
  gather(frame: Uint8Array | Uint8ArrayList): Uint8Array | Uint8ArrayList | undefined {
    if (frame.byteLength !== headLength || !(frame instanceof Uint8Array) || frame[1] !== windowUpdate) return frame
    const head = Buffer.from(frame.buffer, frame.byteOffset, headLength)
    // It opens the stream, or ends it.
    if (head.readUInt16BE(2) !== 0) return frame
    const stream = head.readUInt32BE(4)
    const more = (this.#untold.get(stream) ?? 0) + head.readUInt32BE(8)
    this.#untold.set(stream, more < worthTelling ? more : 0)
    if (more < worthTelling) return undefined
    head.writeUInt32BE(more, 8)
    return frame
  }
}
