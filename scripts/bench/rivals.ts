import { link, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort, Program } from './program.ts'

/** A server that gives one blob, and where. */
export type Contender = { readonly program: Program; readonly url: string }

/** A file that is served as a blob. `digest` is sha256. */
export type Blob = { readonly path: string; readonly digest: string }

/** nginx with sendfile, as Debian's package configures it but for paths; two workers for two cores. */
export async function startNginx(folder: string, blob: Blob): Promise<Contender> {
  const port = await freePort()
  const root = join(folder, 'nginx')
  await mkdir(join(root, 'html'), { recursive: true })
  await link(blob.path, join(root, 'html', 'blob'))
  const configuration = `
daemon off; master_process on; worker_processes 2; pid ${root}/pid; error_log ${root}/error.log;
user root; events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_timeout 65; default_type application/octet-stream;
  client_body_temp_path ${root}/body; proxy_temp_path ${root}/proxy; fastcgi_temp_path ${root}/fastcgi;
  uwsgi_temp_path ${root}/uwsgi; scgi_temp_path ${root}/scgi;
  server { listen 127.0.0.1:${port}; root ${root}/html; }
}`
  await writeFile(join(root, 'nginx.conf'), configuration)
  const url = `http://127.0.0.1:${port}`
  const program = await Program.start('nginx', ['nginx', '-c', join(root, 'nginx.conf'), '-p', root], {
    url,
    log: join(root, 'log'),
  })
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
