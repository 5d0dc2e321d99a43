import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'

/** A server on this machine that no answer may lead to: it counts who comes, and says nothing. */
export class Trap implements AsyncDisposable {
  /** How many have connected. */
  caught = 0
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  static async open(): Promise<Trap> {
    const trap = new Trap()
    trap.#server.listen(0, '127.0.0.1')
    await once(trap.#server, 'listening')
    return trap
  }

  private constructor() {
    this.#server = createServer(socket => {
      this.caught++
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  /** Host and port, by a name that no settings have. */
  get host(): string {
    return `localhost:${(this.#server.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}
