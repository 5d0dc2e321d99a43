import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Tls } from './endpoint.ts'

const run = promisify(execFile)

/**
 * Has `openssl` make a CA and its certificate for localhost and 127.0.0.1, in `folder`; `ca` is the path of the CA's
 * PEM.
 */
export async function makeCertificate(folder: string): Promise<Tls & { ca: string }> {
  const [ca, caKey, cert, key] = ['ca.pem', 'ca.key', 'server.pem', 'server.key'].map(name => join(folder, name))
  const [request, extensions] = [join(folder, 'server.csr'), join(folder, 'server.ext')]
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  await run('openssl', [
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    caKey!,
    '-out',
    ca!,
    '-days',
    '30',
    '-subj',
    '/CN=Stand-in CA',
  ])
  await run('openssl', ['req', '-new', ...newKey, '-keyout', key!, '-out', request, '-subj', '/CN=localhost'])
  await writeFile(extensions, 'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
  const signer = ['-CA', ca!, '-CAkey', caKey!, '-CAcreateserial', '-extfile', extensions]
  await run('openssl', ['x509', '-req', '-in', request, ...signer, '-out', cert!, '-days', '30'])
  return { ca: ca!, key: await readFile(key!, 'utf8'), cert: await readFile(cert!, 'utf8') }
}
