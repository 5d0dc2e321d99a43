import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Program } from './program.ts'

/**
 * nginx with sendfile, as Debian's package configures it but for paths; two workers for two cores.
 * @param root its folder; what it serves is in `html`
 * @param servers the `server` blocks, and `url` one address that they answer
 */
export async function startNginx(name: string, root: string, servers: string, url: string): Promise<Program> {
  await mkdir(join(root, 'html'), { recursive: true })
  const configuration = `
daemon off; master_process on; worker_processes 2; pid ${root}/pid; error_log ${root}/error.log;
user root; events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_timeout 65; default_type application/octet-stream;
  client_body_temp_path ${root}/body; proxy_temp_path ${root}/proxy; fastcgi_temp_path ${root}/fastcgi;
  uwsgi_temp_path ${root}/uwsgi; scgi_temp_path ${root}/scgi;
  ${servers}
}`
  await writeFile(join(root, 'nginx.conf'), configuration)
  const command = ['nginx', '-c', join(root, 'nginx.conf'), '-p', root] as const
  return Program.start(name, command, { url, log: join(root, 'log') })
}
