import { setTimeout as sleep } from 'node:timers/promises'

/** What a question brings, if that is within `time` ms, and something else if not. The question goes on. */
export async function soon<T>(question: Promise<T>, time: number, otherwise: T): Promise<T> {
  const ended = new AbortController()
  try {
    return await Promise.race([question, sleep(time, otherwise, { signal: ended.signal })])
  } finally {
    ended.abort()
  }
}
