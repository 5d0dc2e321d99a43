import { join, relative, sep } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { type Disk, type DiskFile, nodeDisk } from '@shoal/store/disk'

/**
 * What is left of what was not synced. Of a file's bytes: all, none, the first half of the new ones, or their number
 * only. Of each name in a folder: what it stands for now, or what it did at the last sync of the folder.
 */
export type Loss = {
  bytes(path: string): 'kept' | 'lost' | 'cut' | 'zeros'
  names(path: string): 'kept' | 'lost'
}

class File {
  #bytes: Buffer
  #length: number
  /** What survives power loss. */
  synced: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
    this.#length = bytes.length
    this.synced = bytes
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  write(bytes: Uint8Array, position: number): void {
    const end = position + bytes.length
    // What is synced is never written over in place: the first write of all makes a copy.
    if (end > this.#bytes.length || this.#bytes === this.synced) {
      const larger = Buffer.alloc(Math.max(end, 2 * this.#length))
      this.bytes.copy(larger)
      this.#bytes = larger
    }
    this.#bytes.set(bytes, position)
    this.#length = Math.max(this.#length, end)
  }

  after(loss: 'kept' | 'lost' | 'cut' | 'zeros'): Buffer {
    if (loss === 'lost') return this.synced
    if (loss === 'kept') return Buffer.from(this.bytes)
    const { length } = this.synced
    if (loss === 'cut') return Buffer.from(this.bytes.subarray(0, length + Math.ceil((this.#length - length) / 2)))
    const zeros = Buffer.alloc(this.#length)
    this.synced.copy(zeros)
    return zeros
  }
}

class Folder {
  readonly names: Map<string, File | Folder>
  /** What survives power loss. */
  synced: ReadonlyMap<string, File | Folder>

  constructor(names = new Map<string, File | Folder>()) {
    this.names = names
    this.synced = new Map(names)
  }
}

/**
 * A file system in memory that can stop at any of its operations, and that knows what was synced: {@link after} tells
 * what is left after a crash. It promises as little as POSIX does: a file's sync does not save its name, nor a rename's
 * the one without the other. Paths in `real` are the real disk's: Level writes there.
 */
export class CrashingDisk implements Disk {
  /** What has changed the disk so far, or was to make changes last. */
  readonly operations: string[] = []
  /** Resolves at the operation that is not carried out any more. */
  readonly stopped: Promise<void>
  readonly #top: string
  readonly #real: string
  readonly #root: Folder
  readonly #stopAt: number
  readonly #stop: () => void
  #isStopped = false
  readonly #over = Promise.withResolvers<never>()

  /**
   * @param top the folder that all is in; it need not exist
   * @param stopAt the number of the first operation that is not carried out, from 0. It and all later ones do not
   *   return until {@link end}; of a write half is done. What only reads goes on.
   */
  constructor({ top, real, stopAt = Infinity }: { top: string; real: string; stopAt?: number }, root = new Folder()) {
    this.#top = top
    this.#real = real
    this.#root = root
    this.#stopAt = stopAt
    const { promise, resolve } = Promise.withResolvers<void>()
    this.stopped = promise
    this.#stop = resolve
    this.#over.promise.catch(() => {})
  }

  /** Fails the operations that wait since the disk stopped, so that who waits for them can be cleared away. */
  end(): void {
    this.#over.reject(new Error('the disk has stopped'))
  }

  /** The disk as it is found after a crash. */
  after({ bytes, names }: Loss, stopAt?: number): CrashingDisk {
    const found = new Map<File, File>()
    const survive = (folder: Folder, path: string): Folder => {
      const left = new Map<string, File | Folder>()
      for (const name of new Set([...folder.names.keys(), ...folder.synced.keys()])) {
        const here = join(path, name)
        const node = (names(here) === 'kept' ? folder.names : folder.synced).get(name)
        if (!node) continue
        if (node instanceof Folder) left.set(name, survive(node, here))
        else {
          const file = found.get(node) ?? new File(node.after(bytes(here)))
          found.set(node, file)
          left.set(name, file)
        }
      }
      return new Folder(left)
    }
    const place = { top: this.#top, real: this.#real, ...(stopAt !== undefined && { stopAt }) }
    return new CrashingDisk(place, survive(this.#root, ''))
  }

  async open(path: string, mode: 'read' | 'create'): Promise<DiskFile> {
    if (mode === 'create' && !this.#find(path)) {
      await this.#change('create', path)
      const [folder, name] = this.#parent(path)
      folder.names.set(name, new File(Buffer.alloc(0)))
    }
    const file = this.#file(path)
    return {
      path,
      read: async (buffer, length, position) =>
        file.bytes.copy(buffer, 0, position, Math.min(position + length, file.bytes.length)),
      write: async (bytes, position) => {
        const half = () => file.write(bytes.subarray(0, bytes.length >> 1), position)
        await this.#change('write', path, half)
        file.write(bytes, position)
      },
      size: async () => file.bytes.length,
      sync: async () => {
        const before = Buffer.from(file.bytes)
        await this.#change('sync', path)
        file.synced = before
      },
      close: async () => {},
    }
  }

  async readFile(path: string): Promise<Buffer> {
    return Buffer.from(this.#file(path).bytes)
  }

  /** In the same steps as on the real disk. */
  async replaceFile(path: string, bytes: Uint8Array | string): Promise<void> {
    const temporary = `${path}.new`
    await this.remove(temporary)
    const file = await this.open(temporary, 'create')
    await file.write(Buffer.from(bytes), 0)
    await file.sync()
    await this.rename(temporary, path)
    await this.syncFolder(join(path, '..'))
  }

  async rename(from: string, to: string): Promise<void> {
    const file = this.#file(from)
    await this.#change('rename', from)
    const [source, name] = this.#parent(from)
    const [target, newName] = this.#parent(to)
    source.names.delete(name)
    target.names.set(newName, file)
  }

  async remove(path: string): Promise<void> {
    if (this.#isReal(path)) return nodeDisk.remove(path)
    if (!this.#find(path)) return
    await this.#change('remove', path)
    const [folder, name] = this.#parent(path)
    folder.names.delete(name)
  }

  async makeFolder(path: string): Promise<void> {
    let folder = this.#root
    let here = this.#top
    for (const name of this.#names(path)) {
      here = join(here, name)
      let next = folder.names.get(name)
      if (!next) {
        await this.#change('makeFolder', here)
        folder.names.set(name, (next = new Folder()))
        // As the real disk does it.
        await this.syncFolder(join(here, '..'))
      }
      if (!(next instanceof Folder)) throw failure('ENOTDIR', here)
      folder = next
    }
  }

  async list(path: string): Promise<string[]> {
    if (this.#isReal(path)) return nodeDisk.list(path)
    const folder = this.#find(path)
    return folder instanceof Folder ? [...folder.names.keys()] : []
  }

  async sizeOf(path: string): Promise<number | undefined> {
    const file = this.#find(path)
    return file instanceof File ? file.bytes.length : undefined
  }

  async syncFolder(path: string): Promise<void> {
    const folder = this.#find(path)
    if (!(folder instanceof Folder)) throw failure('ENOENT', path)
    const before = new Map(folder.names)
    await this.#change('syncFolder', path)
    folder.synced = before
  }

  async space(): Promise<{ total: number; free: number }> {
    return { total: 2 ** 40, free: 2 ** 39 }
  }

  /** Counts an operation, and stops at the one that is not to be carried out. */
  async #change(operation: string, path: string, half?: () => void): Promise<void> {
    if (this.operations.length >= this.#stopAt) {
      if (!this.#isStopped) half?.()
      this.#isStopped = true
      this.#stop()
      await this.#over.promise
    }
    this.operations.push(`${operation} ${relative(this.#top, path)}`)
    await setImmediate()
  }

  #isReal(path: string): boolean {
    return path.startsWith(this.#real)
  }

  #names(path: string): string[] {
    return relative(this.#top, path)
      .split(sep)
      .filter(name => name !== '')
  }

  #find(path: string): File | Folder | undefined {
    let node: File | Folder | undefined = this.#root
    for (const name of this.#names(path)) node = node instanceof Folder ? node.names.get(name) : undefined
    return node
  }

  #file(path: string): File {
    const file = this.#find(path)
    if (!(file instanceof File)) throw failure('ENOENT', path)
    return file
  }

  #parent(path: string): [Folder, string] {
    const names = this.#names(path)
    const folder = this.#find(join(path, '..'))
    if (!(folder instanceof Folder)) throw failure('ENOENT', path)
    return [folder, names[names.length - 1]!]
  }
}

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code })
}
