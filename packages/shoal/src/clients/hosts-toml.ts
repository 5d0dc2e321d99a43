import { type AST, ParseError, parseTOML } from 'toml-eslint-parser'
import { sameUrl } from './daemon-json.ts'
import { type MirrorFile, SetupError } from './file-change.ts'

/**
 * A `hosts.toml` as containerd and dockerd 29 read it (containerd's docs/hosts.md): its `[host."URL"]` tables are asked in their order,
 * and then `server`.
 * @param header comment lines for a file of our own
 * @param server the registry itself, for a file of our own
 */
export function hostsToml(path: string, header: string, server: string): MirrorFile {
  return {
    path,
    add: (text, url) => {
      if (text === null || text.trim() === '')
        return `${header}server = ${JSON.stringify(server)}\n\n${hostTable(url, '\n')}`
      const program = parse(path, text)
      if (hostTables(program).some(({ url: other }) => sameUrl(other, url))) return text
      const eol = text.includes('\r\n') ? '\r\n' : '\n'
      const first = program.body[0].body.find(node => node.type === 'TOMLTable' && node.resolvedKey[0] === 'host')
      if (first === undefined) return `${text}${text.endsWith('\n') ? '' : eol}${eol}${hostTable(url, eol)}`
      const at = startWithComments(text, program, first)
      return `${text.slice(0, at)}${hostTable(url, eol)}${eol}${text.slice(at)}`
    },
    remove: (text, url) => {
      const program = parse(path, text)
      const ranges = hostTables(program).flatMap(({ url: other, node }) => {
        if (!sameUrl(other, url)) return []
        const start = text.lastIndexOf('\n', node.range[0]) + 1
        const last = node.body.at(-1)?.range[1] ?? node.range[1]
        const end = last + (/^[^\n]*(?:\n[ \t]*(?=\r?\n))?\r?\n?/.exec(text.slice(last))?.[0].length ?? 0)
        return [[start, end] as const]
      })
      return ranges.reduceRight((text, [start, end]) => text.slice(0, start) + text.slice(end), text)
    },
    mirrors: text => [...new Set(hostTables(parse(path, text)).map(({ url }) => url))],
  }
}

/** `dial_timeout`: containerd waits up to 30 s for a connection otherwise. */
function hostTable(url: string, eol: string): string {
  return [`[host.${JSON.stringify(url)}]`, '  capabilities = ["pull", "resolve"]', '  dial_timeout = "1s"', ''].join(
    eol,
  )
}

/** Every `[host."URL"]` and `[host."URL".…]`. */
function hostTables(program: AST.TOMLProgram): { url: string; node: AST.TOMLTable }[] {
  return program.body[0].body.flatMap(node => {
    const url = node.type === 'TOMLTable' && node.resolvedKey[0] === 'host' ? node.resolvedKey[1] : undefined
    return node.type === 'TOMLTable' && typeof url === 'string' ? [{ url, node }] : []
  })
}

function startWithComments(text: string, program: AST.TOMLProgram, node: AST.TOMLTable | AST.TOMLKeyValue): number {
  let line = node.loc.start.line
  const starts = (comment: AST.Comment) => /(?:^|\n)[ \t]*$/.test(text.slice(0, comment.range[0]))
  const comments = new Map(program.comments.filter(starts).map(comment => [comment.loc.start.line, comment]))
  let start = node.range[0]
  for (let above = comments.get(--line); above !== undefined; above = comments.get(--line)) start = above.range[0]
  return text.lastIndexOf('\n', start - 1) + 1
}

function parse(path: string, text: string): AST.TOMLProgram {
  const refuse = (line: number, why: string) =>
    new SetupError('NOT_UNDERSTOOD', `${path}:${line}: ${why}, then run this again`)
  try {
    const program = parseTOML(text)
    const inline = program.body[0].body.find(node =>
      node.type === 'TOMLTable'
        ? node.resolvedKey.length === 1 && node.resolvedKey[0] === 'host'
        : nameOf(node) === 'host',
    )
    if (inline === undefined) return program
    throw refuse(inline.loc.start.line, 'write each host as a table of its own, [host."URL"]')
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
    throw refuse(error.lineNumber, `not TOML (${error.message}); correct it`)
  }
}

function nameOf(node: AST.TOMLKeyValue): string | undefined {
  const first = node.key.keys[0]
  return first?.type === 'TOMLBare' ? first.name : first?.value
}
