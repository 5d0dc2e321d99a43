import type { Connection, PrivateKey, Stream } from '@libp2p/interface'
import { formatName, type Name } from '@shoal/oci/name'
import type { Sighting } from '@shoal/store/refs'
import { decodeTagAnswer, decodeTagRequest, encodeTagAnswer, encodeTagRequest, type TagRequest } from './message.ts'
import { answer, ask } from './request.ts'
import { readRecord, signRecord } from './tag-record.ts'

/** How long an answer may take when upstream could be asked as well, in ms, and when it could not. */
const shortPatience = 50
const longPatience = 1500

/** How many peers are asked at once. */
const mostAsked = 16

/** Clocks differ, but not by more than this, in ms: a record from further ahead would never be out of date. */
const mostAhead = 5 * 60_000

export type TagRecordsOptions = {
  readonly peerId: string
  readonly privateKey: PrivateKey
  /** Whether peers are believed about tags: their bytes cannot show what a tag is. */
  readonly believes: boolean
  /** Whether they are asked before the registry is: where all members trust each other. */
  readonly spares: boolean
  /** How long a tag is believed, in ms. */
  readonly ttl: number
  /**
   * What this machine has seen a tag to be, if peers may know; undefined else.
   * @param check whether to ask the registry, if that was not done lately
   */
  readonly known: (name: string, tag: string, check: boolean) => Promise<Sighting | undefined> | Sighting | undefined
  /** Of the members, in no order. */
  readonly connections: () => readonly { readonly connection: Connection; readonly name: string }[]
  /** In ms since the epoch. */
  readonly clock: () => number
  readonly random: () => number
}

/** What peers have seen tags to be, as records that they sign. */
export class TagRecords {
  static readonly protocol = '/shoal/1/tag'
  readonly #options: TagRecordsOptions

  constructor(options: TagRecordsOptions) {
    this.#options = options
  }

  /** What a peer has checked within the tags' ttl; undefined if none says so at once. */
  fresh(name: Name, tag: string, signal: AbortSignal): Promise<Sighting | undefined> {
    const { ttl, clock, spares } = this.#options
    if (!spares) return Promise.resolve(undefined)
    return this.#seek(name, tag, shortPatience, signal, sighting => clock() - sighting.at < ttl)
  }

  /** The newest that any peer knows. */
  last(name: Name, tag: string, signal: AbortSignal): Promise<Sighting | undefined> {
    return this.#seek(name, tag, longPatience, signal, () => false)
  }

  /** Answers a peer's question. */
  async answer(stream: Stream, signal: AbortSignal): Promise<void> {
    const { peerId, privateKey, known, spares } = this.#options
    const reply = async (question: Uint8Array) => {
      const { name, tag, check = false } = decodeTagRequest(question)
      const sighting = await known(name, tag, check && spares)
      return encodeTagAnswer(sighting ? await signRecord({ name, tag, sighting, peerId, privateKey }) : {})
    }
    await answer(stream, reply, AbortSignal.any([signal, AbortSignal.timeout(longPatience)]))
  }

  /** Asks some peers; the newest record, or the first that is `enough`. */
  async #seek(
    name: Name,
    tag: string,
    patience: number,
    signal: AbortSignal,
    enough: (sighting: Sighting) => boolean,
  ): Promise<Sighting | undefined> {
    const { believes, connections, random, spares } = this.#options
    const check = spares && patience === longPatience
    if (!believes) return undefined
    const asked = connections()
      .map(peer => ({ peer, turn: random() }))
      .sort((a, b) => a.turn - b.turn)
      .slice(0, mostAsked)
    if (asked.length === 0) return undefined
    const over = new AbortController()
    const limit = AbortSignal.any([signal, over.signal, AbortSignal.timeout(patience)])
    let best: Sighting | undefined
    const answers = asked.map(async ({ peer }) => {
      const request = { name: formatName(name), tag, ...(check && { check }) }
      const sighting = await this.#ask(peer, request, limit).catch(() => undefined)
      if (sighting && sighting.at > (best?.at ?? 0)) best = sighting
      if (best && enough(best)) over.abort()
    })
    await Promise.all(answers)
    return best && (patience === longPatience || enough(best)) ? best : undefined
  }

  async #ask(
    { connection, name: peerName }: { readonly connection: Connection; readonly name: string },
    request: TagRequest,
    signal: AbortSignal,
  ): Promise<Sighting | undefined> {
    const { name, tag } = request
    const reply = decodeTagAnswer(await ask(connection, TagRecords.protocol, encodeTagRequest(request), signal))
    if (!reply.record || !reply.signature) return undefined
    const record = await readRecord(reply.record, reply.signature, connection.remotePeer)
    const { clock } = this.#options
    if (record.name !== name || record.tag !== tag || record.checked_at > clock() + mostAhead) return undefined
    return {
      descriptor: { mediaType: record.media_type, digest: record.digest, size: record.size },
      at: Math.min(record.checked_at, clock()),
      from: peerName,
      visibility: 'public',
    }
  }
}
