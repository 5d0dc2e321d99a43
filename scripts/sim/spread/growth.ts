import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { medianOf, type Outcome, play } from './scenario.ts'

const file = fileURLToPath(new URL('../../../docs/performance-growth.svg', import.meta.url))

/** Machines, runs, and how long rates stay as they are at least, in ms: many machines take long to work out. */
const offices = [
  { machines: 4, runs: 5, quantum: 0 },
  { machines: 16, runs: 5, quantum: 0 },
  { machines: 64, runs: 3, quantum: 2 },
  { machines: 100, runs: 3, quantum: 2 },
  { machines: 256, runs: 1, quantum: 5 },
  { machines: 1000, runs: 1, quantum: 10 },
] as const

/** How long it takes, and what it costs, with more and more machines that want 128 MB at once. */
export async function growth(): Promise<void> {
  const points: { machines: number; outcome: Outcome }[] = []
  console.log(
    '128 MB at 100 Mbit/s, all at once: times of the ideal, of the image, and messages and requests a machine',
  )
  console.log(' machines  slowest   median upstream messages requests')
  for (const { machines, runs, quantum } of offices) {
    const outcomes = Array.from({ length: runs }, (_, i) => play({ name: 'growth', machines, quantum }, i + 1))
    const of = (key: keyof Outcome) => medianOf(outcomes.map(each => each[key]))
    const outcome = Object.fromEntries(Object.keys(outcomes[0]!).map(key => [key, of(key as keyof Outcome)])) as Outcome
    points.push({ machines, outcome })
    const { slowest, median, upstream, messages, requests } = outcome
    const cells = [slowest.toFixed(2), median.toFixed(2), upstream.toFixed(3), messages.toFixed(0), requests.toFixed(0)]
    console.log(`${String(machines).padStart(9)}${cells.map(cell => cell.padStart(9)).join('')}`)
  }
  await writeFile(file, plotOf(points))
  console.log('the plot: docs/performance-growth.svg')
}

const [width, height, left, top, right, bottom] = [640, 320, 50, 30, 60, 40]

function plotOf(points: readonly { machines: number; outcome: Outcome }[]): string {
  const most = Math.log(points.at(-1)!.machines)
  const least = Math.log(points[0]!.machines)
  const x = (machines: number) => left + ((Math.log(machines) - least) / (most - least)) * (width - left - right)
  const y = (part: number) => height - bottom - part * (height - top - bottom)
  // From 1 to 2 on the left; messages up to 3,000 on the right.
  const times = (value: number) => y(value - 1)
  const counts = (value: number) => y(value / 3000)
  const lineOf = (color: string, at: (outcome: Outcome) => number) => {
    const path = points.map(({ machines, outcome }) => `${x(machines).toFixed(1)},${at(outcome).toFixed(1)}`).join(' ')
    return `<polyline fill="none" stroke="${color}" stroke-width="2" points="${path}"/>`
  }
  const text = (tx: number, ty: number, what: string, more = '') => `<text x="${tx}" y="${ty}" ${more}>${what}</text>`
  const grid = [1, 1.25, 1.5, 1.75, 2].map(
    value =>
      `<line x1="${left}" x2="${width - right}" y1="${times(value)}" y2="${times(value)}" stroke="#ddd"/>` +
      text(left - 6, times(value) + 4, String(value), 'text-anchor="end"') +
      text(width - right + 6, times(value) + 4, String((value - 1) * 3000)),
  )
  const ticks = points.map(({ machines }) =>
    text(x(machines), height - bottom + 18, String(machines), 'text-anchor="middle"'),
  )
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    ...grid,
    ...ticks,
    text(width / 2, height - 6, 'machines that want 128 MB at once', 'text-anchor="middle"'),
    text(left, 16, 'the slowest, over the ideal time', 'fill="#c33"'),
    text(left + 190, 16, 'upstream, over the image', 'fill="#36c"'),
    text(width - right, 16, 'messages of a machine', 'fill="#393" text-anchor="end"'),
    lineOf('#c33', ({ slowest }) => times(slowest)),
    lineOf('#36c', ({ upstream }) => times(upstream)),
    lineOf('#393', ({ messages }) => counts(messages)),
    '</svg>',
    '',
  ].join('\n')
}
