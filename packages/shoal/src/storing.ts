import type { DiskError } from '@shoal/store/disk-error'
import type { Logger } from './log.ts'

/** What is said of a store that has no room. */
const fullText = 'store.max_size is reached, and all that is held is pinned or in use'

/** Whether what is pulled is stored; what changes is said once. */
export class Storing {
  readonly #folder: string
  readonly #log: Logger
  /** Of the disk, and of how much may be kept. */
  #failure: string | undefined
  #full = false

  constructor(folder: string, log: Logger) {
    this.#folder = folder
    this.#log = log
  }

  /** Why what is pulled passes through without being stored; undefined if it is stored. */
  get problem(): string | undefined {
    return this.#failure ?? (this.#full ? fullText : undefined)
  }

  failed({ message }: DiskError): void {
    if (this.#failure === undefined)
      this.#log.warn(
        { folder: this.#folder },
        `nothing more can be stored in ${this.#folder} (${message}): what is pulled passes through, and is not kept`,
      )
    this.#failure = message
  }

  succeeded(): void {
    if (this.#failure === undefined) return
    this.#failure = undefined
    this.#log.info({ folder: this.#folder }, 'what is pulled is stored again')
  }

  /** Nothing may go that is held. */
  stuck(): void {
    if (!this.#full) this.#log.warn(`${fullText}: what is pulled is not kept; unpin something, or raise store.max_size`)
    this.#full = true
  }

  /** Something has gone. */
  freed(): void {
    if (this.#full) this.#log.info('there is room in the store again: what is pulled is kept')
    this.#full = false
  }
}
