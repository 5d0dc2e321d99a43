import { createSocket } from 'node:dgram'

/** The port of multicast DNS, which a machine's daemons share. */
export const mdnsPort = 5353

const groups = { 4: '224.0.0.251', 6: 'ff02::fb' } as const

/** That a packet comes from this link can be told by it (RFC 6762, section 11). */
const hopLimit = 255

/** Where a socket is at home: one interface of this machine, and one family of addresses. */
export type LinkAddress = {
  readonly family: 4 | 6
  /** Of the interface; IPv4 alone. */
  readonly address: string
  /** The interface as IPv6 names it after `%`. */
  readonly scope: string
}

export type SocketEvents = {
  readonly opened: () => void
  /** `from`: the IP address, IPv6 link-local with its scope. */
  readonly received: (bytes: Buffer, from: string) => void
  /** It is of no use any more, and has been closed. */
  readonly failed: (error: Error) => void
}

export type MulticastSocket = {
  /** @returns whether it has left this machine */
  readonly send: (bytes: Buffer) => Promise<boolean>
  readonly close: () => void
}

/** Opens a socket that hears what is sent to mDNS's group on a link, what this machine sends there among it. */
export function openMulticastSocket(link: LinkAddress, events: SocketEvents): MulticastSocket {
  const { family, address, scope } = link
  const group = family === 4 ? groups[4] : `${groups[6]}%${scope}`
  const local = family === 4 ? address : `::%${scope}`
  // On BSD and macOS libuv makes SO_REUSEPORT of it, which is what shares the port there.
  const socket = createSocket({ type: `udp${family}`, reuseAddr: true, ipv6Only: family === 6 })
  let closed = false
  const close = () => {
    if (closed) return
    closed = true
    socket.close()
  }
  const fail = (error: Error) => {
    if (closed) return
    close()
    events.failed(error)
  }
  socket.on('error', fail)
  socket.on('message', (bytes, { address: from, port }) => {
    if (port === mdnsPort && !closed) events.received(bytes, from)
  })
  socket.on('listening', () => {
    try {
      socket.addMembership(groups[family], local)
      socket.setMulticastInterface(local)
      socket.setMulticastTTL(hopLimit)
    } catch (error) {
      return fail(error instanceof Error ? error : new Error(String(error)))
    }
    events.opened()
  })
  // Linux gives a unicast packet to one of those who share a port: bound to the group, this socket takes none from others.
  const linux = process.platform === 'linux'
  socket.bind({ port: mdnsPort, address: linux ? group : family === 4 ? '0.0.0.0' : '::' })
  socket.unref()
  return {
    send: bytes =>
      new Promise(resolve => {
        if (closed) resolve(false)
        else socket.send(bytes, mdnsPort, group, error => resolve(!error))
      }),
    close,
  }
}
