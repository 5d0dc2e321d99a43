import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'

/** Requests for blobs in the order in which they came. Blobs and repositories are numbers that index the lists here. */
export type Trace = {
  readonly digests: readonly string[]
  /** In bytes. */
  readonly sizes: readonly number[]
  readonly repositories: readonly string[]
  readonly requests: readonly Request[]
}

export type Request = { readonly blob: number; readonly repository: number }

const least = 32

/**
 * Reads a list of URIs, one a line. What is no `v2/<repository>/blobs/<digest>` is left out: pings and manifests.
 * @param sizes of any blobs, ascending; each digest is given one of them, always the same
 * @throws Error if there is no such line
 */
export function parseTrace(text: string, sizes: readonly number[]): Trace {
  const digests = new Numbering()
  const repositories = new Numbering()
  const requests: Request[] = []
  for (const [, repository = '', digest = ''] of text.matchAll(/^\/?v2\/(\S+)\/blobs\/(\S+?)\r?$/gm))
    requests.push({ blob: digests.of(digest), repository: repositories.of(repository) })
  if (requests.length === 0) throw new Error('it has no line like v2/<repository>/blobs/<digest>')
  return {
    digests: digests.names,
    sizes: digests.names.map(digest => drawSize(digest, sizes)),
    repositories: repositories.names,
    requests,
  }
}

/**
 * Reads a table of a registry's log (comma-separated, with a header) that has `http.request.uri` and
 * `http.response.written`.
 * @returns the sizes of the blobs in it, ascending
 * @throws Error if it has no such columns, or no blob
 */
export function parseSizes(text: string): number[] {
  const [header = '', ...lines] = text.trimEnd().split(/\r?\n/)
  const names = header.split(',')
  const [uri, written] = [names.indexOf('http.request.uri'), names.indexOf('http.response.written')]
  if (uri < 0 || written < 0) throw new Error('it has no columns http.request.uri and http.response.written')
  const sizes = new Map<string, number>()
  for (const line of lines) {
    const cells = line.split(',')
    const digest = /\/blobs\/(.+)$/.exec(cells[uri] ?? '')?.[1]
    const size = Number(cells[written])
    if (digest !== undefined && size >= 0) sizes.set(digest, Math.max(size, sizes.get(digest) ?? 0))
  }
  if (sizes.size === 0) throw new Error('it has no blob')
  return [...sizes.values()].sort((a, b) => a - b)
}

/** Reads a text that may be compressed with gzip or Zstandard. */
export async function readText(file: string): Promise<string> {
  const bytes = await readFile(file)
  const magic = bytes.length < 4 ? 0 : bytes.readUInt32LE(0)
  if ((magic & 0xffff) === 0x8b1f) return gunzipSync(bytes).toString()
  return (magic === 0xfd2fb528 ? zstdDecompressSync(bytes) : bytes).toString()
}

/** The first or the second half of the requests, as a trace of its own: nothing of one is known in the other. */
export function halfOf({ digests, sizes, repositories, requests }: Trace, half: 'first' | 'second'): Trace {
  const middle = requests.length >>> 1
  const kept = half === 'first' ? requests.slice(0, middle) : requests.slice(middle)
  const numbering = new Numbering()
  const renumbered = kept.map(({ blob, repository }) => ({ blob: numbering.of(digests[blob]!), repository }))
  const sizeOf = new Map(digests.map((digest, blob) => [digest, sizes[blob]!]))
  const sizesOfHalf = numbering.names.map(digest => sizeOf.get(digest)!)
  return { digests: numbering.names, sizes: sizesOfHalf, repositories, requests: renumbered }
}

/** Of all blobs together, each counted once. */
export function uniqueBytesOf({ sizes }: Trace): number {
  return sizes.reduce((sum, size) => sum + size, 0)
}

/** The size of those that a digest is given, in bytes; always the same. */
export function drawSize(digest: string, sizes: readonly number[]): number {
  const drawn = Number.parseInt(createHash('md5').update(digest).digest('hex').slice(0, 12), 16) % sizes.length
  return Math.max(sizes[drawn]!, least)
}

/** Numbers for names, in the order in which they come. */
class Numbering {
  readonly names: string[] = []
  readonly #numbers = new Map<string, number>()

  of(name: string): number {
    const known = this.#numbers.get(name)
    if (known !== undefined) return known
    const number = this.names.push(name) - 1
    this.#numbers.set(name, number)
    return number
  }
}
