/** What a registry last said of its pull rate limit. `window` in seconds, `at` in ms since the epoch. */
export type RateLimit = {
  readonly limit: number
  readonly remaining: number
  readonly window: number | undefined
  /** Whom the limit counts: an address, or a user's id (Docker Hub's `docker-ratelimit-source`). */
  readonly source: string | undefined
  readonly at: number
}

/** How much is left of a limit: `low` near its end, `spent` when there is nothing. */
export type Allowance = 'ample' | 'low' | 'spent'

/** A limit over a shorter time than this, in seconds, is over before anybody has to be sparing. */
const shortestWindow = 600

/** With so many left, or fewer, a limit is near its end: a tenth of it, or 10 if that is no more than a quarter. */
export function lowWater(limit: number): number {
  return Math.max(limit / 10, Math.min(10, limit / 4))
}

/** What is left now, as far as is known: what was said longer ago than the window is no longer so. */
export function allowanceOf(rateLimit: RateLimit | undefined, now: number): Allowance {
  if (!rateLimit) return 'ample'
  const { limit, remaining, window = 0, at } = rateLimit
  if (window < shortestWindow || now - at >= window * 1000) return 'ample'
  if (remaining === 0) return 'spent'
  return remaining <= lowWater(limit) ? 'low' : 'ample'
}

type Headers = Readonly<Record<string, string | string[] | undefined>>

function first(headers: Headers, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}

/**
 * Reads `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`
 * (draft-polli-ratelimit-headers-02, as Docker Hub sends them). Undefined where they are missing or make no sense.
 */
export function parseRateLimit(headers: Headers, at: number): RateLimit | undefined {
  const quota = /^\s*(\d{1,15})(?!\d)(?:\s*;\s*w=(\d{1,15})(?!\d))?/.exec(first(headers, 'ratelimit-limit') ?? '')
  const left = /^\s*(\d{1,15})(?!\d)/.exec(first(headers, 'ratelimit-remaining') ?? '')
  if (!quota || !left) return undefined
  return {
    limit: Number(quota[1]),
    remaining: Number(left[1]),
    window: quota[2] === undefined ? undefined : Number(quota[2]),
    source: first(headers, 'docker-ratelimit-source') || undefined,
    at,
  }
}

/** Reads `Retry-After` (RFC 9110, 10.2.3): how many ms to wait, at most a day. Undefined where it is missing or odd. */
export function parseRetryAfter(headers: Headers, now: number): number | undefined {
  const value = first(headers, 'retry-after')?.trim()
  if (value === undefined) return undefined
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), 24 * 3_600_000)
}
