import { readReference } from '@shoal/oci/reference'
import { countOf } from '@shoal/retention/decay'
import { OfficePopularity, type Told } from '@shoal/retention/office-popularity'
import { Popularity, plausible, type Row } from '@shoal/retention/popularity'
import type { Demand } from '@shoal/retention/worth'
import type { Store } from '@shoal/store/store'

/** How long a change may wait for others before it is written, in ms. */
const writeDelay = 2000

/** The name under which this machine's own pulls are kept: no peer has it. */
const own = 'own'

/** How often an image was pulled lately, and by how many machines that is known of. */
export type ImageDemand = { readonly image: string; readonly machines: number } & Demand

/** Whether it is more than one peer's word that an image is pulled. */
export function isSure({ own, machines }: ImageDemand): boolean {
  return own > 0 || machines > 1
}

export type ImagePopularityOptions = {
  readonly store: Store
  /** Whether peers may know of content of a registry at all. */
  readonly mayShare: (registry: string) => boolean
  /** Whether a peer is connected. */
  readonly isConnected: (peer: string) => boolean
  /** In ms since the epoch. */
  readonly now: () => number
  readonly onFailure: (error: unknown) => undefined
}

/** How often images are pulled, on this machine and on the others; kept across restarts. */
export class ImagePopularity implements AsyncDisposable {
  readonly #options: ImagePopularityOptions
  readonly #own: Popularity
  readonly #office: OfficePopularity
  /** Machines whose counts are to be written. */
  readonly #changed = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  private constructor(options: ImagePopularityOptions, rows: readonly Row[]) {
    this.#options = options
    this.#own = new Popularity(rows)
    this.#office = new OfficePopularity(undefined, options.isConnected)
  }

  static async open(options: ImagePopularityOptions): Promise<ImagePopularity> {
    const { store, onFailure } = options
    const { index } = store
    // It can be done without, if the index is damaged.
    const kept = async (machine: string) => index.popularity(machine).catch(onFailure)
    const popularity = new ImagePopularity(options, (await kept(own))?.rows ?? [])
    const office = popularity.#office
    for (const machine of (await index.popularMachines().catch(onFailure)) ?? []) {
      const told = machine === own ? undefined : await kept(machine)
      // As of when it was heard: what it was then, it need not be now.
      if (told) office.merge(machine, told, told.at)
    }
    return popularity
  }

  /** How many images are counted. */
  get entries(): number {
    return new Set([...this.#office.images(), ...[...this.#own].map(({ image }) => image)]).size
  }

  /** Counts a pull on this machine, at a time in ms since the epoch. */
  pulled(image: string, at: number): void {
    this.#own.pulled(image, at)
    this.#change(own)
  }

  /** Adds what a peer says of its own. */
  heard(peer: string, told: Told): void {
    this.#office.merge(peer, told, this.#options.now())
    this.#change(peer)
  }

  /** Nothing that a peer has said counts any more. */
  forget(peer: string): void {
    this.#office.forget(peer)
    this.#change(peer)
  }

  /** This machine's own rows that peers may know: of nothing that needs credentials. */
  *rows(): Generator<Row> {
    const now = this.#options.now()
    for (const { image, score } of this.#own) if (this.#isPublic(image)) yield { image, score: plausible(score, now) }
  }

  /** How often each image was pulled lately, in no order. */
  *demands(): Generator<ImageDemand> {
    const now = this.#options.now()
    for (const { image, score } of this.#own) {
      const count = countOf(plausible(score, now), now)
      const others = this.#office.count(image, now)
      yield { image, own: count, office: count + others, machines: 1 + this.#office.tellersOf(image) }
    }
    for (const image of this.#office.images())
      if (this.#own.scoreOf(image) === undefined)
        yield { image, own: 0, office: this.#office.count(image, now), machines: this.#office.tellersOf(image) }
  }

  /** The same of those that are pulled most, those first; those that one peer alone has pulled come last. */
  top(most: number): ImageDemand[] {
    return [...this.demands()]
      .sort((a, b) => Number(isSure(b)) - Number(isSure(a)) || b.office - a.office || (a.image < b.image ? -1 : 1))
      .slice(0, most)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer)
    this.#write()
    await this.#writing
  }

  #isPublic(image: string): boolean {
    const { store, mayShare } = this.#options
    const reference = readReference(image)
    if (!reference || !mayShare(reference.name.registry)) return false
    const { name, tag, digest } = reference
    // That peers have its content does not make a name public.
    if (digest !== undefined) return store.visibilities.isProven(name, digest)
    return tag !== undefined && store.refs.seen(name, tag)?.visibility === 'public'
  }

  #change(machine: string): void {
    this.#changed.add(machine)
    this.#timer ??= setTimeout(() => this.#write(), writeDelay).unref()
  }

  #write(): void {
    this.#timer = undefined
    const machines = [...this.#changed]
    this.#changed.clear()
    this.#writing = this.#writing.then(async () => {
      const { store, onFailure, now } = this.#options
      const heardAt = new Map([...this.#office.peers()].map(({ peer, heardAt }) => [peer, heardAt]))
      try {
        for (const machine of machines) {
          const at = machine === own ? now() : heardAt.get(machine)
          const rows = machine === own ? [...this.#own] : [...this.#office.rowsOf(machine)]
          await store.index.setPopularity(machine, at === undefined ? undefined : { at, rows })
        }
        for (const machine of await store.index.popularMachines())
          if (machine !== own && !heardAt.has(machine)) await store.index.setPopularity(machine, undefined)
      } catch (error) {
        onFailure(error)
      }
    })
  }
}
