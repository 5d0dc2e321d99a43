import type { Connection } from '@libp2p/interface'
import { streamPair } from '@libp2p/utils'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ask } from './request.ts'

test('a question whose stream has ended fails, and nothing comes after it', async () => {
  const unhandled: unknown[] = []
  const onUnhandled = (error: unknown) => void unhandled.push(error)
  process.on('unhandledRejection', onUnhandled)
  try {
    const [stream] = await streamPair()
    stream.abort(new Error('gone'))
    const connection: Partial<Connection> = { newStream: async () => stream }
    const over = new AbortController()
    const asked = ask(connection as Connection, '/test', Uint8Array.of(1), over.signal)
    assert.is(await asked.catch(error => error.name), 'StreamStateError')
    over.abort(new Error('its time is over'))
    await new Promise(resolve => setTimeout(resolve, 10))
    assert.equal(unhandled, [])
  } finally {
    process.off('unhandledRejection', onUnhandled)
  }
})

test.run()
