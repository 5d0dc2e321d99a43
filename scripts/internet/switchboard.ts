import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Fault } from './fault.ts'
import type { Internet } from './internet.ts'
import type { Entry, ServerName } from './log.ts'

/** A fault, and the requests that meet it: those that have all that is told of them. */
export type Rule = {
  server?: ServerName
  method?: string
  /** A part of the path. */
  path?: string
  /** To how many requests it happens. @default all */
  times?: number
  fault: Fault
}

/** The fields of each fault; `?` marks one that may be left out. */
const fields: { [Kind in Fault['kind']]: Record<string, 'number' | 'string' | 'object' | 'string?' | 'object?'> } = {
  status: { status: 'number', headers: 'object?' },
  challenge: { realm: 'string' },
  redirect: { to: 'string?' },
  portal: { login: 'string?' },
  cut: { at: 'number' },
  stall: { at: 'number' },
  corrupt: { at: 'number' },
  length: { by: 'number' },
  endless: {},
  slow: { bytesPerSecond: 'number' },
  hang: {},
  reset: {},
  delay: { ms: 'number' },
}

/** Switches faults on and off by request: `PUT /faults` with a list of rules, of which the first that fits counts. */
export class Switchboard implements AsyncDisposable {
  readonly #server: Server
  #rules: Rule[] = []

  /** @param port 0: any that is free */
  static async open({ hub, gcr }: Internet, port = 0): Promise<Switchboard> {
    const board = new Switchboard()
    hub.intercept = gcr.intercept = entry => board.#faultOf(entry)
    board.#server.listen(port, '127.0.0.1')
    await once(board.#server, 'listening')
    return board
  }

  private constructor() {
    this.#server = createServer((request, response) => void this.#serve(request, response))
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/faults`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  #faultOf(entry: Entry): Fault | undefined {
    const rule = this.#rules.find(
      ({ server = entry.server, method = entry.method, path = '', times = 1 }) =>
        server === entry.server && method === entry.method && entry.path.includes(path) && times > 0,
    )
    if (rule?.times !== undefined) rule.times--
    return rule?.fault
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const known = request.url === '/faults' && ['GET', 'PUT', 'DELETE'].includes(request.method ?? '')
    if (!known) return void response.writeHead(404).end('there is GET, PUT and DELETE of /faults\n')
    try {
      const parts: Buffer[] = []
      for await (const part of request) parts.push(part)
      if (request.method === 'PUT') this.#rules = parseRules(Buffer.concat(parts).toString())
      if (request.method === 'DELETE') this.#rules = []
      response.writeHead(200, { 'content-type': 'application/json' }).end(`${JSON.stringify(this.#rules)}\n`)
    } catch (error) {
      response.writeHead(400).end(`${error instanceof Error ? error.message : error}\n`)
    }
  }
}

/** @throws Error with what is wrong */
function parseRules(text: string): Rule[] {
  const rules: unknown = JSON.parse(text)
  if (!Array.isArray(rules)) throw new Error('expected a list of rules: [{"server":"gcr","fault":{"kind":"hang"}}]')
  return rules.map(rule => {
    const { fault, ...filter } = rule as Record<string, unknown> & { fault?: Record<string, unknown> }
    check(filter, { server: 'string?', method: 'string?', path: 'string?', times: 'number?' }, 'a rule')
    const { kind, ...rest } = fault ?? {}
    if (typeof kind !== 'string' || !Object.hasOwn(fields, kind))
      throw new Error(`a fault is one of ${Object.keys(fields).join(', ')}`)
    check(rest, fields[kind as Fault['kind']], `the fault "${kind}"`)
    return rule as Rule
  })
}

function check(value: Record<string, unknown>, expected: Record<string, string>, what: string): void {
  for (const name of Object.keys(value)) if (!Object.hasOwn(expected, name)) throw new Error(`${what} has no "${name}"`)
  for (const [name, type] of Object.entries(expected)) {
    if (value[name] === undefined && type.endsWith('?')) continue
    if (typeof value[name] !== type.replace('?', ''))
      throw new Error(`${what} wants "${name}", a ${type.replace('?', '')}`)
  }
}
