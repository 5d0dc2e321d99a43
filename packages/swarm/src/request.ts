import type { Connection, Stream } from '@libp2p/interface'
import { LengthPrefixedDecoder } from '@libp2p/utils'
import { Uint8ArrayList } from 'uint8arraylist'
import { longestFrame, MessageError } from './message.ts'
import { lengthPrefix } from './session.ts'

/** A question and its answer, of the protocols of docs/protocol.md that have a stream for each: one frame each way. */

/** @throws MessageError, libp2p's errors, the signal's reason */
export async function ask(
  connection: Connection,
  protocol: string,
  question: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const stream = await connection.newStream(protocol, { signal, negotiateFully: false })
  try {
    const answer = oneFrame(stream, signal)
    // If the question cannot even be sent, nobody waits for the answer.
    answer.catch(() => {})
    stream.send(new Uint8ArrayList(lengthPrefix(question.length), question))
    const bytes = await answer
    await stream.close({ signal })
    return bytes
  } catch (error) {
    stream.abort(error instanceof Error ? error : new Error(String(error)))
    throw error
  }
}

/** Answers the one question that comes on a stream. */
export async function answer(
  stream: Stream,
  reply: (question: Uint8Array) => Promise<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  try {
    const bytes = await reply(await oneFrame(stream, signal))
    stream.send(new Uint8ArrayList(lengthPrefix(bytes.length), bytes))
    await stream.close({ signal })
  } catch (error) {
    stream.abort(error instanceof Error ? error : new Error(String(error)))
  }
}

function oneFrame(stream: Stream, signal: AbortSignal): Promise<Uint8Array> {
  const decoder = new LengthPrefixedDecoder({ maxDataLength: longestFrame, maxBufferSize: longestFrame + 16 })
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    stream.addEventListener('message', ({ data }) => {
      try {
        for (const frame of decoder.decode(data)) resolve(frame.subarray())
      } catch (error) {
        reject(error)
      }
    })
    stream.addEventListener('close', ({ error }) =>
      reject(error ?? new MessageError('BROKEN_OFF', 'the stream ended before its one message')),
    )
    if (signal.aborted) onAbort()
  })
}
