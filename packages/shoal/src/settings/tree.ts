/** Tables within tables, as a file of settings holds them. */
export type Tree = Record<string, unknown>

/** The way to a value in a tree: names of tables and keys, places in lists. */
export type Path = readonly (string | number)[]

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

export function at(tree: unknown, path: Path): unknown {
  return path.reduce((node: unknown, part) => {
    if (Array.isArray(node)) return node[Number(part)]
    return isTree(node) && Object.hasOwn(node, part) ? node[part] : undefined
  }, tree)
}

/** Sets `path` to `value`; undefined makes a table, if there is nothing. Under what is no table nothing is set. */
export function put(tree: Tree, path: Path, value: unknown): void {
  let node: unknown = tree
  path.forEach((part, index) => {
    if (!isTree(node) && !Array.isArray(node)) return
    const into = node as Record<string | number, unknown>
    if (index === path.length - 1 && value !== undefined) into[part] = value
    else if (!Object.hasOwn(into, part)) into[part] = typeof path[index + 1] === 'number' ? [] : Object.create(null)
    node = into[part]
  })
}

/** A path as one writes it in TOML: `upstreams."docker.io".endpoints[0]`. */
export function pathText(path: Path): string {
  return path
    .map(part => (typeof part === 'number' ? `[${part}]` : `.${tomlKey(part)}`))
    .join('')
    .replace(/^\./, '')
}

function tomlKey(name: string): string {
  return /^[\w-]+$/.test(name) ? name : JSON.stringify(name)
}
