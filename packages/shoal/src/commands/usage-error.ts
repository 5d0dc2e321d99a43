/** Thrown when a command was called in a way that it cannot mean: exit status 2. */
export class UsageError extends Error {
  readonly code = 'USAGE'
}
