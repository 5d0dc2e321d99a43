import type { Socket } from 'node:net'
import { buildConnector } from 'undici'

/** Bytes that one read of a socket brings at most. */
const readSize = 256 * 1024

/**
 * How much of an answer is copied for undici, in bytes: it keeps pieces of a head, which has 16 KiB at most, from one
 * read to the next, but none of a body.
 */
const headRoom = 64 * 1024

/**
 * Makes connections for undici whose bytes all arrive in one buffer that is used again and again. Left to itself, Node
 * allocates memory for each read, and that costs more than all the rest of a download.
 */
export function reusingConnector(options: buildConnector.BuildOptions): buildConnector.connector {
  const buffer = Buffer.allocUnsafeSlow(readSize)
  const sockets = new WeakMap<Socket, Reading>()
  const onread = {
    buffer,
    callback(this: Socket, count: number): boolean {
      return sockets.get(this)!.received(buffer.subarray(0, count))
    },
  }
  // undici hands on what it does not know to net.connect() and tls.connect(), which know `onread`.
  const connect = buildConnector({ ...options, onread } as buildConnector.BuildOptions)
  return (target, callback) => {
    const socket = connect(target, callback) as unknown as Socket
    sockets.set(socket, new Reading(socket))
  }
}

/** What undici reads from a socket: with `onread` bytes pass the stream by, so `read()` and `unshift()` are ours. */
class Reading {
  readonly #socket: Socket
  readonly #read: Socket['read']
  readonly #waiting: Buffer[] = []
  #paused = false
  #written = 0
  #copied = 0

  constructor(socket: Socket) {
    this.#socket = socket
    this.#read = socket.read.bind(socket)
    socket.read = size => (size === 0 ? this.#look() : this.#next())
    // What undici gives back when it pauses, which may be nothing.
    socket.unshift = (chunk: Buffer) => {
      this.#paused = true
      if (chunk.length > 0) this.#waiting.unshift(chunk)
    }
  }

  /** @returns whether to go on reading */
  received(bytes: Buffer): boolean {
    const socket = this.#socket
    if (socket.bytesWritten !== this.#written) {
      this.#written = socket.bytesWritten
      this.#copied = 0
    }
    const lasting = this.#copied < headRoom
    this.#copied += bytes.length
    if (this.#waiting.length > 0) {
      this.#waiting.push(Buffer.from(bytes))
      return false
    }
    this.#waiting.push(lasting ? Buffer.from(bytes) : bytes)
    socket.emit('readable')
    const [rest] = this.#waiting
    // What was not taken must outlive the next read.
    if (rest && !lasting) this.#waiting[0] = Buffer.from(rest)
    return !rest && !this.#paused
  }

  #next(): Buffer | null {
    this.#paused = false
    const bytes = this.#waiting.shift()
    if (bytes) return bytes
    // Starts to read again if it was stopped.
    this.#socket.resume()
    return this.#read(0)
  }

  /** With this the stream tells of its end, if it has come: not before all is taken. */
  #look(): null {
    return this.#waiting.length > 0 ? null : this.#read(0)
  }
}
