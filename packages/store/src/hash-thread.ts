import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type Digest, DigestHasher } from '@shoal/oci/digest'

/** From how many bytes on a blob is worth the way to the other thread. */
const worthwhile = 1024 * 1024

/** A hash of bytes that come one after another, and whether they have a digest. */
export interface Hasher {
  /** `bytes` must stay as they are until it resolves. Those of {@link sharedBuffer} need not be copied. */
  update(bytes: Uint8Array): Promise<void>
  /** Whether all that was given hashes to the digest. Ends the hasher. */
  matches(): Promise<boolean>
  /** Ends it without an answer. */
  close(): void
}

/** Hashes a large blob on a thread of its own: on that of the event loop it would take a third of a download's time. */
export function hasherOf(digest: Digest, size: number): Hasher {
  return size < worthwhile ? new NearHasher(digest) : new FarHasher(digest)
}

/** Memory that both threads see. Not zeroed by use: it holds what was in it last. */
export function sharedBuffer(size: number): Buffer {
  return Buffer.from(new SharedArrayBuffer(size))
}

class NearHasher implements Hasher {
  readonly #hasher: DigestHasher

  constructor(digest: Digest) {
    this.#hasher = new DigestHasher(digest)
  }

  async update(bytes: Uint8Array): Promise<void> {
    this.#hasher.update(bytes)
  }

  async matches(): Promise<boolean> {
    return this.#hasher.matches()
  }

  close(): void {}
}

class FarHasher implements Hasher {
  readonly #thread = runningThread()
  readonly #id = this.#thread.nextId++

  constructor(digest: Digest) {
    this.#thread.tell({ id: this.#id, digest })
  }

  async update(bytes: Uint8Array): Promise<void> {
    await this.#thread.ask({ id: this.#id, bytes })
  }

  matches(): Promise<boolean> {
    return this.#thread.ask({ id: this.#id, end: true })
  }

  close(): void {
    this.#thread.tell({ id: this.#id })
  }
}

/** To the thread: what to check for, more bytes, the question, or that there will be none. Bytes and question are answered. */
type Message =
  | { readonly id: number; readonly digest: Digest }
  | { readonly id: number; readonly bytes: Uint8Array }
  | { readonly id: number; readonly end: true }
  | { readonly id: number }

class HashThread {
  nextId = 0
  failure: Error | undefined
  readonly #worker = new Worker(new URL(import.meta.url), {
    name: 'hash',
    workerData: threadName,
    resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4, stackSizeMb: 1 },
  })
  /** Answers come in the order of the questions. */
  readonly #waiting: { resolve(matches: boolean): void; reject(error: Error): void }[] = []

  constructor() {
    this.#worker.on('message', (matches: boolean) => {
      this.#waiting.shift()!.resolve(matches)
      if (this.#waiting.length === 0) this.#worker.unref()
    })
    this.#worker.on('error', error => this.#end(error))
    this.#worker.on('exit', () => this.#end(new Error('the thread that hashes has ended')))
    this.#worker.unref()
  }

  tell(message: Message): void {
    this.#worker.postMessage(message)
  }

  ask(message: Message): Promise<boolean> {
    if (this.failure) return Promise.reject(this.failure)
    this.#worker.ref()
    this.tell(message)
    return new Promise((resolve, reject) => void this.#waiting.push({ resolve, reject }))
  }

  #end(error: unknown): void {
    this.failure ??= error instanceof Error ? error : new Error(String(error))
    for (const { reject } of this.#waiting.splice(0)) reject(this.failure)
  }
}

const threadName = 'shoal-hash'

let thread: HashThread | undefined

function runningThread(): HashThread {
  if (!thread || thread.failure) thread = new HashThread()
  return thread
}

/** What the other thread does. */
function serve(port: NonNullable<typeof parentPort>): void {
  const hashers = new Map<number, DigestHasher>()
  port.on('message', (message: Message) => {
    const { id } = message
    if ('digest' in message) {
      hashers.set(id, new DigestHasher(message.digest))
    } else if ('bytes' in message) {
      hashers.get(id)!.update(message.bytes)
      port.postMessage(true)
    } else {
      if ('end' in message) port.postMessage(hashers.get(id)!.matches())
      hashers.delete(id)
    }
  })
}

if (!isMainThread && workerData === threadName && parentPort) serve(parentPort)
