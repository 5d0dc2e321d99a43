import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { Internet, type InternetOptions } from './internet.ts'
import { Switchboard } from './switchboard.ts'

const usage = `Usage: node scripts/internet/main.ts [--tls] [--big SIZE] [--folder DIR] [--port N]

Stands in for Docker Hub and mirror.gcr.io on 127.0.0.1, and prints each request.

  --tls         serve https
  --big SIZE    have library/big with a layer of this size, such as 1GiB
  --folder DIR  keep the big layer there for the next run
  --port N      listen on N (mirror.gcr.io) to N+4 (Docker Hub, its tokens, its CDN, faults) instead of free ports

Faults are switched on by request, at the address that it prints, for requests that have all of server (gcr, hub, token,
cdn), method, and a part of the path; times says how often. DELETE switches all off. Kinds: scripts/internet/fault.ts.

  curl -X PUT ADDRESS -d '[{"server":"gcr","path":"/blobs/","times":1,"fault":{"kind":"cut","at":1000}}]'
`

const units: Record<string, number> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }

class UsageError extends Error {}

function parseSize(text: string): number {
  const [, amount = '', unit = ''] = /^(\d+) ?([KMG]?)(?:iB)?$/.exec(text) ?? []
  if (!amount) throw new UsageError(`--big: expected a size such as 1GiB, not ${text}`)
  return Number(amount) * units[unit]!
}

function parsePort(text: string): number {
  const port = Number(text)
  if (!Number.isInteger(port) || port < 1 || port > 65531)
    throw new UsageError(`--port: expected 1 to 65531, not ${text}`)
  return port
}

function parseOptions(): (InternetOptions & { faultPort?: number }) | 'help' {
  const { values } = parseArgs({
    options: {
      tls: { type: 'boolean', default: false },
      big: { type: 'string' },
      folder: { type: 'string' },
      port: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return 'help'
  const options: InternetOptions & { faultPort?: number } = { tls: values.tls }
  if (values.big !== undefined) options.big = parseSize(values.big)
  if (values.folder !== undefined) options.folder = values.folder
  if (values.port !== undefined) {
    const port = parsePort(values.port)
    Object.assign(options, {
      gcrPort: port,
      hubPort: port + 1,
      tokenPort: port + 2,
      cdnPort: port + 3,
      faultPort: port + 4,
    })
  }
  return options
}

async function run({ faultPort, ...options }: InternetOptions & { faultPort?: number }): Promise<void> {
  await using net = await Internet.open(options)
  await using faults = await Switchboard.open(net, faultPort)
  const { hub, gcr, log, images } = net
  console.log(`mirror.gcr.io         ${gcr.url}
registry-1.docker.io  ${hub.url}
auth.docker.io        ${hub.tokenUrl}/token
the CDN               ${hub.cdnUrl}
faults                ${faults.url}
images                ${[...images.repositories.keys()].join(' ')}
log in as             ${[...hub.users].map(([user, password]) => `${user} ${password}`).join(', ')}

[upstreams."docker.io"]
endpoints = ["${gcr.url}", "${hub.url}"]${net.ca ? `\nca = "${net.ca}"` : ''}
`)
  log.on('close', entry => {
    const time = new Date(entry.time).toTimeString().slice(0, 8)
    const range = entry.range ? ` ${entry.range}` : ''
    const path = entry.path.replace(/\?Expires=.*/, '?…')
    const end = entry.finished ? '' : ' (cut)'
    const who = `${entry.user} ${entry.userAgent?.split(' ')[0] ?? '-'}`
    console.log(
      `${time} ${entry.server.padEnd(5)} ${entry.status} ${entry.bytes}${end} ${entry.method} ${path}${range} ${who}`,
    )
    log.clear()
  })
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
}

try {
  const options = parseOptions()
  if (options === 'help') process.stdout.write(usage)
  else await run(options)
} catch (error) {
  const wrongUsage = error instanceof UsageError || (error instanceof TypeError && 'code' in error)
  process.stderr.write(`${error instanceof Error ? error.message : error}\n${wrongUsage ? `\n${usage}` : ''}`)
  process.exitCode = wrongUsage ? 2 : 1
}
