import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { dockerHub } from '@shoal/oci/name'
import type { Credentials } from '@shoal/upstream/token'
import { z } from 'zod'

const configSchema = z.object({
  auths: z.record(z.string(), z.object({ auth: z.string().optional() })).optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  credsStore: z.string().optional(),
})

const helperSchema = z.object({ Username: z.string(), Secret: z.string() })

/** Thrown when Docker's own credentials are wanted and cannot be read. */
export class CredentialsError extends Error {
  readonly code = 'CREDENTIALS'
}

/**
 * What `docker login` has left for a registry: in `config.json` of `DOCKER_CONFIG` or `~/.docker`, or with the
 * credential helper that it names.
 * @returns undefined if nobody has logged in there
 * @throws CredentialsError
 */
export async function dockerCredentials(
  registry: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Credentials | undefined> {
  const path = join(env['DOCKER_CONFIG'] ?? join(homedir(), '.docker'), 'config.json')
  // Docker keeps Docker Hub's under the address of its first, long gone, API.
  const server = registry === dockerHub ? 'https://index.docker.io/v1/' : registry
  let config: z.infer<typeof configSchema>
  try {
    config = configSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (cause) {
    // Not the parser's message: it quotes the text, which is secret.
    const reason =
      cause instanceof SyntaxError
        ? 'it is not JSON'
        : cause instanceof z.ZodError
          ? 'it is not what Docker writes'
          : String(cause)
    throw new CredentialsError(
      `docker_config: ${path} cannot be read (${reason}); run "docker login", or set it to false`,
      { cause },
    )
  }
  const helper = config.credHelpers?.[server] ?? config.credsStore
  if (helper !== undefined) return fromHelper(helper, server)
  const auth = config.auths?.[server]?.auth
  if (auth === undefined || auth === '') return undefined
  const [username = '', ...password] = Buffer.from(auth, 'base64').toString().split(':')
  return { username, password: password.join(':') }
}

/** Speaks the protocol of docker-credential-helpers: the server on stdin, JSON on stdout. */
async function fromHelper(helper: string, server: string): Promise<Credentials | undefined> {
  const program = `docker-credential-${helper}`
  const output = await new Promise<string>((resolve, reject) => {
    const child = execFile(program, ['get'], { timeout: 10_000 }, (error, stdout) => {
      if (error && !/not found/i.test(stdout))
        reject(new CredentialsError(`docker_config: ${program} fails: ${error.message}`))
      else resolve(error ? '' : stdout)
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end(server)
  })
  if (output === '') return undefined
  let answer: z.infer<typeof helperSchema>
  try {
    answer = helperSchema.parse(JSON.parse(output))
  } catch {
    throw new CredentialsError(`docker_config: ${program} answers with something else than credentials`)
  }
  const { Username: username, Secret: password } = answer
  // An identity token in place of a password is exchanged in another way, which Shoal does not speak.
  if (username === '<token>')
    throw new CredentialsError(`docker_config: ${program} gives an identity token: set username and password_file`)
  return { username, password }
}
