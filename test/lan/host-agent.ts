import { createHash } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, request } from 'node:http'
import { serveCalls } from './agent.ts'
import { pull } from './container-tool.ts'

/** An answer, and what came of its body. */
export type Got = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** Of the body: `sha256:…`. */
  readonly digest: string
  /** Of the body, in bytes. */
  readonly length: number
  /** The body, if it was to be kept. */
  readonly text: string
  readonly seconds: number
  /** Until the headers were there. */
  readonly headersAfter: number
  /** Why the body did not come to its end. */
  readonly broken: string | undefined
}

export type Get = {
  readonly url: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** Give the body back, too. */
  readonly keep?: boolean
  /** Break off when nothing has come for so long, in ms. @default 60_000 */
  readonly patience?: number
}

export type HostCalls = typeof calls

const hearing = new Map<string, { socket: Socket; heard: string[] }>()

function get({ url, method = 'GET', headers, body, keep = false, patience = 60_000 }: Get): Promise<Got> {
  const begin = performance.now()
  const secondsSince = () => (performance.now() - begin) / 1000
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers: headers ?? {}, agent: false, timeout: patience }, response => {
      const headersAfter = secondsSince()
      outgoing.off('error', reject).on('error', () => {})
      const hash = createHash('sha256')
      const kept: Buffer[] = []
      let length = 0
      let broken: string | undefined
      response.on('data', (piece: Buffer) => {
        hash.update(piece)
        length += piece.length
        if (keep) kept.push(piece)
      })
      response.on('error', error => (broken = error.message))
      response.on('close', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          digest: `sha256:${hash.digest('hex')}`,
          length,
          text: Buffer.concat(kept).toString(),
          seconds: secondsSince(),
          headersAfter,
          broken,
        }),
      )
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`nothing has come for ${patience} ms`)))
    // Once there is a response, it tells by itself that it was broken off.
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

const calls = {
  get,
  pull,

  /** Answers requests for `/N` with N bytes, at all addresses. */
  async serve({ port }: { readonly port: number }): Promise<void> {
    const server = createServer((incoming, response) => response.end(Buffer.alloc(Number(incoming.url?.slice(1)))))
    server.listen(port)
    await once(server, 'listening')
  },

  /** Joins a multicast group on the interface that has the address. */
  async hear({ group, port, on }: { readonly group: string; readonly port: number; readonly on: string }) {
    const socket = createSocket({ type: 'udp4', reuseAddr: true })
    const heard: string[] = []
    socket.on('message', (message, { address }) => heard.push(`${address} ${message}`))
    socket.bind(port)
    await once(socket, 'listening')
    socket.addMembership(group, on)
    hearing.set(group, { socket, heard })
  },

  /** What was heard in a group so far, each as `10.77.0.11 text`. */
  heard: ({ group }: { readonly group: string }): readonly string[] => hearing.get(group)?.heard ?? [],

  /** Says something in a group that it has joined. */
  async say({ group, port, on, text }: { group: string; port: number; on: string; text: string }) {
    const socket = createSocket('udp4')
    socket.bind()
    await once(socket, 'listening')
    socket.setMulticastInterface(on)
    await new Promise<void>((resolve, reject) =>
      socket.send(text, port, group, error => (error ? reject(error) : resolve())),
    )
    socket.close()
  },
}

serveCalls(calls)
