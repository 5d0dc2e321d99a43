import { randomBytes } from 'node:crypto'
import { mock } from 'node:test'
import { digestOf } from '../packages/oci/src/digest.ts'
import { parseName } from '../packages/oci/src/name.ts'
import { abortable } from '../packages/store/src/abortable.ts'
import { SourceError, type Want } from '../packages/store/src/source.ts'
import type { PeerAnswer, PeerBody, PeerRequest } from '../packages/swarm/src/peer-client.ts'
import type { Holder, PeersContext } from '../packages/swarm/src/peers-source.ts'
import { Provider } from '../packages/swarm/src/provider.ts'

/** What a peer does with a question. */
export type Answer = (request: PeerRequest, peers: ScriptedPeers, name: string) => PeerAnswer | Promise<PeerAnswer>

/** A step of a body: so many bytes, a pause, or how it breaks off. */
export type Step = number | { readonly wait: number } | Error

/** Peers who answer as a test says, and timers that go on when it says so. All of them announce one blob. */
export class ScriptedPeers implements Disposable {
  readonly bytes: Buffer
  readonly want: Want
  /** Who was asked, in order, and for what. */
  readonly asked: string[] = []
  readonly requests: PeerRequest[] = []
  /** Whose question or body was aborted, in order. */
  readonly aborted: string[] = []
  /** What was told of whom, in order: `lacks a`. */
  readonly verdicts: string[] = []
  /** Who has given all of the blob, in order. */
  readonly givers: string[] = []
  readonly context: PeersContext
  /** In ms. */
  now = 0
  random = 0
  readonly #holders: Holder[] = []
  readonly #answers = new Map<string, Answer[]>()

  constructor(size = 100_000) {
    mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
    this.bytes = randomBytes(size)
    const digest = digestOf(this.bytes)
    this.want = { name: parseName('docker.io', 'library/busybox'), digest, kind: 'blob', size }
    this.context = {
      holders: asked => (asked === digest ? this.#holders : []),
      client: { get: ({ peerId }, _digest, request) => this.#get(peerId, request) },
      lacks: ({ name }) => void this.verdicts.push(`lacks ${name}`),
      gaveAll: ({ name }) => void this.givers.push(name),
      suspect: ({ name }) => void this.verdicts.push(`suspect ${name}`),
      ban: ({ name }) => void this.verdicts.push(`ban ${name}`),
      now: () => this.now,
      random: () => this.random,
    }
  }

  /** One more peer, likelier the earlier it is added. @param answers one after another; the last again and again */
  add(name: string, ...answers: readonly Answer[]): Provider {
    const provider = new Provider(
      name,
      name,
      () => this.now,
      () => {},
    )
    provider.rtt = 1 + this.#holders.length
    this.#holders.push({ provider, address: { host: '127.0.0.1', port: 1 } })
    this.#answers.set(name, [...answers])
    return provider
  }

  /** Has so many ms pass. */
  async pass(ms: number): Promise<void> {
    await settle()
    for (const end = this.now + ms; this.now < end; ) {
      const step = Math.min(10, end - this.now)
      this.now += step
      mock.timers.tick(step)
      await settle()
    }
  }

  /** Has time pass until a promise is settled, for so many ms at most. */
  async during<T>(promise: Promise<T>, most = 60_000): Promise<T> {
    let settled = false
    const done = () => void (settled = true)
    promise.then(done, done)
    for (const end = this.now + most; !settled && this.now < end; ) await this.pass(10)
    if (!settled) throw new Error(`it has not ended within ${most} ms`)
    return promise
  }

  [Symbol.dispose](): void {
    mock.timers.reset()
  }

  async #get(name: string, request: PeerRequest): Promise<PeerAnswer> {
    this.asked.push(name)
    this.requests.push(request)
    const answers = this.#answers.get(name) ?? []
    const answer = answers.length > 1 ? answers.shift() : answers[0]
    if (!answer) throw new Error(`nothing is known of what ${name} answers`)
    return answer(request, this, name)
  }
}

/** Lets all go on that waits for nothing but a turn. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise(resolve => setImmediate(resolve))
}

/** Gives what was asked for: all of it at once, or in steps; after the last it ends. */
export function gives(...steps: readonly Step[]): Answer {
  return ({ range }, peers, name) => bodyOf(peers.bytes, range, steps, () => peers.aborted.push(name))
}

/** Gives a blob of another size. */
export function givesOther(size: number): Answer {
  return ({ range }, peers, name) => bodyOf(Buffer.alloc(size), range, [], () => peers.aborted.push(name))
}

/** Gives no bytes. */
export function refuses(answer: Exclude<PeerAnswer, PeerBody>): Answer {
  return () => answer
}

export function fails(error: Error): Answer {
  return () => Promise.reject(error)
}

/** Answers after so many ms, unless the question is aborted before. */
export function after(ms: number, answer: Answer): Answer {
  return async (request, peers, name) => {
    await abortable(wait(ms), request.signal).catch(error => {
      peers.aborted.push(name)
      throw error
    })
    return answer(request, peers, name)
  }
}

/** Never answers. */
export const silent: Answer = after(Number.POSITIVE_INFINITY, gives())

function bodyOf(bytes: Buffer, asked: PeerRequest['range'], steps: readonly Step[], onAbort: () => void): PeerBody {
  const start = asked?.start ?? 0
  const end = Math.min(asked?.end ?? bytes.length, bytes.length)
  const over = new AbortController()
  const run = async (sink: (piece: Uint8Array) => Promise<void> | undefined) => {
    let position = start
    for (const step of steps.length > 0 ? steps : [end - start]) {
      if (position === end) return
      if (step instanceof Error) throw step
      if (typeof step === 'object') await wait(step.wait)
      else {
        const piece = bytes.subarray(position, Math.min(position + step, end))
        position += piece.length
        over.signal.throwIfAborted()
        await sink(piece)
      }
    }
  }
  return {
    status: asked ? 206 : 200,
    size: bytes.length,
    start,
    length: end - start,
    contentType: undefined,
    pipe: sink => abortable(run(sink), over.signal),
    abort(reason = new SourceError('revoked', 'no longer needed')) {
      if (!over.signal.aborted) onAbort()
      over.abort(reason)
    },
  }
}

/** Beyond all time if `ms` is infinite. */
function wait(ms: number): Promise<void> {
  return new Promise(resolve => {
    if (Number.isFinite(ms)) setTimeout(resolve, ms)
  })
}
