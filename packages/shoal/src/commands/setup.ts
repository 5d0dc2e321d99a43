import { apply, type Plan, planDockerSetup, planDockerUndo } from '../clients/docker.ts'
import { diffOf, SetupError } from '../clients/file-change.ts'
import type { LoadedSettings } from '../settings/load.ts'

export interface SetupArguments {
  readonly client: string
  readonly undo?: boolean | undefined
  readonly dryRun?: boolean | undefined
  readonly json?: boolean | undefined
  /** `--docker-dir`: the folder of daemon.json and certs.d. */
  readonly dockerDir?: string | undefined
  readonly loaded: LoadedSettings
  readonly env: Readonly<Record<string, string | undefined>>
  readonly out: (line: string) => void
}

/**
 * `shoal setup CLIENT`: shows the diff, makes the change, says what is left to do.
 * @returns the exit status, 0
 * @throws SetupError, whose message is the line for stderr: CLIENT_UNKNOWN is wrong usage (exit status 2), any other a failure (1)
 */
export async function setupCommand(args: SetupArguments): Promise<number> {
  const { client, dryRun = false, undo = false, out } = args
  const plan = await planFor(args)
  if (!dryRun) await apply(plan)
  if (args.json) {
    const changes = plan.changes.map(change => ({
      file: change.path,
      diff: diffOf(change),
      backup: { file: change.backup.path, action: change.backup.action },
    }))
    out(JSON.stringify({ client, undo, applied: !dryRun && changes.length > 0, changes, notes: plan.notes }))
    return 0
  }
  for (const change of plan.changes) {
    for (const line of diffOf(change).split('\n').slice(0, -1)) out(line)
    const { path, action } = change.backup
    if (dryRun) continue
    if (diffOf(change) === '') {
      out(`Removed ${path}, which was left over.`)
      continue
    }
    if (action === 'write' && change.before !== null) out(`Changed ${change.path}; what it was is in ${path}.`)
    else if (action === 'write') out(`Written ${change.path}.`)
    else if (action === 'remove') out(`${change.after === null ? 'Removed' : 'Restored'} ${change.path}.`)
    else out(`Changed ${change.path}.`)
  }
  if (plan.changes.length === 0) out(undo ? 'Nothing to undo.' : 'Nothing to change.')
  for (const note of plan.notes) out(note)
  if (dryRun && plan.changes.length > 0) out('Nothing was written: this was a dry run.')
  return 0
}

function planFor({ client, undo, dockerDir, loaded, env }: SetupArguments): Promise<Plan> {
  if (client !== 'docker')
    throw new SetupError('CLIENT_UNKNOWN', `no set-up for "${client}" yet: use "shoal setup docker"`)
  const options = { settings: loaded.settings, env, dockerDir }
  return undo ? planDockerUndo(options) : planDockerSetup(options)
}
