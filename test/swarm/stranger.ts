import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import type { Connection, MessageStream, Stream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { encode } from 'cborg'
import { createLibp2p, type Libp2p } from 'libp2p'

const protocol = '/shoal/1/peer'

/** Somebody who speaks libp2p, and else what a test has it say. */
export class Stranger implements AsyncDisposable {
  readonly #node: Libp2p

  private constructor(node: Libp2p) {
    this.#node = node
  }

  static async open(): Promise<Stranger> {
    return new Stranger(
      await createLibp2p({
        addresses: { listen: [] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        connectionMonitor: { enabled: false },
      }),
    )
  }

  get id(): string {
    return this.#node.peerId.toString()
  }

  async stream(port: number, name = protocol): Promise<Stream> {
    return (await this.#connect(port)).newStream(name)
  }

  /** What carries the streams of the connection to a port: whatever is sent on it, the other side's Yamux reads. */
  async carrier(port: number): Promise<MessageStream> {
    const { muxer } = (await this.#connect(port)) as Connection & { muxer: { maConn: MessageStream } }
    return muxer.maConn
  }

  #connect(port: number): Promise<Connection> {
    return this.#node.dial(multiaddr(`/ip4/127.0.0.1/tcp/${port}`))
  }

  /** Opens the peers' stream, and says these messages. */
  async say(port: number, ...messages: readonly Uint8Array[]): Promise<Stream> {
    const stream = await this.stream(port)
    for (const message of messages) stream.send(message)
    return stream
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#node.stop()
  }
}

export function frame(value: unknown): Uint8Array {
  const bytes = value instanceof Uint8Array ? value : encode(value)
  return Buffer.concat([varint(bytes.length), bytes])
}

export function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128)
  return Buffer.from([...bytes, rest])
}

/** What a member says first. */
export const hello = frame({
  t: 'hello',
  versions: [1],
  features: [],
  swarm_port: 1,
  transfer_port: 1,
  name: 'stranger',
  uploads: true,
})
