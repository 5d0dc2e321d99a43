import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Whose settings are meant: under sudo those of who called it, for `sudo shoal setup docker` is about the daemon of
 * that user. A HOME that sudo was told to keep, or that was given, stays.
 * @param system for tests
 */
export function homeOf(
  env: Environment,
  system: { readonly uid: number | undefined; readonly passwd: () => string } = {
    uid: process.getuid?.(),
    passwd: () => readFileSync('/etc/passwd', 'utf8'),
  },
): string {
  const home = env[process.platform === 'win32' ? 'USERPROFILE' : 'HOME']
  if (system.uid !== 0 || !env['SUDO_USER']) return home || homedir()
  const users = usersOf(system.passwd)
  if (home && home !== users.find(({ uid }) => uid === 0)?.home) return home
  return users.find(({ name }) => name === env['SUDO_USER'])?.home || home || homedir()
}

/** passwd(5); none where it can't be read, or where users are kept elsewhere. */
function usersOf(passwd: () => string): { name: string; uid: number; home: string }[] {
  try {
    return passwd()
      .split('\n')
      .map(line => line.split(':'))
      .map(([name = '', , uid, , , home = '']) => ({ name, uid: Number(uid), home }))
  } catch {
    return []
  }
}

export function untilde(path: string, home: string): string {
  return /^~(?=$|[/\\])/.test(path) ? join(home, path.slice(1)) : path
}

/** Where a file of settings is looked for; the first that exists is read. */
export function usualFiles(env: Environment, home: string): string[] {
  if (process.platform === 'win32')
    return [join(env['APPDATA'] || join(home, 'AppData', 'Roaming'), 'shoal', 'config.toml')]
  return [join(xdg(env['XDG_CONFIG_HOME']) ?? join(home, '.config'), 'shoal', 'config.toml'), '/etc/shoal/config.toml']
}

/** A daemon that is started under sudo writes as root, so not into the caller's folder. */
export function usualDataDir(env: Environment): string {
  const home = env[process.platform === 'win32' ? 'USERPROFILE' : 'HOME'] || homedir()
  if (process.platform === 'win32') return join(env['LOCALAPPDATA'] || join(home, 'AppData', 'Local'), 'shoal')
  return join(xdg(env['XDG_DATA_HOME']) ?? join(home, '.local', 'share'), 'shoal')
}

/** The XDG base directory specification: a relative path is to be ignored. */
function xdg(folder: string | undefined): string | undefined {
  return folder !== undefined && isAbsolute(folder) ? folder : undefined
}
