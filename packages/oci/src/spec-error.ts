/**
 * Error codes of the OCI distribution-spec 1.1 ("Error Codes"), and Docker's `UNAVAILABLE` and `UNKNOWN`, with the HTTP
 * status that Shoal answers them with.
 */
const statuses = {
  BLOB_UNKNOWN: 404,
  DIGEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  TOOMANYREQUESTS: 429,
  UNAVAILABLE: 503,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
} as const

export type SpecErrorCode = keyof typeof statuses

/** An answer that says no, in the form that the OCI distribution-spec gives it. */
export class SpecError extends Error {
  readonly code: SpecErrorCode
  readonly status: number

  /** @param message the true reason, for the person who reads the client's output */
  constructor(code: SpecErrorCode, message: string, status: number = statuses[code]) {
    super(message)
    this.code = code
    this.status = status
  }

  /** The response body: `{"errors": [{"code", "message"}]}`. */
  body(): string {
    return JSON.stringify({ errors: [{ code: this.code, message: this.message }] })
  }
}
