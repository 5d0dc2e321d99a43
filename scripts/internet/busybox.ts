import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Entry } from './layer.ts'

const path = '/bin/busybox'

/**
 * A root file system that runs: Debian's static busybox, a link for each of its applets, and the few files they look
 * for.
 */
export function busyboxRoot(): Entry[] {
  const binary = readStatic()
  const applets = execFileSync(path, ['--list'], { encoding: 'utf8' }).trim().split('\n')
  return [
    { name: 'bin/' },
    { name: 'bin/busybox', body: binary, mode: 0o755 },
    ...applets.filter(name => name !== 'busybox').map(name => ({ name: `bin/${name}`, linkname: 'busybox' })),
    { name: 'etc/' },
    { name: 'etc/group', body: 'root:x:0:\nnobody:x:65534:\n' },
    { name: 'etc/motd', body: 'Served by a stand-in for Docker Hub.\n' },
    { name: 'etc/passwd', body: 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' },
    { name: 'root/', mode: 0o700 },
    { name: 'tmp/', mode: 0o1777 },
  ]
}

function readStatic(): Buffer {
  const remedy = `the image library/busybox is made from a static ${path}: install the Debian package busybox-static`
  let binary: Buffer
  try {
    binary = readFileSync(path)
  } catch (cause) {
    throw new Error(`${path} is missing; ${remedy}`, { cause })
  }
  if (binary.readUInt32BE(0) !== 0x7f454c46) throw new Error(`${path} is no ELF file; ${remedy}`)
  // elf(5): a 64-bit file's program headers, of which one of type PT_INTERP (3) names the dynamic loader.
  const offset = Number(binary.readBigUInt64LE(32))
  const size = binary.readUInt16LE(54)
  for (let i = 0; i < binary.readUInt16LE(56); i++) {
    if (binary.readUInt32LE(offset + i * size) === 3) throw new Error(`${path} is linked dynamically; ${remedy}`)
  }
  return binary
}
