import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'

/** A GET whose body a test takes at its own pace: it can watch it arrive, pause, or leave. */
export class Download implements Disposable {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly #response: IncomingMessage
  readonly #pieces: Buffer[] = []
  #received = 0
  #changed = Promise.withResolvers<void>()
  #ended: 'whole' | 'broken' | undefined

  /** Resolves once the head of the answer has come. */
  static open(url: string, headers: Readonly<Record<string, string>> = {}): Promise<Download> {
    return new Promise((resolve, reject) => {
      const outgoing = request(url, { headers, agent: false }, response => resolve(new Download(response)))
      outgoing.on('error', reject)
      outgoing.end()
    })
  }

  private constructor(response: IncomingMessage) {
    this.#response = response
    this.status = response.statusCode ?? 0
    this.headers = response.headers
    response.on('data', piece => {
      this.#pieces.push(piece)
      this.#received += piece.length
      this.#change()
    })
    response.on('error', () => {})
    response.on('close', () => {
      this.#ended = response.complete ? 'whole' : 'broken'
      this.#change()
    })
  }

  /** Bytes of the body that have come. */
  get received(): number {
    return this.#received
  }

  get body(): Buffer {
    return Buffer.concat(this.#pieces)
  }

  /** Resolves once so many bytes have come. @throws if the body ends before that */
  async until(bytes: number): Promise<void> {
    while (this.#received < bytes) {
      if (this.#ended) throw new Error(`the body has ended after ${this.#received} bytes: ${this.#ended}`)
      await this.#changed.promise
    }
  }

  /** Resolves when the answer is over, to whether it came whole or broke off. */
  async end(): Promise<'whole' | 'broken'> {
    while (!this.#ended) await this.#changed.promise
    return this.#ended
  }

  /** The whole body. @throws if it breaks off */
  async whole(): Promise<Buffer> {
    if ((await this.end()) === 'broken') throw new Error(`the body broke off after ${this.#received} bytes`)
    return this.body
  }

  pause(): void {
    this.#response.pause()
  }

  resume(): void {
    this.#response.resume()
  }

  /** Closes the connection. */
  leave(): void {
    this.#response.destroy()
  }

  [Symbol.dispose](): void {
    this.leave()
  }

  #change(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}
