import { createHash, timingSafeEqual } from 'node:crypto'
import { compare } from 'bcryptjs'

/** Thrown for a users file that cannot be used. */
export class UsersError extends Error {
  readonly code = 'USERS'
}

/** Who may use a listener, as an htpasswd file with bcrypt hashes says (`htpasswd -B`). */
export class Users {
  readonly #hashes: ReadonlyMap<string, string>
  /** What was found right, as digests: bcrypt is slow on purpose, and clients ask often. */
  readonly #known = new Map<string, Buffer>()

  /** @throws UsersError for a line that is no user with a bcrypt hash */
  constructor(file: string) {
    const hashes = new Map<string, string>()
    for (const [number, line] of file.split(/\r?\n/).entries()) {
      if (line.trim() === '' || line.startsWith('#')) continue
      const [, user, hash] = /^([^:]+):(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})$/.exec(line.trim()) ?? []
      if (user === undefined || hash === undefined)
        throw new UsersError(`line ${number + 1} is not USER:HASH with a bcrypt hash: make it with "htpasswd -B"`)
      hashes.set(user, hash)
    }
    if (hashes.size === 0) throw new UsersError('there is no user in it: make one with "htpasswd -B"')
    this.#hashes = hashes
  }

  /** Whether an `Authorization` header (RFC 7617) is that of a user. */
  async admit(authorization: string | undefined): Promise<boolean> {
    const [, encoded] = /^basic\s+([A-Za-z0-9+/=]+)$/i.exec(authorization ?? '') ?? []
    if (encoded === undefined) return false
    const [user = '', ...rest] = Buffer.from(encoded, 'base64').toString().split(':')
    const hash = this.#hashes.get(user)
    if (hash === undefined) return false
    const digest = createHash('sha256').update(rest.join(':')).digest()
    const known = this.#known.get(user)
    if (known && timingSafeEqual(known, digest)) return true
    if (!(await compare(rest.join(':'), hash))) return false
    this.#known.set(user, digest)
    return true
  }
}
