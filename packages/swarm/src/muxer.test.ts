import { setTimeout as sleep } from 'node:timers/promises'
import { multiaddrConnectionPair } from '@libp2p/utils'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../../test/shoal-process.ts'
import { boundedYamux } from './muxer.ts'

const longest = 256 * 1024

/** The head of a frame, of stream 1. */
function head(type: number, flags: number, length: number): Buffer {
  const bytes = Buffer.alloc(12)
  bytes[1] = type
  bytes.writeUInt16BE(flags, 2)
  bytes.writeUInt32BE(1, 4)
  bytes.writeUInt32BE(length, 8)
  return bytes
}

/** Has somebody send to a muxer. @returns the connection where it comes in */
async function carrierOf(...pieces: readonly Uint8Array[]): Promise<{ readonly status: string }> {
  const [other, carrier] = multiaddrConnectionPair({ delay: 0, capacity: 1e6 })
  boundedYamux().createStreamMuxer(carrier)
  for (const piece of pieces) {
    if (other.status === 'open') other.send(piece)
    await sleep(1)
  }
  return carrier
}

async function bears(...pieces: readonly Uint8Array[]): Promise<void> {
  const carrier = await carrierOf(...pieces)
  await sleep(20)
  assert.is(carrier.status, 'open')
}

async function refuses(...pieces: readonly Uint8Array[]): Promise<void> {
  const carrier = await carrierOf(...pieces)
  await until(
    () => (carrier.status === 'open' ? undefined : true),
    () => 'it waits for the rest of the frame',
  )
}

/** Opens stream 1. */
const open = head(1, 1, 0)

test('a frame may be as long as a stream takes at once, and others follow it', async () => {
  const ping = head(2, 1, 7)
  ping.writeUInt32BE(0, 4)
  await bears(open, head(0, 0, longest), Buffer.alloc(longest - 1), Buffer.alloc(1), ping)
})

test('a longer one is not waited for, in how many pieces ever its head comes', async () => {
  const tooLong = head(0, 0, longest + 1)
  await refuses(open, tooLong)
  await refuses(...[...open, ...tooLong].map(byte => Uint8Array.of(byte)))
  await refuses(Buffer.concat([open, head(0, 0, 3), Buffer.alloc(3), tooLong]))
})

test('the number in other frames is no length', async () => {
  const window = head(1, 0, 2 ** 31)
  await bears(open, window, window.subarray(0, 5), window.subarray(5))
})

test('who sends little is not answered each time, and who sends much may go on', async () => {
  const [first, second] = multiaddrConnectionPair({ delay: 0, capacity: 1e6 })
  const [sender, receiver] = [first, second].map(carrier => boundedYamux().createStreamMuxer(carrier))
  assert.ok(sender && receiver)
  let frames = 0
  first.addEventListener('message', () => frames++)
  let received = 0
  receiver.addEventListener('stream', ({ detail }) => {
    detail.addEventListener('message', ({ data }) => (received += data.byteLength))
  })
  const stream = await sender.createStream()
  const pieces = 4 * (longest / 8192)
  const send = async () => {
    if (!stream.send(new Uint8Array(8192))) await stream.onDrain()
    await sleep(1)
  }
  for (let sent = 0; sent < 6; sent++) await send()
  assert.ok(frames <= 1, `${frames} frames in answer to six`)
  for (let sent = 6; sent < pieces; sent++) await send()
  await until(
    () => received === pieces * 8192 || undefined,
    () => `${received} of ${pieces * 8192} bytes have come`,
  )
  assert.ok(frames <= pieces / 4, `${frames} frames in answer to ${pieces}`)
})

test.run()
