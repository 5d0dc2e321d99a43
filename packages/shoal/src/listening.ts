import { createServer } from 'node:net'
import { portHolder } from './port-holder.ts'
import { type Listen, listen as listenFormat } from './quantity.ts'
import { StartError } from './setting-file.ts'

/**
 * Has a server listen at the address of a setting.
 * @param key the setting, for the message
 * @throws StartError, whose message says who has the port
 */
export async function listen(
  server: { listen(host: string, port: number): Promise<{ address: string; port: number }> },
  { host, port }: Listen,
  key: string,
): Promise<Listen> {
  try {
    const { address, port: taken } = await server.listen(host, port)
    return { host: address, port: taken }
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
    const where = listenFormat.format({ host, port })
    if (code !== 'EADDRINUSE')
      throw new StartError(`cannot listen at ${where}: ${cause instanceof Error ? cause.message : cause}; set ${key}`, {
        cause,
      })
    const holder = await portHolder(port)
    const by = holder ? `by ${holder.command} (pid ${holder.pid})` : 'by another program'
    throw new StartError(`${where} is taken ${by}: stop it, or set ${key} to another port`, { cause })
  }
}

/**
 * Listens at an address for a moment: libp2p does not tell well why it cannot.
 * @throws StartError, as {@link listen}
 */
export async function probe(address: Listen, key: string): Promise<void> {
  const server = createServer()
  const listening = (host: string, port: number) =>
    new Promise<{ address: string; port: number }>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host, port }, () => resolve({ address: host, port }))
    })
  await listen({ listen: listening }, address, key)
  await new Promise(resolve => server.close(resolve))
}
