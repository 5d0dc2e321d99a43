import type { Cause, Evicted } from '@shoal/store/eviction'
import prettyBytes from 'pretty-bytes'
import type { Logger } from './log.ts'

/** What goes within such a time, in ms, is told of in one line. */
const span = 5000

/** Images that are named in a line. */
const mostNamed = 5

const causes: Record<Cause, string> = {
  max_size: 'to stay under store.max_size',
  min_free: 'to leave store.min_free of the disk free',
  gc: 'by "shoal gc"',
  rm: 'by "shoal rm"',
}

/** Tells in the log what has gone from the store, and why. */
export class EvictionLog implements Disposable {
  readonly #log: Logger
  readonly #gone = new Map<Cause, { blobs: number; bytes: number; readonly images: Set<string> }>()
  #timer: NodeJS.Timeout | undefined

  constructor(log: Logger) {
    this.#log = log
  }

  evicted({ digest, size, because, images }: Evicted, cause: Cause): void {
    this.#log.debug({ digest, size, because, images, cause }, 'blob removed')
    const gone = this.#gone.get(cause) ?? { blobs: 0, bytes: 0, images: new Set<string>() }
    gone.blobs++
    gone.bytes += size
    for (const image of images) gone.images.add(image)
    this.#gone.set(cause, gone)
    this.#timer ??= setTimeout(() => this.#tell(), span).unref()
  }

  [Symbol.dispose](): void {
    this.#tell()
  }

  #tell(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const [cause, { blobs, bytes, images }] of this.#gone) {
      const named = [...images].slice(0, mostNamed).join(', ')
      const more = images.size > mostNamed ? ` and ${images.size - mostNamed} more` : ''
      const what = `${blobs} ${blobs === 1 ? 'blob' : 'blobs'}, ${prettyBytes(bytes)}`
      this.#log.info({ cause, blobs, bytes }, `removed ${causes[cause]}: ${what}${named && `, of ${named}${more}`}`)
    }
    this.#gone.clear()
  }
}
