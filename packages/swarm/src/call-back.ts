import { once } from 'node:events'
import { connect } from 'node:net'
import type { Connection, Stream } from '@libp2p/interface'
import type { Address } from './dialer.ts'
import type { Member } from './member.ts'
import { decodeCallBack, decodeCallBackRequest, encodeCallBack, encodeCallBackRequest } from './message.ts'
import { hostOf } from './node.ts'
import { answer, ask } from './request.ts'

/** What a peer that was asked to connect back found: `ok`, or why it could not. */
export type CallBack = { readonly name: string; readonly swarm: string; readonly transfer: string }

/** How long a port may take to answer, in ms, and a peer to tell of it. */
const connectTime = 2000
const answerTime = 5000

/** How often a peer may ask, in ms. */
const everySoOften = 3000

export type CallBacksOptions = {
  /** Whether an address may be connected to. */
  readonly admits: (host: string) => boolean
  /** In ms, never going back. */
  readonly now: () => number
}

/** Has peers connect to this machine's ports, and does them the same service: a firewall shows no other way. */
export class CallBacks {
  static readonly protocol = '/shoal/1/callback'
  readonly #options: CallBacksOptions
  readonly #lastAsked = new Map<string, number>()

  constructor(options: CallBacksOptions) {
    this.#options = options
  }

  /** Asks each of the members; those who do not answer are left out. */
  async ask(
    members: readonly Member[],
    ports: { readonly swarm_port: number; readonly transfer_port: number },
    signal: AbortSignal,
  ): Promise<readonly CallBack[]> {
    const asked = members.map(async ({ session, provider }): Promise<CallBack> => {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(answerTime)])
      const bytes = await ask(session.connection, CallBacks.protocol, encodeCallBackRequest(ports), patience)
      const { swarm, transfer } = decodeCallBack(bytes)
      return { name: provider.name, swarm, transfer }
    })
    const answers = await Promise.allSettled(asked)
    return answers.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []))
  }

  /** Connects to where the question comes from, and nowhere else. */
  async answer(stream: Stream, connection: Connection): Promise<void> {
    const { admits, now } = this.#options
    await answer(
      stream,
      async question => {
        const { swarm_port, transfer_port } = decodeCallBackRequest(question)
        const peer = connection.remotePeer.toString()
        for (const [other, at] of this.#lastAsked) if (now() - at > everySoOften) this.#lastAsked.delete(other)
        const host = hostOf(connection.remoteAddr)
        if (this.#lastAsked.has(peer) || !admits(host)) throw new Error('asked too often, or from nowhere')
        this.#lastAsked.set(peer, now())
        const [swarm, transfer] = await Promise.all([swarm_port, transfer_port].map(port => attempt({ host, port })))
        return encodeCallBack({ swarm: swarm ?? '', transfer: transfer ?? '' })
      },
      AbortSignal.timeout(answerTime),
    )
  }
}

async function attempt({ host, port }: Address): Promise<string> {
  const socket = connect({ host, port })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(connectTime) })
    return 'ok'
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'ERROR'
    return code === 'ABORT_ERR' ? 'TIMEOUT' : code
  } finally {
    socket.destroy()
  }
}
