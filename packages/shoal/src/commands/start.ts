import prettyBytes from 'pretty-bytes'
import { mirrorUrl } from '../clients/docker.ts'
import { startDaemon } from '../daemon.ts'
import { createLog } from '../log.ts'
import type { LoadedSettings } from '../settings/load.ts'
import { version } from '../version.ts'
import { networkText } from './peers.ts'

/** The stop must be over before a supervisor loses patience, in ms. */
const longestStop = 4800

/**
 * `shoal start`: the daemon in the foreground, until SIGTERM or SIGINT.
 * @throws StartError, SettingFileError, StoreError
 */
export async function startCommand(args: {
  readonly loaded: LoadedSettings
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): Promise<number> {
  const { json, out } = args
  const { settings } = args.loaded
  // glibc asks a name server that is silent for 5 s, twice, and a lookup cannot be cancelled: it would hold up the stop.
  process.env['RES_OPTIONS'] ??= 'timeout:1 attempts:2'
  const log = createLog()
  const stopped = new Promise<void>(resolve => {
    const stop = (signal: string) => {
      log.info({ signal }, 'stopping')
      setTimeout(() => {
        log.warn('not everything could be finished in time; it goes on at the next start')
        process.exit(0)
      }, longestStop).unref()
      resolve()
    }
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, stop)
  })
  const daemon = await startDaemon(settings, log)
  const { blobs, bytes } = daemon.held
  const at = ({ host, port }: { host: string; port: number }) => `${host.includes(':') ? `[${host}]` : host}:${port}`
  const mirror = mirrorUrl({ ...settings, mirror: { ...settings.mirror, listen: daemon.mirror } }, false)
  const admin = `http://${at(daemon.admin)}`
  if (json) out(JSON.stringify({ version, mirror, admin, data_dir: settings.data_dir }))
  else {
    out(`shoal ${version}`)
    out(`  mirror  ${mirror}`)
    out(`  admin   ${admin}  (/metrics, /api/v1/status)`)
    out(`  data    ${settings.data_dir}  (${blobs} blobs, ${prettyBytes(bytes)} of ${prettyBytes(daemon.maxBytes)})`)
    if (daemon.swarm) {
      const { network, ports } = daemon.swarm
      out(`  peers   ${networkText(network)}, ports ${ports.swarm} and ${ports.transfer}`)
    }
    out('  docker  sudo npx shoal setup docker   points Docker at it; with --undo no longer')
  }
  await stopped
  await daemon.close()
  return 0
}
