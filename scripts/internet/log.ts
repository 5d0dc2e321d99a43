import { EventEmitter, once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'

export type ServerName = 'hub' | 'token' | 'cdn' | 'gcr'

/** One request, from its arrival on. */
export type Entry = {
  /** When it came, in ms since 1970. */
  time: number
  server: ServerName
  /** The address that it came from. */
  client: string
  method: string
  /** With the query. */
  path: string
  headers: IncomingHttpHeaders
  /** 0 until the answer begins. */
  status: number
  /** Bytes of the body that were handed to the socket so far. */
  bytes: number
  user: string
  range: string | undefined
  userAgent: string | undefined
  /** The whole answer went out. */
  finished: boolean
  /** It's over: the answer went out, or the connection is gone. */
  closed: boolean
}

/** Fields that must be equal; `path` is a part of the path, or matches it. */
export type Filter = Partial<
  Pick<Entry, 'server' | 'client' | 'method' | 'status' | 'user' | 'finished' | 'closed'>
> & {
  path?: string | RegExp
}

/** Every request to any of the servers. Emits `request` when one arrives and `close` when it's over. */
export class Log extends EventEmitter<{ request: [Entry]; close: [Entry] }> {
  readonly entries: Entry[] = []
  #open = 0

  open(entry: Entry): void {
    this.#open++
    this.entries.push(entry)
    this.emit('request', entry)
  }

  close(entry: Entry): void {
    this.#open--
    entry.closed = true
    this.emit('close', entry)
  }

  clear(): void {
    this.entries.length = 0
  }

  /** Bytes of bodies that a server, or all of them, handed out. */
  bytes(server?: ServerName): number {
    return this.requests(server ? { server } : {}).reduce((sum, entry) => sum + entry.bytes, 0)
  }

  requests(filter: Filter = {}): Entry[] {
    const { path = '', ...fields } = filter
    return this.entries.filter(
      entry =>
        (typeof path === 'string' ? entry.path.includes(path) : path.test(entry.path)) &&
        Object.entries(fields).every(([key, value]) => entry[key as keyof typeof fields] === value),
    )
  }

  /** Resolves when no request is under way: an entry closes a moment after its client has had the last byte. */
  async idle(): Promise<void> {
    while (this.#open > 0) await once(this, 'close')
  }
}
