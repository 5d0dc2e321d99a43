import { setTimeout as sleep } from 'node:timers/promises'
import { askDaemon } from '../admin/client.ts'
import type { Popular } from '../admin/popular.ts'
import { plainTable } from '../plain-table.ts'
import { printable } from '../printable.ts'
import type { Settings } from '../settings/schema.ts'

/** How often a terminal is shown anew, in ms. */
const showEvery = 2000

/** Rows that are printed where nobody says how many there is room for. */
const usualRows = 20

/** What is shown live. */
export type Screen = { readonly rows: number; write(text: string): unknown }

/**
 * `shoal top`: what the office pulls most.
 * @param args.screen a terminal, which is shown it until `signal` aborts; else it is printed once
 * @throws DaemonError
 */
export async function topCommand(args: {
  readonly settings: Settings
  readonly json?: boolean | undefined
  readonly screen?: Screen | undefined
  readonly signal?: AbortSignal
  readonly out: (line: string) => void
}): Promise<number> {
  const { settings, json, screen, signal, out } = args
  const popular = await askDaemon<Popular>(settings, 'popular')
  if (json) {
    out(JSON.stringify(popular))
    return 0
  }
  if (!screen) {
    for (const line of popularLines(popular, usualRows)) out(line)
    return 0
  }
  for (let shown = popular; ; shown = await askDaemon<Popular>(settings, 'popular')) {
    // The head of the table and the line below it.
    const lines = popularLines(shown, Math.max(screen.rows - 3, 1))
    screen.write(`${emptyScreen}${lines.join('\n')}\n`)
    try {
      await sleep(showEvery, undefined, { signal })
    } catch {
      return 0
    }
  }
}

/** The terminal is emptied, and written from its top left on. */
const emptyScreen = '\u001B[H\u001B[2J'

/** What a user is shown. */
export function popularLines({ half_life_s, images }: Popular, rows: number): string[] {
  if (images.length === 0) return ['Nothing was pulled yet, here or by a peer.']
  const table = plainTable(['IMAGE', 'PULLS', 'HERE', 'MACHINES', 'HELD'])
  for (const { name, pulls, here, machines, held, peers } of images.slice(0, rows))
    table.push([printable(name), pulls.toFixed(1), here.toFixed(1), machines, holders(held, peers)])
  const more = images.length > rows ? `${images.length - rows} more; ` : ''
  return [table.toString(), `${more}a pull counts half after ${half_life_s / 86_400} days`]
}

function holders(held: boolean, peers: number): string {
  const others = peers === 0 ? [] : [`${peers} ${peers === 1 ? 'peer' : 'peers'}`]
  return [...(held ? ['here'] : []), ...others].join(', ')
}
