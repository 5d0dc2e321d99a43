import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Internet } from '../internet/internet.ts'
import { freePort, Program } from './program.ts'

const bin = fileURLToPath(new URL('../../node_modules/.bin/shoal', import.meta.url))

/** A daemon in a process of its own, as users run it, with a stand-in for the internet. */
export async function startShoal(
  folder: string,
  { gcr, hub }: Internet,
): Promise<{ program: Program; mirror: string }> {
  const [mirror, admin] = [await freePort(), await freePort()]
  const program = await Program.start('shoal', [bin, 'start'], {
    url: `http://127.0.0.1:${admin}/readyz`,
    log: join(folder, 'shoal.log'),
    env: {
      SHOAL_DATA_DIR: join(folder, 'shoal'),
      SHOAL_MIRROR_LISTEN: `127.0.0.1:${mirror}`,
      SHOAL_ADMIN_LISTEN: `127.0.0.1:${admin}`,
      SHOAL_SWARM_ENABLED: 'false',
      SHOAL_UPSTREAMS_DOCKER_IO_ENDPOINTS: `${gcr.url},${hub.url}`,
    },
  })
  return { program, mirror: `http://127.0.0.1:${mirror}` }
}
