import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** Passes TCP connections on to a port of this machine, later, and counts what goes over them. */
export type Relay = AsyncDisposable & {
  readonly port: number
  /** So far, both ways: bytes that were passed on, and pieces in which they came. */
  readonly bytes: number
  readonly pieces: number
}

/** @param delay each way, in ms */
export async function startRelay(target: number, delay = 0): Promise<Relay> {
  const counted = { bytes: 0, pieces: 0 }
  const sockets = new Set<Socket>()
  const pass = (from: Socket, to: Socket) => {
    sockets.add(from)
    const later = (what: () => void) => (delay > 0 ? void setTimeout(what, delay) : what())
    let waiting = 0
    from.on('data', bytes => {
      counted.bytes += bytes.length
      counted.pieces++
      waiting += bytes.length
      if (waiting > 64 * 1024 * 1024) from.pause()
      later(() => {
        if (to.destroyed) return
        to.write(bytes, () => {
          waiting -= bytes.length
          if (from.isPaused()) from.resume()
        })
      })
    })
    from.on('end', () => later(() => to.end()))
    from.on('error', () => to.destroy())
    from.on('close', () => {
      sockets.delete(from)
      if (from.errored) to.destroy()
    })
  }
  const server = createServer({ allowHalfOpen: true, noDelay: true }, client => {
    const upstream = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    pass(client, upstream)
    pass(upstream, client)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    get bytes() {
      return counted.bytes
    },
    get pieces() {
      return counted.pieces
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
