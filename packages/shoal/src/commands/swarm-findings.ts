import { access, readFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import type { CallBack } from '@shoal/swarm/call-back'
import type { SwarmReport } from '../admin/swarm.ts'
import { printable } from '../printable.ts'
import type { Finding } from './doctor.ts'
import { networkText } from './peers.ts'

/** What says how to open ports, such as `5353/udp`, in the firewall of this machine. */
export type Firewall = (ports: readonly string[]) => string

const check = 'swarm'

/**
 * What `doctor` finds of the swarm.
 * @param calledBack what peers found that were asked to connect back; an error if none could be asked
 */
export function swarmFindings(
  report: SwarmReport | null,
  calledBack: readonly CallBack[] | Error,
  firewall: Firewall,
): Finding[] {
  if (!report) return [{ check, result: 'ok', message: 'is off (swarm.enabled = false)' }]
  return [
    ...companyFindings(report),
    ...multicastFindings(report, firewall),
    ...portFindings(report, calledBack, firewall),
    ...givingFindings(report),
  ]
}

function companyFindings({ network, bootstrap, peers, multicast }: SwarmReport): Finding[] {
  const where = networkText(network)
  const findings: Finding[] = []
  if (peers.connected > 0) {
    const message = `${peers.connected} ${peers.connected === 1 ? 'peer' : 'peers'} in the ${where}`
    findings.push({ check, result: 'ok', message })
  } else if (bootstrap.length > 0) {
    const message = `no peer is connected in the ${where}, not even one of swarm.bootstrap (${bootstrap.join(', ')})`
    const remedy =
      'the log says why: see that Shoal runs there, that its swarm.listen can be reached from here, and that "shoal status" shows the same network'
    findings.push({ check, result: 'warning', message, remedy })
  } else {
    const remedy =
      'start Shoal on another machine of this subnet; guest Wi-Fi keeps its machines apart; ' +
      'to reach another subnet, name a machine of it in swarm.bootstrap'
    findings.push({ check, result: 'warning', message: `no peer is connected in the ${where}`, remedy })
  }
  const strangers = multicast?.strangers ?? 0
  if (strangers > 0) {
    const machines = strangers === 1 ? 'one machine of this LAN is' : `${strangers} machines of this LAN are`
    const remedy =
      'if they should be in one network, have all join it with one token: "shoal network join TOKEN"; ' +
      '"shoal status" shows which it is'
    findings.push({ check, result: 'warning', message: `${machines} in another network than the ${where}`, remedy })
  }
  return findings
}

function multicastFindings({ multicast, peers }: SwarmReport, firewall: Firewall): Finding[] {
  const check = 'multicast'
  if (!multicast) {
    const message = 'is off (swarm.mdns = false): peers are found by swarm.bootstrap, the DNS and each other'
    return [{ check, result: 'ok', message }]
  }
  const { interfaces, heard, strangers } = multicast
  if (interfaces.length === 0) {
    const remedy = 'connect this machine to the LAN; "ip addr" shows its addresses'
    return [{ check, result: 'warning', message: 'there is no interface of a LAN', remedy }]
  }
  const deaf = interfaces.filter(({ hearsItself }) => !hearsItself).map(({ name }) => name)
  if (deaf.length > 0) {
    const message = `what this machine announces on ${deaf.join(', ')} does not even come back to it`
    return [{ check, result: 'warning', message, remedy: firewall(['5353/udp']) }]
  }
  if (heard + strangers > 0) return [{ check, result: 'ok', message: `comes through on ${namesOf(interfaces)}` }]
  // From this machine itself and from other subnets none is to be expected.
  if (peers.neighbours === 0) return []
  const remedy =
    `${firewall(['5353/udp'])}, here and there; where Wi-Fi or a switch drops it, ` +
    'name a machine in swarm.bootstrap: it tells of the rest'
  const message = `no announcement of any peer has come on ${namesOf(interfaces)}, though there are some: multicast may be dropped`
  return [{ check, result: 'warning', message, remedy }]
}

function portFindings(
  { ports, peers }: SwarmReport,
  calledBack: readonly CallBack[] | Error,
  firewall: Firewall,
): Finding[] {
  const check = 'ports'
  if (peers.connected === 0) return []
  if (calledBack instanceof Error)
    return [{ check, result: 'warning', message: `no peer could be asked to connect back: ${calledBack.message}` }]
  if (calledBack.length === 0)
    return [
      {
        check,
        result: 'warning',
        message: 'no peer that was asked to connect back has answered',
        remedy: 'look again',
      },
    ]
  const tried = [
    { key: 'swarm.listen', port: ports.swarm, of: ({ swarm }: CallBack) => swarm },
    { key: 'swarm.transfer_listen', port: ports.transfer, of: ({ transfer }: CallBack) => transfer },
  ]
  return tried.map(({ key, port, of }): Finding => {
    const failed = calledBack.filter(answer => of(answer) !== 'ok')
    const [first] = failed
    if (!first) return { check, result: 'ok', message: `peers can connect to port ${port} (${key})` }
    const who = failed.length === calledBack.length ? '' : `, ${calledBack.length - failed.length} other could`
    const message = `${printable(first.name)} cannot connect to port ${port} (${key}) here: ${printable(of(first))}${who}`
    // What one can reach is open; the rest may have a firewall of their own, or another route.
    const result = who === '' ? 'problem' : 'warning'
    return { check, result, message, remedy: firewall([`${port}/tcp`]) }
  })
}

function givingFindings({ share, resting, peers }: SwarmReport): Finding[] {
  const findings: Finding[] = []
  if (share === 'none')
    findings.push({ check, result: 'ok', message: 'peers are given nothing (swarm.share = "none")' })
  else if (resting !== null)
    findings.push({ check, result: 'ok', message: `peers are given nothing just now: ${resting}` })
  if (peers.banned > 0) {
    const message = peers.banned === 1 ? 'one peer is banned' : `${peers.banned} peers are banned`
    const remedy = '"shoal peers" says why, and how to lift it'
    findings.push({ check, result: 'warning', message, remedy })
  }
  return findings
}

const namesOf = (interfaces: readonly { readonly name: string }[]) => interfaces.map(({ name }) => name).join(', ')

/**
 * Finds out which firewall this machine has, by what there is of it.
 * @param root the folder that has `etc`
 * @param path the folders of programs, as in the environment
 */
export async function firewallOf(platform: NodeJS.Platform, path: string, root = '/'): Promise<Firewall> {
  if (platform !== 'linux') return ports => `let ${ports.join(' and ')} in at the system's firewall`
  const has = async (program: string) => {
    for (const folder of path.split(delimiter))
      if (
        await access(join(folder, program)).then(
          () => true,
          () => false,
        )
      )
        return true
    return false
  }
  const ufw = await readFile(join(root, 'etc/ufw/ufw.conf'), 'utf8').catch(() => '')
  if (/^ENABLED=yes$/im.test(ufw)) return ports => commands(ports.map(port => `sudo ufw allow ${port}`))
  if (await has('firewall-cmd'))
    return ports => {
      const added = ports.map(port => `--add-port=${port}`).join(' ')
      return commands([`sudo firewall-cmd --permanent ${added}`, 'sudo firewall-cmd --reload'])
    }
  return ports =>
    commands(
      ports.map(port => {
        const [number, protocol] = port.split('/')
        return `sudo nft add rule inet filter input ${protocol} dport ${number} accept`
      }),
    )
}

const commands = (each: readonly string[]) => `open it in the firewall, as with "${each.join(' && ')}"`
