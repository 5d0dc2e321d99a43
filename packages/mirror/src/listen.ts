import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/**
 * Has a server listen, and resolves to where; port 0 lets the system choose. What goes wrong later, with one connection
 * that cannot be accepted, is that client's trouble alone.
 * @throws the system's error, such as EADDRINUSE
 */
export function listen(server: Server, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port }, () => {
      server.off('error', reject)
      server.on('error', () => {})
      resolve(server.address() as AddressInfo)
    })
  })
}
