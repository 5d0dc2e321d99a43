import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort, Program } from './program.ts'

const bin = fileURLToPath(new URL('../../node_modules/.bin/shoal', import.meta.url))

/**
 * A daemon in a process of its own, as users run it, with its data in `folder`.
 * @param endpoints of docker.io, and a PEM file to trust for them
 */
export async function startShoal(
  folder: string,
  endpoints: readonly string[],
  ca?: string,
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
      SHOAL_UPSTREAMS_DOCKER_IO_ENDPOINTS: endpoints.join(),
      ...(ca !== undefined && { SHOAL_UPSTREAMS_DOCKER_IO_CA: ca }),
    },
  })
  return { program, mirror: `http://127.0.0.1:${mirror}` }
}
