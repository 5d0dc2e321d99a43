import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { serveCalls } from './agent.ts'

/**
 * A long wire, as a program: what comes in at one end goes out at the other some time later, or is lost. The frames
 * come and go in VXLAN, whose endpoints are the kernel's: not every kernel has netem.
 */

export type WireCalls = typeof calls

/** What each direction does. */
type Trouble = {
  /** In ms. */
  readonly delay: number
  /** The part of the frames that is lost, 0 to 1. */
  readonly loss: number
}

/** Of the machine that has the other side of both ends. */
const address = process.argv[2] ?? ''
const ends = new Map<number, Socket>()
const troubles = new Map<number, Trouble>()

async function open(port: number, onFrame: (frame: Buffer) => void): Promise<Socket> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 * 1024 * 1024, sendBufferSize: 4 * 1024 * 1024 })
  socket.on('message', onFrame)
  socket.bind(port)
  await once(socket, 'listening')
  ends.set(port, socket)
  return socket
}

const calls = {
  /** @param port of one end; the other's is the next */
  async lay({ port, trouble }: { readonly port: number; readonly trouble: Trouble }): Promise<void> {
    troubles.set(port, trouble)
    if (ends.has(port)) return
    const pass = (to: number) => (frame: Buffer) => {
      const { delay, loss } = troubles.get(port) ?? trouble
      if (Math.random() >= loss) setTimeout(() => ends.get(to)?.send(frame, to, address), delay)
    }
    await open(port, pass(port + 1))
    await open(port + 1, pass(port))
  },
}

serveCalls(calls)
