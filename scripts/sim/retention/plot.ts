import type { Outcome } from './office.ts'

/** What became of an office with a policy. */
export type Point = Outcome & { readonly policy: string; readonly peers: number; readonly capacity: number }

const [width, height, left, top, right, bottom, gap] = [860, 620, 50, 40, 110, 40, 40]

const colors = ['#c33', '#36c', '#393', '#939', '#c80', '#088', '#654', '#888', '#000']

/** Draws what is answered without upstream over the capacity: a column of two for each number of machines. */
export function plotOf(points: readonly Point[]): string {
  const offices = [...new Set(points.map(({ peers }) => peers))]
  const policies = [...new Set(points.map(({ policy }) => policy))]
  const panelWidth = (width - left - right - gap * (offices.length - 1)) / offices.length
  const panelHeight = (height - top - bottom - gap) / 2
  const panels = offices.flatMap((peers, column) => {
    const of = points.filter(point => point.peers === peers)
    const title = `${peers === 1 ? '1 machine' : `${peers} machines`}: `
    const x = left + column * (panelWidth + gap)
    const size = [panelWidth, panelHeight] as const
    return [
      panelOf(of, policies, `${title}requests answered without upstream`, ({ hit }) => hit, x, top, size),
      panelOf(of, policies, `${title}bytes`, ({ byteHit }) => byteHit, x, top + panelHeight + gap, size),
    ]
  })
  const legend = policies.map((policy, i) =>
    text(width - right + 12, top + 14 + i * 18, policy, `fill="${colorOf(i)}"`),
  )
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    ...panels,
    ...legend,
    text(
      (left + width - right) / 2,
      height - 6,
      'capacity of all machines together, of all bytes',
      'text-anchor="middle"',
    ),
    '</svg>',
    '',
  ].join('\n')
}

function panelOf(
  points: readonly Point[],
  policies: readonly string[],
  title: string,
  shareOf: (outcome: Outcome) => number,
  left: number,
  top: number,
  [width, height]: readonly [number, number],
): string {
  const capacities = [...new Set(points.map(({ capacity }) => capacity))].sort((a, b) => a - b)
  const logs = capacities.map(Math.log)
  const [least, most] = [logs[0] ?? 0, logs.at(-1) ?? 0]
  const values = points.map(shareOf)
  const low = Math.floor(Math.min(...values) * 10) / 10
  const high = Math.ceil(Math.max(...values) * 10) / 10
  const x = (capacity: number) => left + ((Math.log(capacity) - least) / (most - least || 1)) * width
  const y = (value: number) => top + height - ((value - low) / (high - low || 1)) * height
  const steps = Array.from({ length: Math.round((high - low) * 10) + 1 }, (_, i) => low + i / 10)
  const grid = steps.map(
    step =>
      `<line x1="${left}" x2="${left + width}" y1="${y(step).toFixed(1)}" y2="${y(step).toFixed(1)}" stroke="#ddd"/>` +
      text(left - 6, y(step) + 4, step.toFixed(1), 'text-anchor="end"'),
  )
  const ticks = capacities.map(capacity =>
    text(x(capacity), top + height + 16, `${Number((capacity * 100).toFixed(2))}%`, 'text-anchor="middle"'),
  )
  const lines = policies.map((policy, i) => {
    const of = points.filter(point => point.policy === policy).sort((a, b) => a.capacity - b.capacity)
    const path = of.map(point => `${x(point.capacity).toFixed(1)},${y(shareOf(point)).toFixed(1)}`).join(' ')
    const look =
      policy === 'offline' ? 'stroke-width="1" stroke-dasharray="4 3"' : `stroke-width="${i === 0 ? 3 : 1.5}"`
    return `<polyline fill="none" stroke="${colorOf(i)}" ${look} points="${path}"/>`
  })
  return [...grid, ...ticks, ...lines, text(left, top - 8, title, 'font-weight="bold"')].join('\n')
}

function colorOf(policy: number): string {
  return colors[policy % colors.length]!
}

function text(x: number, y: number, what: string, more = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${what}</text>`
}
