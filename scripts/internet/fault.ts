import type { Entry } from './log.ts'

/** What goes wrong with an answer. */
export type Fault =
  /** This status, with the error JSON of a registry, instead of the answer. */
  | { kind: 'status'; status: number; headers?: Record<string, string> }
  /** The connection is destroyed after so many bytes of the body. */
  | { kind: 'cut'; at: number }
  /** The byte at this offset is inverted; with a Range, too, the offset counts from the beginning of the content. */
  | { kind: 'corrupt'; at: number }
  | { kind: 'slow'; bytesPerSecond: number }
  /** No answer, ever. */
  | { kind: 'hang' }
  /** The answer begins so much later. */
  | { kind: 'delay'; ms: number }

/** Decides, when a request arrives, what goes wrong with it. */
export type Intercept = (request: Entry) => Fault | undefined
