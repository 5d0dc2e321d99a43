import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { nodeDisk } from '@shoal/store/disk'

/** The file in the data folder that has the secret. */
export const secretFile = (dataDir: string) => join(dataDir, 'admin.token')

/** What the daemon and its user's commands share: who can read the data folder may have the daemon change something. */
export class Secret {
  readonly #digest: Buffer

  private constructor(text: string) {
    this.#digest = digest(text)
  }

  /** Makes a new one, and writes it for this user alone. One that somebody overheard ends with the daemon. */
  static async make(dataDir: string): Promise<Secret> {
    const text = randomBytes(32).toString('base64url')
    await nodeDisk.replaceFile(secretFile(dataDir), `${text}\n`, 0o600)
    return new Secret(text)
  }

  /** Whether an `Authorization` header (RFC 6750) bears it. */
  admits(authorization: string | undefined): boolean {
    const [, token = ''] = /^bearer +([\w-]+)$/i.exec(authorization ?? '') ?? []
    return timingSafeEqual(this.#digest, digest(token))
  }
}

/** The `Authorization` header for the daemon of a data folder. @throws the system's error, such as ENOENT */
export async function authorization(dataDir: string): Promise<string> {
  return `Bearer ${(await readFile(secretFile(dataDir), 'utf8')).trim()}`
}

/** Digests have one length, whatever was sent. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
