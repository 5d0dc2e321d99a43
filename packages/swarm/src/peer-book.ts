import { join } from 'node:path'
import { type Disk, isAbsent } from '@shoal/store/disk'
import { z } from 'zod'

/** A peer that was met before. Addresses are `host:port` of its libp2p side, the newest first; `seenAt` in ms since the epoch. */
export type RememberedPeer = {
  readonly id: string
  readonly name: string
  readonly addresses: readonly string[]
  readonly seenAt: number
  /** The name of the network that it was met in. */
  readonly network: string
}

/** A peer that is shut out; for good if `until` is null. In ms since the epoch. */
export type Ban = {
  readonly id: string
  readonly name: string
  readonly reason: string
  readonly at: number
  readonly until: number | null
}

/** How many peers are remembered, and for how long, in ms. */
const mostRemembered = 256
const rememberedFor = 30 * 86_400_000

/** Bans that are kept: identities are free, so that somebody could make one after another. */
const mostBans = 1000

/** How long a change of what is remembered may wait for others before it is written, in ms. */
const writeDelay = 5000

const remembered = z.object({
  id: z.string(),
  name: z.string(),
  addresses: z.array(z.string()),
  seenAt: z.number(),
  network: z.string(),
})
const ban = z.object({
  id: z.string(),
  name: z.string(),
  reason: z.string(),
  at: z.number(),
  until: z.number().nullable(),
})
const schema = z.object({ version: z.literal(1), peers: z.array(remembered), bans: z.array(ban) })

export type PeerBookOptions = {
  readonly folder: string
  readonly disk: Disk
  /** In ms since the epoch. */
  readonly now: () => number
  readonly onError: (error: Error) => void
}

/** Whom this machine has met, and whom it has shut out: `peers.json`, kept across restarts. */
export class PeerBook {
  readonly #path: string
  readonly #options: PeerBookOptions
  readonly #peers = new Map<string, RememberedPeer>()
  readonly #bans = new Map<string, Ban>()
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  private constructor(options: PeerBookOptions) {
    this.#options = options
    this.#path = join(options.folder, 'peers.json')
  }

  /** Reads what is kept; a file that cannot be read is set aside. */
  static async open(options: PeerBookOptions): Promise<PeerBook> {
    const book = new PeerBook(options)
    const { disk, onError } = options
    try {
      const { peers, bans } = schema.parse(JSON.parse((await disk.readFile(book.#path)).toString()))
      for (const peer of peers) book.#peers.set(peer.id, peer)
      for (const ban of bans) book.#bans.set(ban.id, ban)
    } catch (cause) {
      if (isAbsent(cause)) return book
      const aside = `${book.#path}.unreadable`
      await disk.rename(book.#path, aside).catch(() => {})
      onError(
        new Error(
          `${book.#path} cannot be read, so peers must be found again, and bans are lost; it was moved to ${aside}`,
          { cause },
        ),
      )
    }
    return book
  }

  /** Those who were met in a network, the last seen first. */
  rememberedIn(network: string): readonly RememberedPeer[] {
    const oldest = this.#options.now() - rememberedFor
    return [...this.#peers.values()]
      .filter(peer => peer.network === network && peer.seenAt > oldest)
      .sort((a, b) => b.seenAt - a.seenAt)
  }

  /** Where a peer was met, the newest first. */
  addressesOf(id: string): readonly string[] {
    return this.#peers.get(id)?.addresses ?? []
  }

  remember(peer: RememberedPeer): void {
    this.#peers.set(peer.id, peer)
    if (this.#peers.size > mostRemembered) {
      const [oldest] = [...this.#peers.values()].sort((a, b) => a.seenAt - b.seenAt)
      if (oldest) this.#peers.delete(oldest.id)
    }
    this.#timer ??= setTimeout(() => void this.flush(), writeDelay).unref()
  }

  get bans(): readonly Ban[] {
    return [...this.#bans.values()].filter(ban => this.#holds(ban))
  }

  isBanned(id: string): boolean {
    const ban = this.#bans.get(id)
    return ban !== undefined && this.#holds(ban)
  }

  /** Resolves once it is kept. */
  async ban(ban: Ban): Promise<void> {
    this.#bans.delete(ban.id)
    this.#bans.set(ban.id, ban)
    for (const [id, ban] of this.#bans) if (!this.#holds(ban)) this.#bans.delete(id)
    for (const id of this.#bans.keys()) {
      if (this.#bans.size <= mostBans) break
      this.#bans.delete(id)
    }
    await this.flush()
  }

  /** @returns whether the peer was banned */
  async unban(id: string): Promise<boolean> {
    const banned = this.isBanned(id)
    this.#bans.delete(id)
    if (banned) await this.flush()
    return banned
  }

  /** Writes what is to be kept. Never rejects. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    await this.#writing
  }

  #holds({ until }: Ban): boolean {
    return until === null || until > this.#options.now()
  }

  async #write(): Promise<void> {
    const document: z.infer<typeof schema> = {
      version: 1,
      peers: [...this.#peers.values()].map(peer => ({ ...peer, addresses: [...peer.addresses] })),
      bans: [...this.#bans.values()],
    }
    try {
      await this.#options.disk.replaceFile(this.#path, `${JSON.stringify(document, null, 1)}\n`, 0o600)
    } catch (cause) {
      this.#options.onError(
        new Error(`${this.#path} cannot be written: ${cause instanceof Error ? cause.message : cause}`, { cause }),
      )
    }
  }
}
