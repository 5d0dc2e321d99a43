import Table from 'cli-table3'

/** A table without lines, as `docker ps` has it, which other programs can cut into columns. */
export function plainTable(head: string[]): Table.Table {
  const none = ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right']
  const inner = ['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid']
  const chars = Object.fromEntries([...none, ...inner].map(name => [name, '']))
  return new Table({
    head,
    chars: { ...chars, middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  })
}
