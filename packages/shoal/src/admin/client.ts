import { request } from 'undici'
import type { Settings } from '../settings/schema.ts'

/** Thrown when the daemon cannot be asked. The message says what to do. */
export class DaemonError extends Error {
  readonly code = 'DAEMON'
}

/** How long the daemon may take to answer, in ms. */
const patience = 10_000

/**
 * Asks the running daemon, found by `admin.listen`.
 * @throws DaemonError
 */
export async function askDaemon<T>(settings: Settings, name: string): Promise<T> {
  const { host, port } = settings.admin.listen
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  const origin = `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
  try {
    const { statusCode, body } = await request(`${origin}/api/v1/${name}`, { signal: AbortSignal.timeout(patience) })
    if (statusCode !== 200)
      throw new DaemonError(`${origin} answers ${statusCode}: is that a shoal daemon of this version?`)
    return (await body.json()) as T
  } catch (cause) {
    if (cause instanceof DaemonError) throw cause
    throw new DaemonError(
      `no shoal daemon answers at ${origin}: start one with "shoal start", or name its settings with --config`,
      { cause },
    )
  }
}
