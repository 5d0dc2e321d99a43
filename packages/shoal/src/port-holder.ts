import { execFile } from 'node:child_process'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { basename } from 'node:path'
import { promisify } from 'node:util'

/** A process that listens on a port. */
export interface PortHolder {
  readonly pid: number
  /** Its name, such as `nginx` or `node server.js`; `another shoal` for one of ours. */
  readonly command: string
}

const run = promisify(execFile)

/**
 * Who listens on a TCP port of this machine, for messages. Other users' processes are seen by the superuser only.
 * @returns null if nobody does, or if it can't be told
 */
export async function portHolder(port: number): Promise<PortHolder | null> {
  try {
    if (process.platform === 'linux') return await holderInProc(port)
    if (process.platform === 'win32') return await holderOnWindows(port)
    const { stdout } = await run('lsof', ['-nP', `-iTCP:${port}`, '-sTCP:LISTEN', '-Fpc'], { timeout: 3000 })
    return parseLsof(stdout)
  } catch {
    return null
  }
}

/** The inodes of sockets that listen on `port`, in the text of /proc/net/tcp or tcp6 (proc(5)). */
export function listeningInodes(table: string, port: number): string[] {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  return table.split('\n').flatMap(line => {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/)
    return local?.endsWith(`:${hex}`) && state === '0A' && inode !== undefined ? [inode] : []
  })
}

/**
 * What to call the program of a command line (proc(5), cmdline). The name in /proc/PID/comm is that of its main
 * thread, which Node calls `MainThread`.
 */
export function programOf(argv: readonly string[]): string | null {
  const [first = '', ...rest] = argv
  // Some write their whole state there: `nginx: master process /usr/sbin/nginx`.
  const program = /^([\w.-]+): /.exec(first)?.[1] ?? basename(first)
  if (program === '') return null
  const script = /^node(?:js)?(?:\.exe)?$/.test(program) ? rest.find(argument => !/^(?:-|$)/.test(argument)) : undefined
  if (script === undefined) return program
  return shoalScript.test(script) ? 'another shoal' : `${program} ${basename(script)}`
}

/** Of a checkout, of what is published, and of a link to either. */
const shoalScript = /(?:^|\/)(?:shoal\/src\/main\.ts|shoal\/dist\/main\.js|\.?bin\/shoal)$/

/** The first process in what `lsof -Fpc` prints. */
export function parseLsof(output: string): PortHolder | null {
  const [, pid, command] = /^p(\d+)\r?\nc(.*)$/m.exec(output) ?? []
  return pid === undefined || command === undefined ? null : { pid: Number(pid), command }
}

/** The process that listens on `port` in what `netstat -ano` prints; the state's name is translated, the peer's port 0 is not. */
export function parseNetstat(output: string, port: number): number | null {
  for (const line of output.split(/\r?\n/)) {
    const [protocol, local, peer, , pid] = line.trim().split(/\s+/)
    if (protocol === 'TCP' && local?.endsWith(`:${port}`) && peer?.endsWith(':0') && pid !== undefined)
      return Number(pid)
  }
  return null
}

async function holderInProc(port: number): Promise<PortHolder | null> {
  const tables = await Promise.all(['tcp', 'tcp6'].map(name => readFile(`/proc/net/${name}`, 'utf8').catch(() => '')))
  const sockets = new Set(tables.flatMap(table => listeningInodes(table, port)).map(inode => `socket:[${inode}]`))
  if (sockets.size === 0) return null
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
      if (!sockets.has(await readlink(`/proc/${pid}/fd/${fd}`).catch(() => ''))) continue
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      return { pid: Number(pid), command: programOf(command.split('\0')) ?? 'a process' }
    }
  }
  return null
}

async function holderOnWindows(port: number): Promise<PortHolder | null> {
  const pid = parseNetstat((await run('netstat', ['-ano', '-p', 'TCP'], { timeout: 3000 })).stdout, port)
  if (pid === null) return null
  const { stdout } = await run('tasklist', ['/FI', `PID eq ${pid}`, '/FO', 'CSV', '/NH'], { timeout: 3000 })
  return { pid, command: /^"([^"]+)"/.exec(stdout.trim())?.[1] ?? 'a process' }
}
