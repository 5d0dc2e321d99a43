import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import type { Libp2p } from 'libp2p'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { until } from '../../../test/shoal-process.ts'
import { dial, portOf, startNode } from './node.ts'

const host = '127.0.0.1'

async function openNode(): Promise<Libp2p> {
  const privateKey = await generateKeyPair('Ed25519')
  const listen = { host, port: 0 }
  const gossip = { topic: '/test', now: () => performance.now() }
  return startNode({ privateKey, listen, psk: undefined, admits: () => true, admitsPeer: () => true, gossip })
}

/** Who is still known to a node that nobody is connected to. */
async function forgotten(node: Libp2p): Promise<void> {
  await until(
    async () => ((await node.peerStore.all()).length === 0 ? true : undefined),
    () => 'something is kept of who has gone',
  )
}

test('nothing is kept of who was connected', async () => {
  const [node, other] = [await openNode(), await openNode()]
  try {
    await node.handle('/test', stream => void stream.close())
    const connection = await dial(other, { addresses: [{ host, port: portOf(node) }] })
    await connection.newStream('/test')
    assert.is((await other.peerStore.all()).length, 1)
    await connection.close()
    await Promise.all([node, other].map(forgotten))
  } finally {
    await Promise.all([node.stop(), other.stop()])
  }
})

test('nothing is kept of who was not reached', async () => {
  const [node, other] = [await openNode(), await openNode()]
  try {
    const peerId = peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toString()
    const dialled = dial(node, { peerId, addresses: [{ host, port: portOf(other) }] })
    assert.ok(
      await dialled.then(
        () => false,
        () => true,
      ),
      'somebody else was taken for the peer',
    )
    await forgotten(node)
  } finally {
    await Promise.all([node.stop(), other.stop()])
  }
})

test.run()
