import type { Machine } from './machine.ts'
import { fetcherOf } from './machine.ts'
import type { Office } from './office.ts'
import type { Scenario } from './scenario.ts'

/** How long it takes until it is seen that a machine has gone without a word, in ms. */
const unseen = 3000

const layers = Array.from({ length: 40 }, (_, i) => (128e6 / 40) * (0.1 + (1.8 * i) / 39))

/** Most of them are one chunk. */
const smallLayers = [...new Array<number>(4).fill(1e6), ...new Array<number>(36).fill(2e6 / 36)]

const fourBlobs = [32e6, 32e6, 32e6, 32e6]

const slowOffice = { machines: 16, line: 25, lan: 25, sizes: fourBlobs }

function kill(at: number, seenAfter: number, victim: (machines: readonly Machine[]) => Machine | undefined) {
  const happens = (_office: Office, machines: readonly Machine[]) => victim(machines)?.die(() => seenAfter)
  return { at, happens }
}

/** Of the simulation that DESIGN's figures are of, with those; and others. */
export const scenarios: readonly Scenario[] = [
  { name: '4 machines', machines: 4 },
  { name: '16', machines: 16 },
  { name: '64', machines: 64, quantum: 2 },
  { name: '16: one at a tenth', machines: 16, odd: { 5: { upload: 10, download: 10 } } },
  { name: '16: one at a tenth, and the first', machines: 16, odd: { 0: { upload: 10, download: 10 } } },
  { name: '16: the first uploads at a tenth', machines: 16, odd: { 0: { upload: 10 } } },
  { name: '16: one gives nothing, and says so', machines: 16, odd: { 5: { gives: false } } },
  { name: '16: the first gives nothing, and says so', machines: 16, odd: { 0: { gives: false } } },
  { name: '16: one gives nothing', machines: 16, odd: { 5: { lie: 'busy' } } },
  { name: '16: the first gives nothing', machines: 16, odd: { 0: { lie: 'busy' } } },
  { name: '16: one says that it has all, and gives nothing', machines: 16, odd: { 5: { lie: 'empty' } } },
  { name: '16: fetcher killed at a tenth', machines: 16, event: kill(0.1, 0, fetcherOf) },
  { name: '16: fetcher killed at half', machines: 16, event: kill(0.5, 0, fetcherOf) },
  { name: '16: fetcher killed at nine tenths', machines: 16, event: kill(0.9, 0, fetcherOf) },
  { name: '16: fetcher falls silent at half', machines: 16, event: kill(0.5, unseen, fetcherOf) },
  { name: '16: 4 blobs', machines: 16, sizes: fourBlobs },
  { name: '16: 40 layers', machines: 16, sizes: layers },
  { name: '16: one after the other, over 10 s', machines: 16, stagger: 10_000 / 15 },
  { name: '16: one seeded', machines: 16, seeded: true },
  { name: '16: line 20, LAN 1000', machines: 16, line: 20, lan: 1000 },
  { name: '16: 40 small layers', machines: 16, sizes: smallLayers },
  { ...slowOffice, name: '16: 25 all over, 4 blobs' },
  { ...slowOffice, name: '16: 25 all over, 40 small layers', sizes: smallLayers },
  {
    ...slowOffice,
    name: '16: 25 all over, 40 small layers, on processors at a thirtieth',
    sizes: smallLayers,
    slowness: 30,
  },
  { ...slowOffice, name: '16: 25 all over, 4 blobs, on processors at a thirtieth', slowness: 30 },
  { name: '4: line 100, LAN 20', machines: 4, lan: 20 },
  { name: '16: line 100, 20 a connection', machines: 16, connection: 20, ideal: 128e6 / 12500 },
]
