import {
  type FileHandle,
  lstat,
  mkdir,
  open,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
} from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { createTwoFilesPatch } from 'diff'

/** A client's set-up that can't be done. `message` is one line that says what to do; nothing has been changed. */
export class SetupError extends Error {
  override readonly name = 'SetupError'
  readonly code:
    | 'NO_PERMISSION'
    | 'NOT_UNDERSTOOD'
    | 'CHANGED_MEANWHILE'
    | 'ENGINE_UNREACHABLE'
    | 'ENGINE_UNSUPPORTED'
    | 'CLIENT_UNKNOWN'
    | 'NO_ADDRESS'
    | 'WRITE_FAILED'
  /** What is wrong, without what to do about it. */
  readonly problem: string
  readonly remedy: string | undefined

  /** @param options.remedy what to do about it, where that is a sentence of its own: the end of the message then */
  constructor(code: SetupError['code'], problem: string, options: ErrorOptions & { readonly remedy?: string } = {}) {
    super(options.remedy === undefined ? problem : `${problem}: ${options.remedy}`, options)
    this.code = code
    this.problem = problem
    this.remedy = options.remedy
  }
}

/** A client's file that names its mirrors. Its functions are pure, and throw `SetupError` NOT_UNDERSTOOD. */
export interface MirrorFile {
  readonly path: string
  /** `text` (null: no file yet) with `url` as the first mirror; `text` itself if it names `url` already. */
  add(text: string | null, url: string): string
  /** `text` without `url`; `text` itself if it doesn't name it. */
  remove(text: string, url: string): string
  /** The mirrors that `text` names, in their order. */
  mirrors(text: string): readonly string[]
}

/** The planned change of one file; see `applyChange`. */
export interface FileChange {
  readonly path: string
  /** `path` with symlinks followed: what is written. */
  readonly target: string
  /** Its bytes; null: no file. */
  readonly before: Buffer | null
  readonly after: Buffer | null
  readonly backup: {
    readonly path: string
    readonly action: 'write' | 'remove' | 'keep' | 'none'
    readonly bytes: Buffer | null
  }
  /** Folders that are created, or removed if they are empty then, the innermost first. */
  readonly folders: readonly string[]
}

const noFileBefore = 'There was no such file before "shoal setup", which wrote this note; "--undo" removes both.\n'

/**
 * Plans the entry of `url`. A backup that belongs to a set-up still in place, also one with another URL, is kept and built upon.
 * @returns null if there is nothing to change
 */
export async function planEntry(file: MirrorFile, url: string): Promise<FileChange | null> {
  const { target, current, backup } = await look(file.path)
  const replaces = ours(file, current, backup)
  const original = replaces === null ? current : (backup?.original ?? null)
  const after = file.add(textOf(file.path, original), url)
  if (current !== null && after === textOf(file.path, current)) return null
  const folders = current === null ? await missingFolders(dirname(file.path)) : []
  const note = Buffer.from([noFileBefore.trimEnd(), ...folders.map(folder => `folder ${folder}`), ''].join('\n'))
  return {
    path: file.path,
    target,
    before: current,
    after: Buffer.from(after),
    backup:
      replaces === null
        ? { path: backupPath(file.path), action: 'write', bytes: current ?? note }
        : { path: backupPath(file.path), action: 'keep', bytes: null },
    folders,
  }
}

/**
 * Plans the removal: what was there before, byte for byte, if the file is still as set-up left it; otherwise the file without `urls`,
 * and the backup stays.
 * @returns null if there is nothing to undo
 */
export async function planRemoval(file: MirrorFile, urls: readonly string[]): Promise<FileChange | null> {
  const { target, current, backup } = await look(file.path)
  const path = backupPath(file.path)
  const change = { path: file.path, target, before: current }
  if (backup !== null && (same(current, backup.original) || ours(file, current, backup) !== null)) {
    const action = { path, action: 'remove', bytes: null } as const
    return {
      ...change,
      after: backup.original,
      backup: action,
      folders: backup.original === null ? backup.folders : [],
    }
  }
  const text = textOf(file.path, current)
  if (text === null) return null
  const after = urls.reduce((text, url) => file.remove(text, url), text)
  if (after === text) return null
  const action = backup === null ? 'none' : backup.original === null ? 'remove' : 'keep'
  return { ...change, after: Buffer.from(after), backup: { path, action, bytes: null }, folders: [] }
}

/**
 * Makes a planned change: the backup first, then the file, atomically, with its mode and owner kept.
 * @throws SetupError NO_PERMISSION, CHANGED_MEANWHILE (the file isn't what the plan saw), WRITE_FAILED
 */
export async function applyChange(change: FileChange): Promise<void> {
  const { target, after, backup } = change
  try {
    if (!same(await read(target), change.before)) {
      throw new SetupError('CHANGED_MEANWHILE', `${change.path} has just been changed by somebody else; run this again`)
    }
    if (after !== null) await mkdir(dirname(target), { recursive: true })
    if (backup.action === 'write' && backup.bytes !== null) {
      await mkdir(dirname(backup.path), { recursive: true })
      await writeWhole(backup.path, backup.bytes, target)
    }
    if (!same(change.before, after)) {
      if (after === null) await rm(target)
      else await writeWhole(target, after, target)
    }
    if (backup.action === 'remove') await rm(backup.path, { force: true })
    if (after === null) for (const folder of change.folders) await rmdir(folder).catch(() => undefined)
  } catch (error) {
    throw asSetupError(error, change.path)
  }
}

/** The change as a unified diff; empty if the file itself stays. */
export function diffOf({ path, before, after }: FileChange): string {
  if (same(before, after)) return ''
  const lines = (bytes: Buffer | null) => bytes?.toString().replaceAll('\r\n', '\n') ?? ''
  const [from, to] = [before === null ? '/dev/null' : path, after === null ? '/dev/null' : path]
  return createTwoFilesPatch(from, to, lines(before), lines(after)).replace(/^(?:Index: .*\n)?=+\n/, '')
}

/** Reads a file as text; null if there is none. @throws SetupError NO_PERMISSION, NOT_UNDERSTOOD (not UTF-8) */
export async function readText(path: string): Promise<string | null> {
  try {
    return textOf(path, await read(path))
  } catch (error) {
    throw asSetupError(error, path)
  }
}

export function backupPath(path: string): string {
  return `${path}.before-shoal`
}

interface Backup {
  /** null: there was no file. */
  readonly original: Buffer | null
  readonly folders: readonly string[]
}

async function look(path: string): Promise<{ target: string; current: Buffer | null; backup: Backup | null }> {
  try {
    const target = await followed(path)
    const [current, bytes] = [await read(target), await read(backupPath(path))]
    if (bytes === null) return { target, current, backup: null }
    const text = bytes.toString()
    if (!text.startsWith(noFileBefore)) return { target, current, backup: { original: bytes, folders: [] } }
    const folders = text.split('\n').flatMap(line => (line.startsWith('folder ') ? line.slice('folder '.length) : []))
    return { target, current, backup: { original: null, folders } }
  } catch (error) {
    throw asSetupError(error, path)
  }
}

/** The URL with which set-up made `current` out of the backup; null if it didn't, or somebody has edited it since. */
function ours(file: MirrorFile, current: Buffer | null, backup: Backup | null): string | null {
  if (backup === null || current === null) return null
  try {
    const [text, original] = [textOf(file.path, current) ?? '', textOf(file.path, backup.original)]
    return file.mirrors(text).find(url => text !== original && file.add(original, url) === text) ?? null
  } catch (error) {
    if (error instanceof SetupError && error.code === 'NOT_UNDERSTOOD') return null
    throw error
  }
}

function textOf(path: string, bytes: Buffer | null): string | null {
  if (bytes === null) return null
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new SetupError('NOT_UNDERSTOOD', `${path} is not UTF-8 text: correct it, then run this again`)
  }
}

function same(a: Buffer | null, b: Buffer | null): boolean {
  return a === null || b === null ? a === b : a.equals(b)
}

async function read(path: string): Promise<Buffer | null> {
  try {
    return await readFile(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return null
    throw error
  }
}

async function followed(path: string): Promise<string> {
  const link = await lstat(path).catch(() => null)
  if (!link?.isSymbolicLink()) return path
  return realpath(path).catch(async () => resolve(dirname(path), await readlink(path)))
}

async function missingFolders(folder: string): Promise<string[]> {
  const missing: string[] = []
  for (let at = folder; (await stat(at).catch(() => null)) === null && dirname(at) !== at; at = dirname(at))
    missing.push(at)
  return missing
}

/** Writes beside, syncs, renames, syncs the folder; mode and owner are those of `like`, if it exists. */
async function writeWhole(path: string, bytes: Buffer, like: string): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`)
  const before = await stat(like).catch(() => null)
  let file: FileHandle | null = null
  try {
    file = await open(temporary, 'wx', 0o600)
    await file.writeFile(bytes)
    const { uid, gid } = await file.stat()
    if (before !== null && (before.uid !== uid || before.gid !== gid)) await file.chown(before.uid, before.gid)
    await file.chmod(before === null ? 0o644 : before.mode & 0o7777)
    await file.sync()
    await file.close()
    await rename(temporary, path)
  } catch (error) {
    await file?.close().catch(() => undefined)
    if (file !== null) await rm(temporary, { force: true })
    throw error
  }
  if (process.platform === 'win32') return
  const folder = await open(dirname(path), 'r')
  await folder.sync().finally(() => folder.close())
}

function asSetupError(error: unknown, path: string): SetupError {
  if (error instanceof SetupError) return error
  const code = codeOf(error)
  if (code === 'EACCES' || code === 'EPERM') {
    const remedy = process.platform === 'win32' ? 'run it as administrator' : 'run it with sudo'
    return new SetupError('NO_PERMISSION', `${path}: permission denied; ${remedy}`, { cause: error })
  }
  const reason =
    code === 'EROFS' ? 'it is on a read-only file system' : error instanceof Error ? error.message : String(error)
  return new SetupError(
    'WRITE_FAILED',
    `${path} can't be read or written: ${reason}; correct that, then run this again`,
    { cause: error },
  )
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}
