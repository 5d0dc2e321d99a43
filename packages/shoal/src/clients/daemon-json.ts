import {
  applyEdits,
  type Edit,
  findNodeAtLocation,
  modify,
  type Node,
  type ParseError,
  parseTree,
  printParseErrorCode,
} from 'jsonc-parser'
import { type MirrorFile, SetupError } from './file-change.ts'

const key = 'registry-mirrors'

/** dockerd's daemon.json, whose `registry-mirrors` are asked, in order, for Docker Hub only. Everything else in it stays byte for byte. */
export function daemonJson(path: string): MirrorFile {
  return {
    path,
    add: (text, url) => {
      if (text === null || text.trim() === '') return `{\n  "${key}": [${JSON.stringify(url)}]\n}\n`
      const root = parse(path, text)
      const list = mirrorList(path, text, root)
      if (list === null) return applyEdits(text, newProperty(text, root, url))
      if (named(list).some(other => sameUrl(other, url))) return text
      return applyEdits(text, [firstElement(text, list, url)])
    },
    remove: (text, url) => {
      if (text.trim() === '') return text
      const mirrors = named(mirrorList(path, text, parse(path, text)))
      const rest = mirrors.filter(other => !sameUrl(other, url))
      if (rest.length === mirrors.length) return text
      if (rest.length === 0) return applyEdits(text, modify(text, [key], undefined, {}))
      return mirrors.reduceRight(
        (text, other, index) =>
          sameUrl(other, url) ? applyEdits(text, modify(text, [key, index], undefined, {})) : text,
        text,
      )
    },
    mirrors: text => (text.trim() === '' ? [] : named(mirrorList(path, text, parse(path, text)))),
  }
}

/** dockerd itself adds a slash to the end. */
export function sameUrl(a: string, b: string): boolean {
  return a.replace(/\/+$/, '') === b.replace(/\/+$/, '')
}

function parse(path: string, text: string): Node {
  const errors: ParseError[] = []
  const root = parseTree(text.replace(/^\uFEFF/, ' '), errors, { disallowComments: true, allowTrailingComma: false })
  const offset = errors[0]?.offset ?? (root?.type === 'object' ? null : 0)
  if (root !== undefined && offset === null) return root
  const line = text.slice(0, offset ?? 0).split('\n').length
  // Go's encoding/json, with which dockerd reads it, knows no comments.
  const wrong =
    errors[0] && printParseErrorCode(errors[0].error) === 'InvalidCommentToken'
      ? 'JSON has no comments; take this one out'
      : 'not a JSON object; correct it'
  throw new SetupError(
    'NOT_UNDERSTOOD',
    `${path}:${line}: ${wrong} (dockerd can't read it either), then run this again`,
  )
}

function mirrorList(path: string, text: string, root: Node): Node | null {
  const list = findNodeAtLocation(root, [key])
  if (list === undefined) return null
  const twice = (root.children ?? []).filter(property => property.children?.[0]?.value === key).length > 1
  if (!twice && list.type === 'array' && (list.children ?? []).every(item => item.type === 'string')) return list
  const line = text.slice(0, list.offset).split('\n').length
  throw new SetupError(
    'NOT_UNDERSTOOD',
    `${path}:${line}: "${key}" is not one list of texts; correct it, then run this again`,
  )
}

function named(list: Node | null): string[] {
  return (list?.children ?? []).map(item => String(item.value))
}

function newProperty(text: string, root: Node, url: string): Edit[] {
  const eol = text.includes('\r\n') ? '\r\n' : '\n'
  const last = root.children?.at(-1)
  if (last === undefined) {
    const inside = text.slice(root.offset + 1, root.offset + root.length - 1)
    const content = `${eol}  "${key}": [${JSON.stringify(url)}]${inside.includes('\n') ? '' : eol}`
    return [{ offset: root.offset + 1, length: 0, content }]
  }
  const end = last.offset + last.length
  const colon =
    last.children?.[1] === undefined ? ' ' : text.slice((last.colonOffset ?? 0) + 1, last.children[1].offset)
  const content = `${spaceBefore(text, last.offset)}"${key}":${/^ *$/.test(colon) ? colon : ' '}[${JSON.stringify(url)}]`
  return [{ offset: end, length: 0, content: `,${content}` }]
}

function firstElement(text: string, list: Node, url: string): Edit {
  const [first, second] = list.children ?? []
  if (first === undefined) return { offset: list.offset + 1, length: 0, content: JSON.stringify(url) }
  const space = spaceBefore(text, first.offset)
  const between = second === undefined ? ', ' : text.slice(first.offset + first.length, second.offset)
  const separator = space.includes('\n') ? `,${space}` : /^, *$/.test(between) ? between : ', '
  return { offset: first.offset, length: 0, content: JSON.stringify(url) + separator }
}

/** The space before `offset`, from the last line break on. */
function spaceBefore(text: string, offset: number): string {
  return /(?:\r?\n)?[ \t]*$/.exec(text.slice(0, offset))?.[0] ?? ''
}
