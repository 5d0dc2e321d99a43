import { constants } from 'node:fs'
import { access, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { SourceError } from '@shoal/store/source'
import type { CallBack } from '@shoal/swarm/call-back'
import { askDaemon, haveDaemonTell, SilentDaemonError } from '../admin/client.ts'
import type { Status } from '../admin/status.ts'
import type { SwarmReport } from '../admin/swarm.ts'
import { dockerStatus } from '../clients/docker.ts'
import { portHolder } from '../port-holder.ts'
import { type Listen, listen as listenFormat, sizeOn } from '../quantity.ts'
import { registriesOf } from '../registries.ts'
import type { Settings } from '../settings/schema.ts'
import { firewallOf, swarmFindings } from './swarm-findings.ts'

/** One thing that was looked at. `remedy` is what to do about it. */
export type Finding = {
  readonly check: string
  readonly result: 'ok' | 'warning' | 'problem'
  readonly message: string
  readonly remedy?: string
}

type DoctorArguments = {
  readonly settings: Settings
  readonly env: Readonly<Record<string, string | undefined>>
  readonly json?: boolean | undefined
  readonly dockerDir?: string | undefined
  readonly out: (line: string) => void
}

/** How long an endpoint may take to answer, in ms. */
const patience = 6000

/** `shoal doctor`. @returns the exit status: 0 if there is no problem, else 1 */
export async function doctorCommand(args: DoctorArguments): Promise<number> {
  const { settings, json, out } = args
  const answer = await askDaemon<Status>(settings, 'status').catch((error: Error) => error)
  const status = answer instanceof Error ? undefined : answer
  const findings = (
    await Promise.all([
      checkData(settings),
      checkDaemon(settings, answer),
      status ? checkSwarm(args) : [],
      checkUpstreams(settings),
      checkDocker(args, status),
    ])
  ).flat()
  const problems = findings.filter(({ result }) => result === 'problem').length
  if (json) out(JSON.stringify({ problems, findings }))
  else {
    const marks = { ok: 'ok      ', warning: 'warning ', problem: 'PROBLEM ' }
    for (const { check, result, message, remedy } of findings) {
      out(`${marks[result]} ${check}: ${message}`)
      if (remedy !== undefined) out(`          -> ${remedy}`)
    }
    out(problems === 0 ? 'No problem found.' : `${problems} ${problems === 1 ? 'problem' : 'problems'} found.`)
  }
  return problems === 0 ? 0 : 1
}

async function checkData({ data_dir, store }: Settings): Promise<Finding[]> {
  const check = 'data folder'
  let folder = data_dir
  for (;;) {
    try {
      await access(folder, constants.W_OK)
      break
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : ''
      if (code === 'ENOENT' && dirname(folder) !== folder) folder = dirname(folder)
      else {
        const remedy = 'run shoal as a user who may, or set data_dir to another folder'
        return [{ check, result: 'problem', message: `${folder} cannot be written to`, remedy }]
      }
    }
  }
  const { bsize, blocks, bavail } = await statfs(folder)
  const [total, free] = [bsize * blocks, bsize * bavail]
  if (free < sizeOn(store.min_free, total)) {
    const remedy = 'make room, set a lower store.min_free, or set data_dir to another disk'
    return [{ check, result: 'warning', message: `the disk of ${data_dir} has less free than store.min_free`, remedy }]
  }
  return [{ check, result: 'ok', message: `${data_dir}, ${Math.round(free / 1e9)} GB free on its disk` }]
}

async function checkDaemon(settings: Settings, answer: Status | Error): Promise<Finding[]> {
  const check = 'daemon'
  if (answer instanceof SilentDaemonError)
    return [{ check, result: 'problem', message: answer.problem, remedy: answer.remedy }]
  if (!(answer instanceof Error)) return [{ check, result: 'ok', message: `version ${answer.version} is running` }]
  const { mirror, admin, swarm } = settings
  const addresses: readonly (readonly [string, Listen])[] = [
    ['mirror.listen', mirror.listen],
    ['admin.listen', admin.listen],
    ...(swarm.enabled
      ? ([
          ['swarm.listen', swarm.listen],
          ['swarm.transfer_listen', swarm.transfer_listen],
        ] as const)
      : []),
  ]
  const taken = await Promise.all(addresses.map(([key, address]) => checkPort(key, address)))
  return [
    { check, result: 'problem', message: 'is not running', remedy: 'start it with "shoal start"' },
    ...taken.flat(),
  ]
}

async function checkSwarm({ settings, env }: DoctorArguments): Promise<Finding[]> {
  const report = await askDaemon<SwarmReport | null>(settings, 'swarm').catch((error: Error) => error)
  if (report instanceof Error) return [{ check: 'swarm', result: 'warning', message: report.message }]
  const lonely = !report || report.peers.connected === 0
  const calledBack = lonely
    ? []
    : await haveDaemonTell<readonly CallBack[]>(settings, 'callback').catch((error: Error) => error)
  return swarmFindings(report, calledBack, await firewallOf(process.platform, env['PATH'] ?? ''))
}

async function checkPort(key: string, address: Listen): Promise<Finding[]> {
  const holder = await portHolder(address.port)
  if (!holder) return []
  const message = `${listenFormat.format(address)} is taken by ${holder.command} (pid ${holder.pid})`
  return [{ check: key, result: 'problem', message, remedy: `stop it, or set ${key} to another port` }]
}

async function checkUpstreams({ upstreams }: Settings): Promise<Finding[]> {
  const events = { request: () => {}, rateLimit: () => {} }
  const registries = await registriesOf(upstreams, () => performance.now(), events)
  const findings = [...registries.values()].flatMap(registry =>
    registry.endpoints.map(async (endpoint): Promise<Finding> => {
      const check = `upstream ${registry.host}`
      const begin = performance.now()
      try {
        await endpoint.ping(AbortSignal.timeout(patience))
        return {
          check,
          result: 'ok',
          message: `${endpoint.label} answers in ${Math.round(performance.now() - begin)} ms`,
        }
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error)
        const last = endpoint === registry.authority
        const unreachable = error instanceof SourceError && error.code === 'unreachable'
        const remedy = unreachable
          ? 'check the line, DNS, and HTTPS_PROXY; what is held can be pulled all the same'
          : 'see what answers there in its place: a proxy, a captive portal?'
        return { check, result: last ? 'problem' : 'warning', message, remedy }
      }
    }),
  )
  const done = await Promise.all(findings)
  for (const registry of registries.values()) await registry.close()
  return done
}

async function checkDocker(
  { settings, env, dockerDir }: DoctorArguments,
  status: Status | undefined,
): Promise<Finding[]> {
  const check = 'docker'
  const { engine, configured, active, problems, mirror } = await dockerStatus({ settings, env, dockerDir })
  if (!engine) return problems.map(problem => ({ check, result: 'warning', ...problem }))
  const version = `Docker ${engine.version}, ${engine.store} image store`
  // To be set up is nobody's duty; to be half set up is a mistake.
  const result = configured || active ? 'problem' : 'warning'
  const findings: Finding[] = problems.map(({ message, ...rest }) => {
    return { check, result, message: `${version}: ${message}`, ...rest }
  })
  if (!configured && !active) return findings
  if (configured && active) findings.push({ check, result: 'ok', message: `${version}: is set up to ask ${mirror}` })
  const asked = status?.clients.find(({ tool }) => tool === 'docker' || tool === 'containerd')
  if (asked)
    findings.push({ check, result: 'ok', message: `has asked ${asked.requests} times, the last ${asked.last_s} s ago` })
  else if (status && configured && active) {
    const remedy = 'pull an image from Docker Hub, such as "docker pull busybox", and look again'
    findings.push({ check, result: 'warning', message: 'has not asked this mirror since it was started', remedy })
  }
  return findings
}
