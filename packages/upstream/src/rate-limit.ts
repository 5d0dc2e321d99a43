/** What a registry last said of its pull rate limit. `window` in seconds, `at` in ms since the epoch. */
export type RateLimit = {
  readonly limit: number
  readonly remaining: number
  readonly window: number | undefined
  /** Whom the limit counts: an address, or a user's id (Docker Hub's `docker-ratelimit-source`). */
  readonly source: string | undefined
  readonly at: number
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
    source: first(headers, 'docker-ratelimit-source'),
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
