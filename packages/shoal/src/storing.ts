import type { DiskError } from '@shoal/store/disk-error'
import type { Logger } from './log.ts'

/** Whether what is pulled is stored; what changes is said once. */
export class Storing {
  readonly #folder: string
  readonly #log: Logger
  #problem: string | undefined

  constructor(folder: string, log: Logger) {
    this.#folder = folder
    this.#log = log
  }

  /** Why what is pulled passes through without being stored; undefined if it is stored. */
  get problem(): string | undefined {
    return this.#problem
  }

  failed({ message }: DiskError): void {
    if (this.#problem === undefined)
      this.#log.warn(
        { folder: this.#folder },
        `nothing more can be stored in ${this.#folder} (${message}): what is pulled passes through, and is not kept`,
      )
    this.#problem = message
  }

  succeeded(): void {
    if (this.#problem === undefined) return
    this.#problem = undefined
    this.#log.info({ folder: this.#folder }, 'what is pulled is stored again')
  }
}
