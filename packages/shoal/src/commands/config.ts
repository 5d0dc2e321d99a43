import type { LoadedSettings } from '../settings/load.ts'
import { printSettings, settingsJson } from '../settings/printout.ts'

/** `shoal config`: the settings in force, and where each comes from. @returns the exit status, 0 */
export function configCommand(args: {
  readonly loaded: LoadedSettings
  readonly json?: boolean | undefined
  readonly out: (line: string) => void
}): number {
  if (args.json) args.out(JSON.stringify(settingsJson(args.loaded)))
  else for (const line of printSettings(args.loaded)) args.out(line)
  return 0
}
