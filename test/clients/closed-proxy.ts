import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Environment } from '../shoal-process.ts'

/** A proxy that gives nothing. With it in its environment, a program cannot reach the internet, and does not try unseen. */
export class ClosedProxy implements AsyncDisposable {
  /** What was wanted: `host:port`, or a URL of plain http. */
  readonly wanted: string[] = []
  readonly #server: Server

  static async open(): Promise<ClosedProxy> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new ClosedProxy(server)
  }

  private constructor(server: Server) {
    this.#server = server
    server.on('request', (request, response) => {
      this.wanted.push(request.url ?? '')
      response.writeHead(503).end()
    })
    server.on('connect', (request, socket) => {
      this.wanted.push(request.url ?? '')
      socket.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n')
    })
  }

  /** Go's net/http asks no proxy for 127.0.0.1. */
  get env(): Environment {
    const address = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
    const unset = { http_proxy: undefined, https_proxy: undefined, NO_PROXY: undefined, no_proxy: undefined }
    return { HTTP_PROXY: address, HTTPS_PROXY: address, ...unset }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }
}
