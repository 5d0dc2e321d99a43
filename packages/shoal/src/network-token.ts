import { dirname, join } from 'node:path'
import { isAbsent, nodeDisk } from '@shoal/store/disk'
import { type Network, networkOf, openNetwork, TokenError } from '@shoal/swarm/network'
import { StartError } from './setting-file.ts'

/** The file in the data folder that has the token of the private network that was joined. */
export const networkTokenFile = (dataDir: string) => join(dataDir, 'swarm', 'network.token')

/** The private network that this machine has joined by command, kept in the data folder. */
export class NetworkToken {
  readonly #path: string

  constructor(dataDir: string) {
    this.#path = networkTokenFile(dataDir)
  }

  /**
   * The network that was joined; the open one if none was.
   * @throws StartError if the file is no token: what was private must not become open by that
   */
  async network(): Promise<Network> {
    const path = this.#path
    try {
      return networkOf((await nodeDisk.readFile(path)).toString())
    } catch (cause) {
      if (isAbsent(cause)) return openNetwork
      const reason =
        cause instanceof TokenError
          ? 'is not a whole token'
          : `cannot be read: ${cause instanceof Error ? cause.message : cause}`
      const remedy = 'remove it, start, and join again with "shoal network join TOKEN"'
      throw new StartError(`${path} ${reason}: ${remedy}`, { cause })
    }
  }

  /** Keeps a token, for this user alone. @throws TokenError, the system's error */
  async keep(token: string): Promise<Network> {
    const network = networkOf(token)
    await nodeDisk.makeFolder(dirname(this.#path), 0o700)
    await nodeDisk.replaceFile(this.#path, `${token.trim()}\n`, 0o600)
    return network
  }

  /** Resolves also if none was kept. @throws the system's error */
  forget(): Promise<void> {
    return nodeDisk.remove(this.#path)
  }
}
