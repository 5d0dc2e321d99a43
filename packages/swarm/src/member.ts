import type { Announcer } from './announcer.ts'
import type { Address } from './dialer.ts'
import type { HoldingsInbox } from './holdings-inbox.ts'
import { isLoopback } from './lan-address.ts'
import { hostOf } from './node.ts'
import type { Provider } from './provider.ts'
import type { Session } from './session.ts'

/** A peer that is connected and has said hello. */
export class Member {
  readonly session: Session
  readonly provider: Provider
  readonly inbox: HoldingsInbox
  /** Tells it what it may have; undefined if it may have nothing. */
  readonly announcer: Announcer | undefined
  /** The IP address where its connection comes from, or goes to. */
  readonly host: string
  /** Whether it is on this very machine. */
  readonly near: boolean
  /** Where it can be dialled. */
  readonly address: Address
  /** Where it gives blobs. */
  readonly transferAddress: Address

  constructor(session: Session, provider: Provider, inbox: HoldingsInbox, announcer: Announcer | undefined) {
    this.session = session
    this.provider = provider
    this.inbox = inbox
    this.announcer = announcer
    this.host = hostOf(session.connection.remoteAddr)
    this.near = isLoopback(this.host)
    this.address = { host: this.host, port: session.hello?.swarm_port ?? 0 }
    this.transferAddress = { host: this.host, port: session.hello?.transfer_port ?? 0 }
  }

  get id(): string {
    return this.session.peerId
  }
}
