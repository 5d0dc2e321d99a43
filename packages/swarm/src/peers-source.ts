import type { ByteRange } from '@shoal/oci/byte-range'
import type { Digest } from '@shoal/oci/digest'
import { abortable } from '@shoal/store/abortable'
import { type Offer, rangeOf, type Source, SourceError, type Want } from '@shoal/store/source'
import type { Address } from './dialer.ts'
import type { PeerAnswer, PeerBody, PeerClient } from './peer-client.ts'
import { PeerViolation } from './peer-client.ts'
import { PeersOffer } from './peers-offer.ts'
import { choose, type Provider } from './provider.ts'

/** A peer that says it has the content, and where it gives bytes. */
export type Holder = { readonly provider: Provider; readonly address: Address }

/** What a source of peers needs to know of them, and tells of them. */
export type PeersContext = {
  /** Who is connected and has announced the content. */
  readonly holders: (digest: Digest) => readonly Holder[]
  readonly client: Pick<PeerClient, 'get'>
  /** It announced the content, and does not have it. */
  readonly lacks: (provider: Provider, digest: Digest) => void
  /** It gave all of it, from the first byte to the last; that is still to be verified. */
  readonly gaveAll: (provider: Provider, digest: Digest) => void
  /** It does not answer: it may be gone. */
  readonly suspect: (provider: Provider) => void
  /** It did what no peer does that keeps to the protocol. */
  readonly ban: (provider: Provider, reason: string) => void
  /** In ms, never going back. */
  readonly now: () => number
  readonly random: () => number
}

/** How peers are waited for, in ms. */
export type Patience = {
  /** Until a second peer is asked as well. */
  readonly hedge: number
  /** Until a connection to a peer stands, if there is none: both sides may be busy with much else. */
  readonly connect: number
  /** From there until it has begun to answer. */
  readonly answer: number
  /** Between two pieces of a body, if there is no other peer to turn to. */
  readonly silence: number
  /** How long peers who are all busy are asked again and again. */
  readonly busy: number
}

/** With upstream to turn to, and without. */
const patiences = {
  impatient: { hedge: 120, connect: 1000, answer: 400, silence: 1200, busy: 0 },
  patient: { hedge: 1000, connect: 6000, answer: 6000, silence: 15_000, busy: 20_000 },
} satisfies Record<string, Patience>

/** How long who is busy is left alone, in ms, when there is nobody else. */
const busyPause = 400

/** What is taken to come if its size is not known, in bytes. */
const assumedSize = 4 * 1024 * 1024

/** A peer that has begun to answer. */
export type Opened = { readonly holder: Holder; readonly body: PeerBody }

/** The peers of the LAN as a source of content: those who have announced it. A look-up asks nobody. */
export class PeersSource implements Source {
  readonly label = 'peers'
  readonly kind = 'peer'
  readonly #context: PeersContext
  readonly #patience: Patience
  readonly #last: boolean

  constructor(context: PeersContext, kind: keyof typeof patiences) {
    this.#context = context
    this.#patience = patiences[kind]
    this.#last = kind === 'patient'
  }

  async find(want: Want, signal: AbortSignal): Promise<Offer | null> {
    const { digest, size, without } = want
    const avoided = new Set(
      this.#context.holders(digest).flatMap(({ provider }) => (without?.has(provider) ? [provider] : [])),
    )
    const opened = await this.open(digest, rangeOf(want), size, avoided, signal)
    return opened && new PeersOffer(this, this.#context, want, opened, avoided, this.#patience)
  }

  /** Whether there is somebody else to ask. */
  hasOthers(digest: Digest, avoided: ReadonlySet<Provider>): boolean {
    return this.#candidates(digest, avoided).length > 0
  }

  /**
   * Has a peer begin to give a range: the likeliest first, a second one if that takes long.
   * @param avoided peers not to be asked; those who fail are added
   * @returns null if nobody has it, or has it any longer
   * @throws SourceError `timeout`, `limited` (all are busy), or why the last one failed
   */
  async open(
    digest: Digest,
    range: ByteRange | undefined,
    size: number | undefined,
    avoided: Set<Provider>,
    signal: AbortSignal,
  ): Promise<Opened | null> {
    const until = this.#context.now() + this.#patience.busy
    for (;;) {
      if (!this.hasOthers(digest, avoided)) return null
      const hunt = new Hunt(this.#context, { digest, range, size, patience: this.#patience, avoided })
      const opened = await hunt.run(avoided => this.#candidates(digest, avoided), signal)
      if (opened) return opened
      if (hunt.busy.size === 0) {
        if (hunt.failure) throw hunt.failure
        return null
      }
      if (this.#context.now() >= until) throw new SourceError('limited', 'all peers that have it are busy')
      for (const provider of hunt.busy) avoided.delete(provider)
      const pause = busyPause * (0.5 + this.#context.random())
      await abortable(new Promise(resolve => setTimeout(resolve, pause)), signal)
    }
  }

  #candidates(digest: Digest, avoided: ReadonlySet<Provider>): Holder[] {
    return this.#context
      .holders(digest)
      .filter(({ provider }) => !avoided.has(provider) && (this.#last ? provider.willing : provider.fit))
  }
}

/** What peers are searched for, and how. */
type Sought = {
  readonly digest: Digest
  readonly range: ByteRange | undefined
  readonly size: number | undefined
  readonly patience: Patience
  readonly avoided: Set<Provider>
}

/** One search for a peer that begins to give. */
class Hunt {
  readonly busy = new Set<Provider>()
  failure: SourceError | undefined
  readonly #context: PeersContext
  readonly #what: Sought
  /** Those who were asked and have not answered yet, with what ends the question. */
  readonly #asked = new Map<Provider, AbortController>()

  constructor(context: PeersContext, what: Sought) {
    this.#context = context
    this.#what = what
  }

  /** @returns undefined if nobody gives it; {@link busy} and {@link failure} tell more */
  run(candidates: (avoided: ReadonlySet<Provider>) => Holder[], signal: AbortSignal): Promise<Opened | undefined> {
    const { avoided, patience, size, range } = this.#what
    const { random } = this.#context
    const bytes = (size ?? assumedSize) - (range?.start ?? 0)
    // However many are asked, one after the other.
    const most = patience.connect + patience.answer
    return new Promise((resolve, reject) => {
      let over = false
      const finish = (settle: () => void) => {
        if (over) return
        over = true
        clearTimeout(hedge)
        clearTimeout(limit)
        signal.removeEventListener('abort', onAbort)
        for (const [, question] of this.#asked) question.abort(new SourceError('revoked', 'another peer was faster'))
        settle()
      }
      const onAbort = () => finish(() => reject(signal.reason))
      const next = () => {
        const asked = new Set([...avoided, ...this.#asked.keys()])
        const holders = candidates(asked)
        const provider = choose(
          holders.map(holder => holder.provider),
          bytes,
          random,
        )
        const holder = holders.find(holder => holder.provider === provider)
        if (holder) void ask(holder)
        else if (this.#asked.size === 0) finish(() => resolve(undefined))
      }
      const ask = async (holder: Holder) => {
        const question = new AbortController()
        this.#asked.set(holder.provider, question)
        try {
          const answer = await this.#ask(holder, question.signal)
          this.#asked.delete(holder.provider)
          const body = this.#judge(holder, answer)
          if (body && over) body.abort()
          else if (body) return finish(() => resolve({ holder, body }))
        } catch (error) {
          this.#asked.delete(holder.provider)
          if (!over) this.#failed(holder, error)
        }
        if (!over) next()
      }
      const hedge = setTimeout(next, patience.hedge)
      const limit = setTimeout(() => {
        for (const provider of this.#asked.keys()) this.#silent(provider)
        finish(() => reject(new SourceError('timeout', `no peer has answered within ${most / 1000} s`)))
      }, most)
      signal.addEventListener('abort', onAbort, { once: true })
      if (signal.aborted) return onAbort()
      next()
    })
  }

  #ask({ provider, address }: Holder, signal: AbortSignal): Promise<PeerAnswer> {
    const { digest, range, patience } = this.#what
    return this.#context.client.get({ peerId: provider.id, ...address }, digest, {
      ...(range && { range }),
      connectTimeout: patience.connect,
      answerTimeout: patience.answer,
      // What comes of it is watched by the offer.
      silenceTimeout: 60_000,
      signal,
    })
  }

  /** @returns the body of an answer that has one */
  #judge({ provider }: Holder, answer: PeerAnswer): PeerBody | undefined {
    const { digest, avoided } = this.#what
    if (answer.status === 200 || answer.status === 206) return answer
    avoided.add(provider)
    if (answer.status === 404) this.#context.lacks(provider, digest)
    else if (answer.status === 416) this.failure = new SourceError('broken', `${provider.name} has a shorter blob`)
    else if (answer.refusal === 'busy') {
      provider.wasBusy()
      this.busy.add(provider)
    } else provider.willing = false
    return undefined
  }

  #failed({ provider }: Holder, error: unknown): void {
    this.#what.avoided.add(provider)
    if (error instanceof PeerViolation) this.#context.ban(provider, error.message)
    if (error instanceof SourceError && error.code !== 'revoked') {
      this.failure = error
      // Too many connections of this machine's own are no fault of the peer's.
      if (error.code === 'limited') this.busy.add(provider)
      else this.#silent(provider)
    }
  }

  #silent(provider: Provider): void {
    this.#what.avoided.add(provider)
    provider.failed()
    this.#context.suspect(provider)
  }
}
