import { createCipheriv, createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { type Header, type Pack, pack } from 'tar-stream'
import { type Content, contentOf, mediaType, sha256 } from './content.ts'

/** A layer, and the digest of its uncompressed tar (OCI image specification, config.md, `rootfs.diff_ids`). */
export type Layer = Content & { diffId: string }

/** A file, directory (name ends in `/`) or, with `linkname`, a symbolic link. */
export type Entry = { name: string; body?: Buffer | string; linkname?: string; mode?: number }

const epoch = new Date(0)
/** A header and the end of the archive, which every tar has. */
const tarOverhead = 512 + 1024
/** Larger random layers are kept in a file. */
const memoryLimit = 64 * 1024 * 1024

/** A layer of these entries, compressed as its media type says. The same entries give the same digest. */
export async function makeLayer(type: string, entries: Entry[]): Promise<Layer> {
  const archive = await tar(entries)
  const compressed =
    type === mediaType.zstd ? zstdCompressSync(archive) : type === mediaType.tar ? archive : gzipSync(archive)
  return { ...contentOf(type, compressed), diffId: sha256(archive) }
}

/**
 * An uncompressed layer of exactly `size` bytes: a tar of one file of random bytes, padded with zeros. Below 1,536
 * bytes, which no tar can have, it is only random bytes. The seed decides the bytes. Above 64 MiB it is a file in
 * `folder`, which is taken as it is if it's there already.
 */
export async function randomLayer(size: number, seed: string, folder: string): Promise<Layer> {
  const layer = (digest: string, source: Buffer | string): Layer => {
    return { digest, mediaType: mediaType.tar, size, source, diffId: digest }
  }
  if (size <= memoryLimit) {
    const parts: Buffer[] = []
    for await (const part of randomTar(size, seed)) parts.push(part)
    const bytes = Buffer.concat(parts)
    return layer(sha256(bytes), bytes)
  }

  await mkdir(folder, { recursive: true })
  const prefix = `random-${sha256(Buffer.from(seed)).slice(7, 19)}-${size}-`
  for (const name of await readdir(folder)) {
    const path = join(folder, name)
    if (name.startsWith(prefix) && name.endsWith('.tar') && (await stat(path)).size === size) {
      return layer(`sha256:${name.slice(prefix.length, -'.tar'.length)}`, path)
    }
  }
  const part = join(folder, `${prefix}${randomUUID()}.part`)
  try {
    const hash = createHash('sha256')
    const file = await open(part, 'w')
    try {
      for await (const bytes of randomTar(size, seed)) {
        hash.update(bytes)
        await file.writeFile(bytes)
      }
    } finally {
      await file.close()
    }
    const hex = hash.digest('hex')
    const path = join(folder, `${prefix}${hex}.tar`)
    await rename(part, path)
    return layer(`sha256:${hex}`, path)
  } finally {
    await rm(part, { force: true })
  }
}

async function tar(entries: Entry[]): Promise<Buffer> {
  const archive = pack()
  for (const { name, body, linkname, mode } of entries) {
    const type = linkname !== undefined ? 'symlink' : name.endsWith('/') ? 'directory' : 'file'
    const header: Partial<Header> & { name: string } = {
      name,
      type,
      mtime: epoch,
      mode: mode ?? (type === 'file' ? 0o644 : 0o755),
    }
    if (linkname !== undefined) archive.entry({ ...header, linkname })
    else archive.entry(header, body ?? '')
  }
  archive.finalize()
  const parts: Buffer[] = []
  for await (const part of chunksOf(archive)) parts.push(part)
  return Buffer.concat(parts)
}

/** A pack's stream is of bytes; its type doesn't say so. */
function chunksOf(archive: Pack): AsyncIterable<Buffer> {
  return archive as AsyncIterable<Buffer>
}

async function* randomTar(size: number, seed: string): AsyncGenerator<Buffer> {
  if (size < tarOverhead) return yield* keystream(size, seed)
  const fileSize = Math.floor((size - tarOverhead) / 512) * 512
  const archive = pack()
  const name = `random-${sha256(Buffer.from(seed)).slice(7, 19)}`
  const file = archive.entry({ name, size: fileSize, mtime: epoch, mode: 0o644 })
  const filled = (async () => {
    for (const bytes of keystream(fileSize, seed)) if (!file.write(bytes)) await once(file, 'drain')
    file.end(undefined)
    archive.finalize()
  })()
  yield* chunksOf(archive)
  await filled
  yield Buffer.alloc(size - tarOverhead - fileSize)
}

/** AES-128-CTR over zeros: incompressible, repeatable, and above 1 GB/s. */
function* keystream(size: number, seed: string): Generator<Buffer> {
  const zeros = Buffer.alloc(Math.min(size, 1024 * 1024))
  const key = createHash('sha256').update(seed).digest()
  const cipher = createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16))
  for (let left = size; left > 0; left -= zeros.length) yield cipher.update(zeros.subarray(0, left))
}
