import { bytesToSign } from '@shoal/swarm/spread/chunk-hashes'
import type { HashBatch, SpreadMessage } from '@shoal/swarm/spread/spread-message'
import type { Chance } from './chance.ts'
import { type Machine, signatureOf } from './machine.ts'

/**
 * What a machine does that lies. `bytes`: gives other bytes than it has. `hashes`: tells hashes of other bytes than it has fetched,
 * and gives those. `two`: so, but not the same to all. `lease`: answers nonsense as a coordinator. `mute`: answers nothing as
 * one. `empty`: says that it has all, and gives nothing. `claim`: says that it fetches all, and does not. `busy`: gives
 * nothing, as if it were always busy.
 */
export const lies = ['bytes', 'hashes', 'two', 'lease', 'mute', 'empty', 'claim', 'busy'] as const
export type Lie = (typeof lies)[number]

/** Twists what the daemon's own code says and gives. */
export class Liar {
  readonly lie: Lie
  readonly #machine: Machine
  readonly #chance: Chance

  constructor(machine: Machine, chance: Chance, lie: Lie) {
    this.#machine = machine
    this.#chance = chance
    this.lie = lie
  }

  get gives(): boolean {
    return this.lie !== 'empty' && this.lie !== 'claim' && this.lie !== 'busy'
  }

  /** Undefined: no answer at all. */
  get refusal(): 'lacks' | 'busy' | undefined {
    return this.lie === 'busy' ? 'busy' : this.#chance.pick(['lacks', 'busy', undefined])
  }

  /** What it says that it has fetched. */
  get forgery(): string | undefined {
    return this.lie === 'hashes' || this.lie === 'two' ? `made up by ${this.#machine.id}` : undefined
  }

  contentFor(to: string, content: string): string {
    if (this.lie === 'bytes') return `other than ${content}`
    if (this.lie === 'two' && content === this.forgery) return this.#versionFor(to)
    return content
  }

  /** The hashes of what one is given, signed as if they were for all. */
  #versionOf(batch: HashBatch, to: string, { digest, ...message }: SpreadMessage): HashBatch {
    if (batch.author !== this.#machine.id) return batch
    const hashes = batch.hashes.map(hash => hash.replace(this.forgery!, this.#versionFor(to)))
    const chunk = 'chunk' in message ? message.chunk : this.#machine.spreads.of(digest)!.chunks.chunk
    return { ...batch, hashes, signature: signatureOf(batch.author, bytesToSign(digest, chunk, { ...batch, hashes })) }
  }

  #versionFor(to: string): string {
    return to.charCodeAt(to.length - 1) % 2 === 0 ? this.forgery! : `${this.forgery!} anew`
  }

  distort(to: string, message: SpreadMessage): SpreadMessage | undefined {
    const { lie } = this
    if (message.t === 'lease') {
      if (lie === 'mute') return undefined
      if (lie === 'lease') return this.#nonsense(message)
    }
    if (lie === 'two' && 'hashes' in message) {
      const hashes = message.hashes.map(batch => this.#versionOf(batch, to, message))
      return { ...message, hashes } as SpreadMessage
    }
    if (message.t !== 'have') return message
    const all = [[0, Math.ceil(message.size / message.chunk)]] as const
    if (lie === 'empty') return { ...message, add: all, claim: [], handing: false }
    if (lie === 'claim') return { ...message, claim: all, handing: true }
    return message
  }

  #nonsense(message: Extract<SpreadMessage, { t: 'lease' }>): SpreadMessage | undefined {
    const count = Math.ceil(message.size / message.chunk)
    const kind = this.#chance.below(6)
    if (kind === 0) return { ...message, fetch: [[0, count]] }
    if (kind === 1) return { ...message, fetch: [] }
    if (kind === 2) return { ...message, epoch: 2 ** 40, fetch: [] }
    if (kind === 3) return { ...message, members: ['nobody', 'another nobody'] }
    if (kind === 4) return { ...message, size: message.size + 1 }
    return { ...message, chunk: 3, fetch: [[5, 2 ** 30]] }
  }
}
