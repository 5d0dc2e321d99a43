import { type Dispatcher, request } from 'undici'
import { portHolder } from '../port-holder.ts'
import type { Settings } from '../settings/schema.ts'
import { authorization, secretFile } from './secret.ts'

/** Thrown when the daemon cannot be asked. The message says what to do. */
export class DaemonError extends Error {
  readonly code = 'DAEMON'
}

/** Thrown when what listens there gives no answer. `remedy` is what to do about the `problem`. */
export class SilentDaemonError extends DaemonError {
  readonly problem: string
  readonly remedy: string

  constructor(problem: string, remedy: string, options?: ErrorOptions) {
    super(`${problem}: ${remedy}`, options)
    this.problem = problem
    this.remedy = remedy
  }
}

/** How long the daemon may take to answer, in ms: it knows by heart what it is asked. */
const patience = 3000

/** How long it may tell nothing of what it does, in ms: it does so twice a second. */
const longestSilence = 10_000

/**
 * Asks the running daemon, found by `admin.listen`.
 * @throws DaemonError, SilentDaemonError
 */
export async function askDaemon<T>(settings: Settings, name: string): Promise<T> {
  const origin = originOf(settings)
  return answered(settings, async () => {
    const { statusCode, body } = await request(`${origin}/api/v1/${name}`, { signal: AbortSignal.timeout(patience) })
    if (statusCode !== 200) throw unknownAnswer(origin, statusCode)
    return (await body.json()) as T
  })
}

/**
 * Has the running daemon do something, and gives what it tells of it as it comes.
 * @param input is sent with the request
 * @throws DaemonError
 */
export async function* haveDaemon<T>(settings: Settings, name: string, input?: object): AsyncGenerator<T> {
  const origin = originOf(settings)
  const { statusCode, body } = await answered(settings, async () => {
    // A secret may be left of a daemon that runs no more.
    await askDaemon(settings, 'status')
    const headers = { authorization: await secretOf(settings) }
    return request(`${origin}/api/v1/${name}`, {
      method: 'POST',
      headers,
      ...(input && { body: JSON.stringify(input) }),
      headersTimeout: longestSilence,
      bodyTimeout: longestSilence,
    })
  })
  if (statusCode === 401)
    throw new DaemonError(
      `${origin} does not take the secret of ${secretFile(settings.data_dir)}: is data_dir its own?`,
    )
  if (statusCode === 404 || statusCode === 405) throw unknownAnswer(origin, statusCode)
  if (statusCode !== 200) throw (await errorIn(body)) ?? unknownAnswer(origin, statusCode)
  try {
    let rest = ''
    for await (const text of body.setEncoding('utf8')) {
      const lines = `${rest}${text}`.split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) yield JSON.parse(line) as T
    }
  } catch (cause) {
    throw new DaemonError(`${origin} has broken off: has the daemon been stopped?`, { cause })
  }
}

/**
 * Has the running daemon do something that it tells one thing of.
 * @throws DaemonError
 */
export async function haveDaemonTell<T>(settings: Settings, name: string, input?: object): Promise<T> {
  for await (const line of haveDaemon<T>(settings, name, input)) return line
  throw new DaemonError('the daemon has broken off: its log says why')
}

function originOf({ admin }: Settings): string {
  const { host, port } = admin.listen
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
}

async function answered<T>(settings: Settings, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (cause) {
    const origin = originOf(settings)
    if (cause instanceof DaemonError) throw cause
    if (cause instanceof Error && cause.name === 'TimeoutError') throw await silence(origin, cause)
    throw new DaemonError(
      `no shoal daemon answers at ${origin}: start one with "shoal start", or name its settings with --config`,
      { cause },
    )
  }
}

async function secretOf({ data_dir }: Settings): Promise<string> {
  try {
    return await authorization(data_dir)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : cause
    throw new DaemonError(
      `${secretFile(data_dir)} cannot be read (${code}): run this as the user of the daemon, with its data_dir`,
      { cause },
    )
  }
}

/** What a daemon says that has not done what it was asked for; undefined if it is none of this version. */
async function errorIn(body: Dispatcher.ResponseData['body']): Promise<DaemonError | undefined> {
  const said: unknown = await body.json().catch(() => undefined)
  if (typeof said !== 'object' || said === null || !('error' in said) || typeof said.error !== 'string')
    return undefined
  return new DaemonError(said.error)
}

function unknownAnswer(origin: string, status: number): DaemonError {
  return new DaemonError(`${origin} answers ${status}: is that a shoal daemon of this version?`)
}

async function silence(origin: string, cause: Error): Promise<SilentDaemonError> {
  const holder = await portHolder(Number(new URL(origin).port))
  const time = `within ${patience / 1000} s`
  if (holder && holder.command !== 'another shoal') {
    const problem = `${holder.command} (pid ${holder.pid}) listens at ${origin}, and has not answered ${time}`
    return new SilentDaemonError(problem, 'stop it, or set admin.listen to another port', { cause })
  }
  const [whose, how] = holder ? [` (pid ${holder.pid})`, `"kill -KILL ${holder.pid}"`] : ['', 'SIGKILL']
  return new SilentDaemonError(
    `the daemon at ${origin}${whose} accepts connections, and has not answered ${time}: it hangs`,
    `end it with ${how}, and start it again; what it has stored is safe`,
    { cause },
  )
}
