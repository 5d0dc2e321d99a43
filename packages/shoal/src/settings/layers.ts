import { dockerHub } from './schema.ts'
import { at, isTree, type Path, put, type Tree } from './tree.ts'

/** Where a value was given. */
export interface Origin {
  /** `default`, `file PATH:LINE`, `env NAME` or `flag --NAME`. */
  readonly text: string
  readonly line?: number
  /** What relative paths are relative to. */
  readonly folder: string
}

/** The values that file, environment, flags and defaults give, each with its origin, one laid over the other. */
export class Layers {
  readonly values: Tree = Object.create(null)
  readonly #origins = new Map<string, Origin>()

  set(path: Path, value: unknown, origin: Origin): void {
    put(this.values, path, value)
    this.#origins.set(JSON.stringify(path), origin)
  }

  /** Takes the place of what a lower layer set, unless that made no table of what should be one. */
  override(path: Path, value: unknown, origin: Origin): void {
    if (!isTree(at(this.values, path.slice(0, -1)) ?? {})) return
    for (let index = 0; this.#origins.delete(JSON.stringify([...path, index])); index++);
    this.set(path, value, origin)
  }

  /** The origin of a value, or of the innermost table around it that has one. */
  originOf(path: Path): Origin {
    for (let length = path.length; length > 0; length--) {
      const origin = this.#origins.get(JSON.stringify(path.slice(0, length)))
      if (origin !== undefined) return origin
    }
    return { text: 'default', folder: process.cwd() }
  }

  /** The registries named so far; docker.io always is. */
  registries(): string[] {
    const { upstreams } = this.values
    return [...new Set([dockerHub, ...Object.keys(isTree(upstreams) ? upstreams : {})])]
  }
}
