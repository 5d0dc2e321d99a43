import { execFile } from 'node:child_process'
import { createHash, randomFillSync } from 'node:crypto'
import { link, mkdir, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startNginx } from './nginx.ts'
import { freePort, type Program } from './program.ts'

/** A file that is served as a blob. `digest` is its own. */
export type Layer = { readonly path: string; readonly digest: string; readonly size: number }

/** Writes a file of random bytes. */
export async function randomLayer(path: string, size: number): Promise<Layer> {
  const file = await open(path, 'w')
  const hash = createHash('sha256')
  const piece = Buffer.allocUnsafe(4 * 1024 * 1024)
  for (let written = 0; written < size; ) {
    const bytes = randomFillSync(piece).subarray(0, Math.min(piece.length, size - written))
    hash.update(bytes)
    await file.write(bytes)
    written += bytes.length
  }
  await file.close()
  return { path, digest: `sha256:${hash.digest('hex')}`, size }
}

/** nginx as a registry that needs no token: one image, over http and https. */
export type Upstream = {
  readonly program: Program
  readonly http: string
  readonly https: string
  /** A PEM file to trust for https. */
  readonly ca: string
}

const manifestType = 'application/vnd.oci.image.manifest.v1+json'

/**
 * The fastest upstream that is to be had, so that what is measured is not the upstream: every path of `repository`
 * is a file, sent by sendfile.
 */
export async function startUpstream(folder: string, repository: string, layers: readonly Layer[]): Promise<Upstream> {
  const root = join(folder, 'upstream')
  const files = join(root, 'html/v2', repository)
  await mkdir(join(files, 'blobs'), { recursive: true })
  await mkdir(join(files, 'manifests'), { recursive: true })
  for (const { path, digest } of layers) await link(path, join(files, 'blobs', digest))
  const config = Buffer.from('{}')
  await writeFile(join(files, 'blobs', digestOf(config)), config)
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestType,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: config.length },
      layers: layers.map(({ digest, size }) => ({
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest,
        size,
      })),
    }),
  )
  for (const name of ['latest', digestOf(manifest)]) await writeFile(join(files, 'manifests', name), manifest)
  const ca = join(root, 'cert.pem')
  const key = join(root, 'key.pem')
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', ca],
  ])
  const [plain, tls] = [await freePort(), await freePort()]
  const http = `http://127.0.0.1:${plain}`
  const server = `server {
    listen 127.0.0.1:${plain}; listen 127.0.0.1:${tls} ssl; root ${root}/html;
    ssl_certificate ${ca}; ssl_certificate_key ${key};
    location = /v2/ { default_type application/json; return 200 '{}'; }
    location ~ /manifests/ {
      default_type ${manifestType};
      add_header Docker-Content-Digest ${digestOf(manifest)};
    }
  }`
  const program = await startNginx('upstream', root, server, `${http}/v2/`)
  return { program, http, https: `https://127.0.0.1:${tls}`, ca }
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}
