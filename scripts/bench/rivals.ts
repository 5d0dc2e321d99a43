import { link, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { startNginx } from './nginx.ts'
import { freePort, Program } from './program.ts'

/** A server that gives one blob, and where. */
export type Contender = { readonly program: Program; readonly url: string }

/** A file that is served as a blob. `digest` is sha256. */
export type Blob = { readonly path: string; readonly digest: string }

/** nginx, which has the blob as a file. */
export async function startFileServer(folder: string, blob: Blob): Promise<Contender> {
  const port = await freePort()
  const root = join(folder, 'nginx')
  await mkdir(join(root, 'html'), { recursive: true })
  await link(blob.path, join(root, 'html', 'blob'))
  const url = `http://127.0.0.1:${port}`
  const program = await startNginx('nginx', root, `server { listen 127.0.0.1:${port}; root ${root}/html; }`, url)
  return { program, url: `${url}/blob` }
}

/** Debian's docker-registry, which holds the blob in its own layout. */
export async function startDockerRegistry(folder: string, { path, digest }: Blob): Promise<Contender> {
  const port = await freePort()
  const root = join(folder, 'docker-registry')
  const hex = digest.replace('sha256:', '')
  const storage = join(root, 'docker/registry/v2')
  const blob = join(storage, 'blobs/sha256', hex.slice(0, 2), hex)
  const layer = join(storage, 'repositories/library/big/_layers/sha256', hex)
  await mkdir(blob, { recursive: true })
  await mkdir(layer, { recursive: true })
  await link(path, join(blob, 'data'))
  await writeFile(join(layer, 'link'), digest)
  const configuration = `
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: ${root} }, cache: { blobdescriptor: inmemory } }
http: { addr: "127.0.0.1:${port}" }
`
  await writeFile(join(root, 'config.yml'), configuration)
  const url = `http://127.0.0.1:${port}`
  const command = ['docker-registry', 'serve', join(root, 'config.yml')] as const
  const program = await Program.start('docker-registry', [...command], { url, log: join(root, 'log') })
  return { program, url: `${url}/v2/library/big/blobs/${digest}` }
}

/** Debian's docker-registry as a pull-through cache of an upstream, with its data in `folder`. */
export async function startProxy(
  folder: string,
  endpoint: string,
  ca: string,
): Promise<{ program: Program; mirror: string }> {
  const port = await freePort()
  const root = join(folder, 'proxy')
  await mkdir(root, { recursive: true })
  const configuration = `
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: ${root}/data }, cache: { blobdescriptor: inmemory }, delete: { enabled: true } }
http: { addr: "127.0.0.1:${port}" }
proxy: { remoteurl: "${endpoint}" }
`
  await writeFile(join(root, 'config.yml'), configuration)
  const mirror = `http://127.0.0.1:${port}`
  const program = await Program.start('docker-registry', ['docker-registry', 'serve', join(root, 'config.yml')], {
    url: `${mirror}/v2/`,
    log: join(root, 'log'),
    env: { SSL_CERT_FILE: ca },
  })
  return { program, mirror }
}

/** A bare node:http server that answers everything with the same bytes, on the Node that the daemon runs on. */
export async function startBareServer(folder: string, bytes: Buffer, contentType: string): Promise<Contender> {
  const port = await freePort()
  await writeFile(join(folder, 'constant'), bytes)
  const source = `
    const body = require('node:fs').readFileSync(process.argv[1])
    const headers = { 'content-type': process.argv[2], 'content-length': body.length }
    require('node:http').createServer((request, response) => {
      response.writeHead(200, headers)
      response.end(body)
    }).listen(Number(process.argv[3]), '127.0.0.1')`
  const url = `http://127.0.0.1:${port}/`
  const command = [process.execPath, '-e', source, join(folder, 'constant'), contentType, String(port)] as const
  return { program: await Program.start('bare node:http', command, { url, log: join(folder, 'bare.log') }), url }
}
