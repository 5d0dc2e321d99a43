import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { root, type ShoalProcess } from '../shoal-process.ts'

/** Where the document has the mirror. */
const usual = '127.0.0.1:3474'

/**
 * What docs/clients.md says to write into a file, with this mirror's address in place of the usual one. There, a
 * line that ends with the path and a colon is followed by the fenced text.
 */
export async function documented(path: string, shoal: Pick<ShoalProcess, 'mirror'>): Promise<string> {
  const document = await readFile(join(root, 'docs', 'clients.md'), 'utf8')
  const [block, ...more] = [...document.matchAll(/`([^`\n]+)`:\n\n```\w+\n(.*?)^```$/gms)].filter(
    ([, named]) => named === path,
  )
  const text = block?.[2]
  if (text === undefined || more.length > 0) throw new Error(`docs/clients.md has not one text for ${path}`)
  if (!text.includes(usual)) throw new Error(`docs/clients.md does not name ${usual} for ${path}`)
  return text.replaceAll(usual, new URL(shoal.mirror).host)
}
