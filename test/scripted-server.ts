import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'

/** A server on 127.0.0.1 that answers as a test wants, for what the stand-ins never do. */
export class ScriptedServer implements AsyncDisposable {
  /** What it was asked, in order. */
  readonly requests: IncomingMessage[] = []
  readonly #server: Server

  static async open(answer: RequestListener): Promise<ScriptedServer> {
    const scripted = new ScriptedServer(answer)
    scripted.#server.listen(0, '127.0.0.1')
    await once(scripted.#server, 'listening')
    return scripted
  }

  private constructor(answer: RequestListener) {
    this.#server = createServer((request, response) => {
      this.requests.push(request)
      answer(request, response)
    })
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }
}
