import { constants, fsync, read, write } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, stat, statfs, unlink } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

/** An open file. Positions and lengths are in bytes. */
export interface DiskFile {
  readonly path: string
  /** Reads up to `length` bytes of the file at `position` into `buffer`; resolves to how many, 0 at the end. */
  read(buffer: Uint8Array, length: number, position: number): Promise<number>
  /** Writes all of `bytes` at `position`. */
  write(bytes: Uint8Array, position: number): Promise<void>
  size(): Promise<number>
  /** Resolves once what was written survives power loss. */
  sync(): Promise<void>
  close(): Promise<void>
}

/** The file operations that the store is built on, so that tests can stop, fail or forget any one of them. */
export interface Disk {
  /** `'create'` opens for reading and writing, and keeps what a file holds. */
  open(path: string, mode: 'read' | 'create'): Promise<DiskFile>
  readFile(path: string): Promise<Buffer>
  /** Replaces a file, so that after power loss it holds the old bytes or the new ones. */
  replaceFile(path: string, bytes: Uint8Array | string, mode?: number): Promise<void>
  rename(from: string, to: string): Promise<void>
  /** Resolves also if there is no such file. */
  remove(path: string): Promise<void>
  /** Also makes the folders above it. `mode` is for those that are made; they survive power loss. */
  makeFolder(path: string, mode?: number): Promise<void>
  /** The names in a folder; none if there is no such folder. */
  list(path: string): Promise<string[]>
  /** A file's size in bytes; undefined if there is no such file. */
  sizeOf(path: string): Promise<number | undefined>
  /** Makes the names in a folder survive power loss. Windows has no such call, and journals its names. */
  syncFolder(path: string): Promise<void>
  /** Bytes in all and free on the file system that holds `path`. */
  space(path: string): Promise<{ total: number; free: number }>
}

/** Whether an error says that there is no such file or folder. */
export const isAbsent = (error: unknown) => error instanceof Error && 'code' in error && error.code === 'ENOENT'

export const nodeDisk: Disk = {
  async open(path, mode) {
    const flags = mode === 'read' ? constants.O_RDONLY : constants.O_RDWR | constants.O_CREAT
    const handle = await open(path, flags, 0o644)
    const { fd } = handle
    return {
      path,
      read: (buffer, length, position) =>
        new Promise((resolve, reject) => {
          read(fd, buffer, 0, length, position, (error, count) => (error ? reject(error) : resolve(count)))
        }),
      async write(bytes, position) {
        for (let done = 0; done < bytes.length; )
          done += await new Promise<number>((resolve, reject) => {
            write(fd, bytes, done, bytes.length - done, position + done, (error, count) =>
              error ? reject(error) : resolve(count),
            )
          })
      },
      size: async () => (await handle.stat()).size,
      sync: () =>
        new Promise((resolve, reject) => {
          fsync(fd, error => (error ? reject(error) : resolve()))
        }),
      close: () => handle.close(),
    }
  },
  readFile: path => readFile(path),
  async replaceFile(path, bytes, mode = 0o644) {
    const temporary = `${path}.new`
    const handle = await open(temporary, 'w', mode)
    try {
      await handle.writeFile(bytes)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
    await nodeDisk.syncFolder(dirname(path))
  },
  rename: (from, to) => rename(from, to),
  async remove(path) {
    try {
      await unlink(path)
    } catch (error) {
      if (!isAbsent(error)) throw error
    }
  },
  async makeFolder(path, mode = 0o777) {
    const first = await mkdir(path, { recursive: true, mode })
    if (first === undefined) return
    // Each is a name in the one above it. Who may write there may not always read, which a sync would need.
    for (let made = resolve(path); made.length >= resolve(first).length; made = dirname(made))
      await nodeDisk.syncFolder(dirname(made)).catch(error => {
        if (error.code !== 'EACCES') throw error
      })
  },
  async list(path) {
    try {
      return await readdir(path)
    } catch (error) {
      if (isAbsent(error)) return []
      throw error
    }
  },
  async sizeOf(path) {
    try {
      const stats = await stat(path)
      return stats.isFile() ? stats.size : undefined
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
  },
  async syncFolder(path) {
    if (process.platform === 'win32') return
    const handle = await open(path, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
  async space(path) {
    const { bsize, blocks, bavail } = await statfs(path)
    return { total: bsize * blocks, free: bsize * bavail }
  },
}
