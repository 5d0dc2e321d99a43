import * as assert from 'uvu/assert'
import type { Outline } from './internet-program.ts'
import { bytesOf, type HostPulled, type Office } from './office.ts'

/** How many times the hosts of an office may have an image come over the line, all together. */
const downloadsPerOffice = 1

/**
 * A download is that much more than the image: what comes twice where one takes over from another. All hosts share the
 * cores of one machine here, and may not hear of each other in time: up to 1.5 was seen, and 6 to 13 where each fetches
 * by itself. `npm run bench:lan` tells what it is.
 */
const perDownload = 2

/** Per host that dies while it fetches, in bytes: what it had and nobody else, and what was under way to it. */
const perDeath = 4_000_000

/** What all layers of an image come to, in bytes. */
export function sizeOf({ config, layers }: Outline): number {
  return layers.reduce((sum, { size }) => sum + size, config.size)
}

/** How much of what a daemon has said is told of one that has not got it, in characters. */
const toldOfLog = 4000

/** Everybody has got all of it, each byte as it should be. */
export function assertAllGot(pulled: readonly HostPulled[]): void {
  const failures = pulled.filter(({ failed }) => failed !== undefined)
  for (const { host } of failures)
    for (const { log } of host.shoals) console.log(`--- ${host.name}:\n${log.slice(-toldOfLog)}`)
  assert.equal(
    failures.map(({ host, failed }) => `${host.name}: ${failed}`),
    [],
  )
}

/**
 * The line has carried it once.
 * @param deaths how many have died while they fetched
 * @param anew bytes that nobody could have from another host
 */
export async function assertOneDownload(
  office: Office,
  image: Outline,
  { deaths = 0, anew = 0 }: { readonly deaths?: number; readonly anew?: number } = {},
): Promise<void> {
  const tally = await office.tally()
  const [bytes, size] = [bytesOf(tally), sizeOf(image)]
  const times = `${(bytes / size).toFixed(2)} × the image over the line, ${tally.manifestGets} manifest GETs`
  console.log(`measured: ${image.repository}: ${times}`)
  assert.ok(bytes <= downloadsPerOffice * (perDownload * size + anew) + deaths * perDeath, times)
  assert.ok(tally.manifestGets <= 2 * downloadsPerOffice + deaths, times)
}

/** Layers of the same size, in bytes. */
export function layers(count: number, size: number): number[] {
  return Array.from({ length: count }, () => Math.round(size / count))
}
