import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Content } from '../../../scripts/internet/content.ts'
import { sha256 } from '../../../scripts/internet/content.ts'
import type { Fault } from '../../../scripts/internet/fault.ts'
import type { Image } from '../../../scripts/internet/image.ts'
import type { Entry, ServerName } from '../../../scripts/internet/log.ts'
import { Download } from '../../download.ts'
import { until } from '../../shoal-process.ts'
import { fetchWhole, World } from '../../world.ts'
import { type Cell, ofBlob } from './cell.ts'
import type { Phase } from './fault-case.ts'

export type Outcome = 'right bytes' | 'clean error'

/** In bytes; more than twice what is held back at the end of an answer. */
const blobSize = 300_000

/** What a loaded machine may add to a deadline, in ms; without the shortest deadline it would be 9 s later. */
const tolerance = 5_000

/** For all of a cell, in ms: what takes so long hangs. */
const patience = 60_000

/** How long it may take after the fault until a pull succeeds, in ms: a circuit may be open, or a stalled answer stand. */
const recovery = 25_000

const repository = 'library/matrix'

/** An answer that is neither right nor an error that a client can tell as one, or that comes too late. */
class Wrong extends Error {}

/**
 * Lets one thing go wrong in a world of its own, and pulls; then again without the fault.
 * @param trap host and port of a server that nobody may be sent to
 * @returns how the first pull ended
 * @throws if that is not as it should be
 */
export async function tryCell(cell: Cell, trap: string): Promise<{ outcome: Outcome; ms: number }> {
  const ended = new AbortController()
  const hangs = setTimeout(patience, undefined, { signal: ended.signal }).then(() => {
    throw new Wrong(`no end within ${patience / 1000} s`)
  })
  try {
    return await Promise.race([runCell(cell, trap), hangs])
  } finally {
    ended.abort()
  }
}

async function runCell(cell: Cell, trap: string): Promise<{ outcome: Outcome; ms: number }> {
  await using trial = await Trial.open(cell, trap)
  await trial.switchOn()
  const begin = performance.now()
  const outcome = await trial.pull()
  const ms = performance.now() - begin
  await trial.checkStore()
  await trial.switchOff()
  await trial.recover()
  await trial.checkStore()
  if (cell.expected !== 'either' && outcome.kind !== cell.expected)
    throw new Wrong(`${outcome.kind}, not ${cell.expected}: ${outcome.detail}`)
  if (ms > cell.deadline + tolerance) throw new Wrong(`${outcome.kind} only after ${Math.round(ms)} ms`)
  return { outcome: outcome.kind, ms }
}

/** Worlds are made one after the other, since that is work, and others are waiting for deadlines meanwhile. */
let lastOpened: Promise<unknown> = Promise.resolve()

class Trial implements AsyncDisposable {
  readonly #cell: Cell
  readonly #world: World
  readonly #image: Image
  readonly #fault: Fault | undefined
  /** Where the first answer with the blob is cut, so that the fault meets the request for the rest. */
  #cutAt: number | undefined
  #on = false

  static open(cell: Cell, trap: string): Promise<Trial> {
    const opened = lastOpened.then(() => Trial.#open(cell, trap))
    lastOpened = opened.catch(() => {})
    return opened
  }

  static async #open(cell: Cell, trap: string): Promise<Trial> {
    const world = await World.open()
    try {
      const { internet } = world
      const image = await internet.add({ repository, tag: 'latest', layers: [blobSize] })
      internet.move(repository, 'other', await internet.add({ repository, tag: 'other', layers: [1] }))
      if (cell.place.includes('gcr')) internet.gcr.repositories.add(repository)
      return new Trial(cell, world, image, trap)
    } catch (error) {
      await world[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(cell: Cell, world: World, image: Image, trap: string) {
    const { faultCase, phase } = cell
    const at = positionOf(phase)
    this.#cell = cell
    this.#world = world
    this.#image = image
    if (faultCase.fault !== 'down')
      this.#fault = faultCase.fault({ realm: `${world.internet.hub.tokenUrl}/token`, trap, at })
    if (faultCase.sort !== 'position' && ofBlob(phase) && at > 0) this.#cutAt = at
  }

  /** Does what comes before the phase, and then lets the fault happen. */
  async switchOn(): Promise<void> {
    const { phase } = this.#cell
    const { hub, gcr, log } = this.#world.internet
    // From here on there is a token. Where mirror.gcr.io has answered, the hub is asked in the background.
    if (phase !== 'token') {
      await this.#world.head(`/v2/${repository}/manifests/other`)
      await until(
        () => log.requests({ server: 'hub', method: 'HEAD', status: 200 })[0],
        () => 'the hub was not asked for the tag',
      )
    }
    if (ofBlob(phase)) await this.#world.get(`/v2/${repository}/manifests/latest`)
    await log.idle()
    this.#on = true
    hub.intercept = gcr.intercept = entry => (this.#on ? this.#meet(entry) : undefined)
    if (this.#cell.faultCase.fault === 'down' && this.#cutAt === undefined) await this.#down()
  }

  async switchOff(): Promise<void> {
    this.#on = false
    const { hub, gcr } = this.#world.internet
    await Promise.all([hub.up(), gcr.up()])
    // What is wrong may still be on its way, and the next pull would get it. Where it stands still, nobody waits for it.
    if (!this.#cell.faultCase.waits) await this.#settled()
  }

  async #settled(): Promise<void> {
    await until(
      async () => {
        const { body } = await fetchWhole('GET', `${this.#world.admin}/api/v1/status`)
        return JSON.parse(body.toString()).transfers === 0 ? true : undefined
      },
      () => 'a transfer is still under way',
    )
  }

  /** @throws Wrong */
  pull(): Promise<{ kind: Outcome; detail: string }> {
    const { manifest, layers, digest } = this.#image
    const { phase } = this.#cell
    if (phase === 'ping') return this.#get('/v2/', { source: Buffer.from('{}'), size: 2 })
    if (phase === 'tag') return this.#head('latest', manifest)
    const [layer] = layers
    if (ofBlob(phase) && layer) return this.#get(`/v2/${repository}/blobs/${layer.digest}`, layer)
    return this.#get(`/v2/${repository}/manifests/${digest}`, manifest)
  }

  /** @throws Wrong unless the same pull succeeds in time, without a body that breaks off */
  async recover(): Promise<void> {
    const begin = performance.now()
    for (;;) {
      const { kind, detail } = await this.pull()
      if (kind === 'right bytes') return
      if (detail.startsWith('broke off')) throw new Wrong(`without the fault it still ${detail}`)
      if (performance.now() - begin > recovery) throw new Wrong(`no recovery: ${detail}`)
      await setTimeout(100)
    }
  }

  /** @throws Wrong if a blob is not what its name says */
  async checkStore(): Promise<void> {
    const folder = join(this.#world.data, 'blobs', 'sha256')
    for (const name of await readdir(folder))
      if (sha256(await readFile(join(folder, name))) !== `sha256:${name}`) throw new Wrong(`wrong bytes in ${name}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#world[Symbol.asyncDispose]()
  }

  /** What a request meets while the fault is on. */
  #meet(entry: Entry): Fault | undefined {
    const { place, phase, faultCase } = this.#cell
    if (this.#cutAt !== undefined) {
      if (!bringsBlob(entry, place)) return undefined
      const at = this.#cutAt
      this.#cutAt = undefined
      if (faultCase.fault === 'down') this.#world.internet.log.once('close', () => void this.#down())
      return { kind: 'cut', at }
    }
    if (!place.includes(entry.server) || !belongsTo(phase, entry)) return undefined
    if (faultCase.once) this.#on = false
    const fault = this.#fault
    // The offset is one into the content, wherever an answer begins.
    return fault && 'at' in fault && fault.kind !== 'corrupt'
      ? { ...fault, at: Math.max(0, fault.at - startOf(entry)) }
      : fault
  }

  async #down(): Promise<void> {
    const { hub, gcr } = this.#world.internet
    const closing: Readonly<Record<ServerName, () => Promise<void>>> = {
      gcr: () => gcr.down(),
      hub: () => hub.down('hub'),
      token: () => hub.down('token'),
      cdn: () => hub.down('cdn'),
    }
    await Promise.all(this.#cell.place.map(server => closing[server]()))
  }

  async #head(tag: string, { digest, size }: Content): Promise<{ kind: Outcome; detail: string }> {
    const { status, headers } = await this.#world.head(`/v2/${repository}/manifests/${tag}`)
    if (status === 404) return { kind: 'clean error', detail: '404' }
    if (status !== 200) throw new Wrong(`status ${status}`)
    if (headers['docker-content-digest'] !== digest || headers['content-length'] !== String(size))
      throw new Wrong(`200 with ${headers['docker-content-digest']}, ${headers['content-length']} bytes`)
    return { kind: 'right bytes', detail: '' }
  }

  async #get(
    path: string,
    { source, size }: Pick<Content, 'source' | 'size'>,
  ): Promise<{ kind: Outcome; detail: string }> {
    using download = await Download.open(this.#world.mirror + path)
    const end = await download.end()
    const { status, body, headers } = download
    if (status === 404 && end === 'whole') {
      const { errors } = JSON.parse(body.toString()) as { errors: { code: string; message: string }[] }
      const [error] = errors
      if (headers['content-type'] !== 'application/json' || !error?.code) throw new Wrong(`404 with ${body}`)
      return { kind: 'clean error', detail: error.message }
    }
    if (status !== 200) throw new Wrong(`status ${status}, ${end}: ${body}`)
    if (end === 'broken') {
      if (headers['content-length'] !== String(size) || body.length >= size)
        throw new Wrong(`broken after ${body.length} of ${headers['content-length']} bytes, which looks whole`)
      return { kind: 'clean error', detail: `broke off after ${body.length} bytes` }
    }
    if (typeof source === 'string' || !body.equals(source)) throw new Wrong(`200 with ${body.length} wrong bytes`)
    return { kind: 'right bytes', detail: '' }
  }
}

/** The offset into the content where the phase's fault is, in bytes. */
function positionOf(phase: Phase): number {
  if (phase === 'blob middle') return blobSize / 2
  if (phase === 'blob end') return blobSize - 1
  return phase === 'blob start' ? 0 : 20
}

function startOf({ range }: Entry): number {
  return Number(/^bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0)
}

/** Whether the answer is the blob: where mirror.gcr.io is not of the place, it does not have it. */
function bringsBlob({ server, method, path }: Entry, place: Cell['place']): boolean {
  return (
    method === 'GET' && (server === 'cdn' || (server === 'gcr' && place.includes('gcr') && path.includes('/blobs/')))
  )
}

/** Whether a request is one of the phase. */
function belongsTo(phase: Phase, { server, method, path, headers }: Entry): boolean {
  if (phase === 'ping') return true
  if (phase === 'token') return server === 'token' || headers.authorization === undefined
  if (phase === 'tag') return method === 'HEAD' && path.includes('/manifests/')
  if (phase === 'manifest') return method === 'GET' && path.includes('/manifests/')
  return method === 'GET' && (server === 'cdn' || path.includes('/blobs/'))
}
