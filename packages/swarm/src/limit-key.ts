import { createHash } from 'node:crypto'

/**
 * What peers compare to find out whether an endpoint counts their pulls together, so that whom it counts need not be told.
 * Who guesses an IPv4 address can verify the guess.
 * @param endpoint its host, with the port where it is not the scheme's
 * @param source whom it counts, as it says
 */
export function limitKey(endpoint: string, source: string): Buffer {
  return createHash('sha256').update(`shoal limit\n${endpoint}\n${source}`).digest().subarray(0, 8)
}
