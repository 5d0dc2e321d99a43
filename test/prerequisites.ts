import { spawnSync } from 'node:child_process'
import { test } from 'uvu'

/** Why these programs cannot be run by hand here; undefined: they can. */
export function whyNot(
  programs: readonly string[],
  debian: string,
  { needsRoot = true }: { readonly needsRoot?: boolean } = {},
): string | undefined {
  if (needsRoot && process.getuid?.() !== 0) return `${programs[0]} needs root`
  const missing = programs.filter(program => spawnSync(program, ['--version']).error !== undefined)
  return missing.length > 0 ? `${missing.join(', ')} not installed (Debian: ${debian})` : undefined
}

/** uvu's `test`, or its `skip` where something is lacking; then it says what. @throws under CI, which has everything */
export function testUnless(lacking: string | undefined): typeof test | typeof test.skip {
  if (lacking === undefined) return test
  if (process.env['CI']) throw new Error(lacking)
  console.log(`skipped: ${lacking}`)
  return test.skip
}
