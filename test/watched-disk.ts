import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Disk, type DiskFile, nodeDisk } from '@shoal/store/disk'

export type DiskOperation = keyof Disk | Exclude<keyof DiskFile, 'path'>

/** The real disk, in a folder of its own, that counts open files and does what a test wants before an operation. */
export class WatchedDisk implements Disk, AsyncDisposable {
  readonly folder: string
  /** Runs before each operation, and may fail or delay it. */
  before: (operation: DiskOperation, path: string) => Promise<void> | void = () => {}
  /** Files that are open. */
  openFiles = 0
  /** Files that were closed while an operation on them was under way, or used after that. */
  readonly misused: string[] = []

  static async open(): Promise<WatchedDisk> {
    return new WatchedDisk(await mkdtemp(join(tmpdir(), 'shoal-disk-')))
  }

  private constructor(folder: string) {
    this.folder = folder
  }

  async open(path: string, mode: 'read' | 'create'): Promise<DiskFile> {
    await this.before('open', path)
    const file = await nodeDisk.open(path, mode)
    this.openFiles++
    let running = 0
    let closed = false
    const run = async <T>(operation: DiskOperation, act: () => Promise<T>): Promise<T> => {
      if (closed) this.misused.push(`${operation} of a closed file`)
      running++
      try {
        await this.before(operation, path)
        return await act()
      } finally {
        running--
      }
    }
    return {
      path,
      read: (buffer, length, position) => run('read', () => file.read(buffer, length, position)),
      write: (bytes, position) => run('write', () => file.write(bytes, position)),
      size: () => run('size', () => file.size()),
      sync: () => run('sync', () => file.sync()),
      close: async () => {
        if (running > 0) this.misused.push('close of a file in use')
        if (!closed) this.openFiles--
        closed = true
        await this.before('close', path)
        await file.close()
      },
    }
  }

  async readFile(path: string): Promise<Buffer> {
    await this.before('readFile', path)
    return nodeDisk.readFile(path)
  }

  async replaceFile(path: string, bytes: Uint8Array | string, mode?: number): Promise<void> {
    await this.before('replaceFile', path)
    return nodeDisk.replaceFile(path, bytes, mode)
  }

  async rename(from: string, to: string): Promise<void> {
    await this.before('rename', from)
    return nodeDisk.rename(from, to)
  }

  async remove(path: string): Promise<void> {
    await this.before('remove', path)
    return nodeDisk.remove(path)
  }

  async makeFolder(path: string): Promise<void> {
    await this.before('makeFolder', path)
    return nodeDisk.makeFolder(path)
  }

  async list(path: string): Promise<string[]> {
    await this.before('list', path)
    return nodeDisk.list(path)
  }

  async sizeOf(path: string): Promise<number | undefined> {
    await this.before('sizeOf', path)
    return nodeDisk.sizeOf(path)
  }

  async syncFolder(path: string): Promise<void> {
    await this.before('syncFolder', path)
    return nodeDisk.syncFolder(path)
  }

  async space(path: string): Promise<{ total: number; free: number }> {
    await this.before('space', path)
    return nodeDisk.space(path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }
}
