import type { Policy } from './keeping.ts'
import { gdsf, gdsfRoot, lfuDa } from './policies/gdsf.ts'
import { lru } from './policies/lru.ts'
import { s3Fifo } from './policies/s3-fifo.ts'
import { shoal } from './policies/shoal.ts'
import { sieve } from './policies/sieve.ts'
import { wTinyLfu } from './policies/w-tiny-lfu.ts'

/** By name, one for each office. */
export const policies: Readonly<Record<string, () => Policy>> = {
  shoal,
  lru: () => lru,
  'lfu-da': () => lfuDa,
  's3-fifo': () => s3Fifo,
  sieve: () => sieve,
  gdsf: () => gdsf,
  'gdsf-sqrt': () => gdsfRoot,
  'w-tiny-lfu': () => wTinyLfu,
}
