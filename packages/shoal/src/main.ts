#!/usr/bin/env node
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { SetupError } from './clients/file-change.ts'
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
  run: (loaded: LoadedSettings, options: Options, argument?: string) => Promise<number>,
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
      const argument = args.length > 2 ? (args[0] as string | undefined) : undefined
      const loaded = await loadSettings({ argvFlags: options, env: process.env, configFile: options.config })
      try {
        process.exitCode = await run(loaded, options, argument)
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

command('ls', 'list the images that are held', async ({ settings }, { json }) =>
  (await import('./commands/ls.ts')).lsCommand({ settings, json, out }),
)

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
    error instanceof SettingsError || (error instanceof SetupError && error.code === 'CLIENT_UNKNOWN') ? usage : 1
  for (const line of (error instanceof Error ? error.message : String(error)).split('\n'))
    process.stderr.write(`shoal: ${line}\n`)
}

try {
  await program.parseAsync()
} catch (error) {
  fail(error)
}
