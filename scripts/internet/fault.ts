import type { Entry } from './log.ts'

/** What goes wrong with an answer. */
export type Fault =
  /** This status, with the error JSON of a registry, instead of the answer. */
  | { kind: 'status'; status: number; headers?: Record<string, string> }
  /** 401: whatever token came is not good, and a new one is to be had at this URL. */
  | { kind: 'challenge'; realm: string }
  /** 307 to another URL; without one to itself, round and round. */
  | { kind: 'redirect'; to?: string }
  /** What a captive portal says to everything: its page, as HTML, or 302 to where that is. */
  | { kind: 'portal'; login?: string }
  /** The connection is destroyed after so many bytes of the body. */
  | { kind: 'cut'; at: number }
  /** Nothing comes after so many bytes of the body, and the connection stands. */
  | { kind: 'stall'; at: number }
  /** The byte at this offset is inverted; with a Range, too, the offset counts from the beginning of the content. */
  | { kind: 'corrupt'; at: number }
  /** `Content-Length` tells so many bytes more than the body has; fewer, if negative. */
  | { kind: 'length'; by: number }
  /** The body goes on with zeros for ever. It is chunked. */
  | { kind: 'endless' }
  | { kind: 'slow'; bytesPerSecond: number }
  /** No answer, ever. */
  | { kind: 'hang' }
  /** The connection is destroyed instead of an answer. */
  | { kind: 'reset' }
  /** The answer begins so much later. */
  | { kind: 'delay'; ms: number }

/** Decides, when a request arrives, what goes wrong with it. */
export type Intercept = (request: Entry) => Fault | undefined
