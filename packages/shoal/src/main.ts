#!/usr/bin/env node
import { text as readAll } from 'node:stream/consumers'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { SetupError } from './clients/file-change.ts'
import { UsageError } from './commands/usage-error.ts'
import { SettingFileError } from './setting-file.ts'
import { SettingsError } from './settings/error.ts'
import { settingKeys } from './settings/key.ts'
import { type LoadedSettings, loadSettings } from './settings/load.ts'
import { version } from './version.ts'

type Options = Readonly<Record<string, unknown>> & { readonly config?: string; readonly json?: boolean }

const out = (line: string) => void process.stdout.write(`${line}\n`)
// `shoal ls | head` closes the pipe before everything is written.
process.stdout.on('error', error => {
  if (!('code' in error && error.code === 'EPIPE')) throw error
})

/** A command is loaded when it is run: `shoal ls` needs no daemon's code. */
const program = new Command('shoal')
  .description('A container registry mirror on this machine: what was pulled once is here.')
  .version(version)
  .exitOverride()
  .configureOutput({ outputError: () => {} })
  .showHelpAfterError(false)

function command(
  name: string,
  description: string,
  run: (loaded: LoadedSettings, options: Options, ...args: (string | undefined)[]) => Promise<number>,
) {
  return program
    .command(name)
    .description(description)
    .option('--config <file>', 'settings file (TOML)')
    .option('--json', 'print JSON')
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .action(async (...args: unknown[]) => {
      const self = args.at(-1) as Command
      const options = self.opts<Options>()
      const given = args.slice(0, -2) as (string | undefined)[]
      const loaded = await loadSettings({ argvFlags: options, env: process.env, configFile: options.config })
      try {
        process.exitCode = await run(loaded, options, ...given)
      } catch (error) {
        throw error instanceof SettingFileError ? error.in(loaded) : error
      }
    })
}

const start = command('start', 'run the daemon in the foreground', async (loaded, { json }) =>
  (await import('./commands/start.ts')).startCommand({ loaded, json, out }),
)
for (const { flag, description, takes } of settingKeys) {
  const hint = takes === 'boolean' ? '[true|false]' : takes === 'list' ? '<a,b,…>' : '<value>'
  start.addOption(new Option(`${flag} ${hint}`, description).argParser(text => text))
}

command('status', 'show what the daemon does now', async ({ settings }, { json }) =>
  (await import('./commands/status.ts')).statusCommand({ settings, json, out }),
)

command('peers', 'list the machines that are there, and those that were', async ({ settings }, { json, unban }) =>
  (await import('./commands/peers.ts')).peersCommand({ settings, unban: text(unban), json, out }),
).option('--unban <peer>', 'lift the ban of a peer, by its id or name')

command('network', 'create, join or leave a private network', async (loaded, { json }, action, token) => {
  const { networkActions, networkCommand } = await import('./commands/network.ts')
  const known = networkActions.find(name => name === action)
  if (known === undefined) throw new UsageError(`"network ${action}" is not known: use ${networkActions.join(', ')}`)
  return networkCommand({ action: known, token, loaded, json, readInput: () => readAll(process.stdin), out })
})
  .argument('<action>', '"create" prints a new token; "join" and "leave" are for this machine')
  .argument('[token]', 'to join: what "create" printed; "-" reads it from standard input')

command('ls', 'list the images that are held', async ({ settings }, { json }) =>
  (await import('./commands/ls.ts')).lsCommand({ settings, json, out }),
)

command('top', 'show what the office pulls most, live on a terminal', async ({ settings }, { json }) => {
  const { topCommand } = await import('./commands/top.ts')
  const { stdout } = process
  const screen = stdout.isTTY ? { rows: stdout.rows, write: (text: string) => stdout.write(text) } : undefined
  const interrupted = new AbortController()
  process.once('SIGINT', () => interrupted.abort())
  return topCommand({ settings, json, screen, signal: interrupted.signal, out })
})

command('pin', 'have an image that is held stay', async ({ settings }, { json }, image = '') =>
  (await import('./commands/pin.ts')).pinCommand({ settings, image, action: 'pin', json, out }),
).argument('<image>', 'as Docker names it')

command('unpin', 'let it go again when nobody pulls it', async ({ settings }, { json }, image = '') =>
  (await import('./commands/pin.ts')).pinCommand({ settings, image, action: 'unpin', json, out }),
).argument('<image>', 'as it was pinned')

command('rm', 'remove an image that is held', async ({ settings }, { json }, image = '') =>
  (await import('./commands/rm.ts')).rmCommand({ settings, image, json, out }),
).argument('<image>', 'as Docker names it')

command('gc', 'remove at once what is worth least, if there is too much', async ({ settings }, { json, dryRun }) =>
  (await import('./commands/gc.ts')).gcCommand({ settings, dryRun: dryRun === true, json, out }),
).option('--dry-run', 'show what would go, and why, and remove nothing')

command('verify', 'read everything that is held, and fetch again what has rotten', async ({ settings }, { json }) =>
  (await import('./commands/verify.ts')).verifyCommand({
    settings,
    json,
    out,
    ...(process.stderr.isTTY && { terminal: process.stderr }),
  }),
)

command('config', 'show the settings in force, and where each comes from', async (loaded, { json }) =>
  (await import('./commands/config.ts')).configCommand({ loaded, json, out }),
)

command('doctor', 'check what a set-up can have wrong, and say the remedy', async ({ settings }, { json, dockerDir }) =>
  (await import('./commands/doctor.ts')).doctorCommand({
    settings,
    env: process.env,
    json,
    dockerDir: text(dockerDir),
    out,
  }),
).option('--docker-dir <dir>', "the folder of Docker's daemon.json and certs.d")

command('setup', "point a client at the mirror: 'docker'", async (loaded, options, client = '') => {
  const { json, undo, dryRun, dockerDir } = options
  const { setupCommand } = await import('./commands/setup.ts')
  const flags = { json, undo: undo === true, dryRun: dryRun === true, dockerDir: text(dockerDir) }
  return setupCommand({ client, ...flags, loaded, env: process.env, out })
})
  .argument('<client>', 'docker', value => {
    if (value === '') throw new InvalidArgumentError('name a client')
    return value
  })
  .option('--undo', 'take it out again')
  .option('--dry-run', 'show the change, and write nothing')
  .option('--docker-dir <dir>', "the folder of Docker's daemon.json and certs.d")

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Wrong usage or settings; anything else that is expected is 1. */
const usage = 2

function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return
    const message = error.message.replace(/^error: |\.$/g, '')
    // commander has written the help already.
    if (error.code !== 'commander.help') process.stderr.write(`shoal: ${message}; see "shoal --help"\n`)
    process.exitCode = usage
    return
  }
  process.exitCode =
    error instanceof SettingsError ||
    error instanceof UsageError ||
    (error instanceof SetupError && error.code === 'CLIENT_UNKNOWN')
      ? usage
      : 1
  for (const line of (error instanceof Error ? error.message : String(error)).split('\n'))
    process.stderr.write(`shoal: ${line}\n`)
}

try {
  await program.parseAsync()
} catch (error) {
  fail(error)
}
