/** What a machine keeps: it is asked for blobs by number, and has so many bytes for them. */
export type Keeping = {
  has(blob: number): boolean
  /** It was asked for a blob that it has. */
  hit(blob: number): void
  /** It was asked for a blob that it had not, and has it from elsewhere: it may keep it, and drop others for it. */
  miss(blob: number): void
}

/** What a machine knows when it begins. */
export type Machine = {
  readonly number: number
  /** In bytes. */
  readonly capacity: number
  /** Of each blob, in bytes. */
  readonly sizes: readonly number[]
  readonly digests: readonly string[]
  /** How many other machines have a blob, as far as this one knows, and whether it is the one of all those to keep it. */
  readonly copiesOf: (blob: number) => { readonly others: number; readonly keeps: boolean }
  /** In ms since the epoch. */
  readonly clock: () => number
  /** Is told of each blob that is kept from now on, or not any more. */
  readonly changed: (blob: number, kept: boolean) => void
}

/** Says what a machine keeps. */
export type Policy = (machine: Machine) => Keeping
