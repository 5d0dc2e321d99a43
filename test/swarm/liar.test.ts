import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Digest } from '../../packages/oci/src/digest.ts'
import { bytesOf } from '../../scripts/internet/content.ts'
import { until } from '../shoal-process.ts'
import type { World } from '../world.ts'
import { type Behaviour, FakePeer } from './fake-peer.ts'
import { announced, Office, type PeerRow, statusOf } from './office.ts'

const repository = 'library/prey'

/** A machine, and a peer that has announced the layers of an image, and gives them in its own way. */
class Trap implements AsyncDisposable {
  readonly office: Office
  readonly peer: FakePeer
  readonly machine: World
  readonly layers: ReadonlyMap<Digest, Buffer>

  private constructor(office: Office, peer: FakePeer, machine: World, layers: ReadonlyMap<Digest, Buffer>) {
    this.office = office
    this.peer = peer
    this.machine = machine
    this.layers = layers
  }

  static async open(behaviour: Behaviour, sizes: readonly number[]): Promise<Trap> {
    const office = await Office.open()
    const image = await office.internet.add({ repository, tag: 'latest', layers: [...sizes] })
    const layers = new Map(image.layers.map(layer => [layer.digest as Digest, bytesOf(layer)] as const))
    const peer = await FakePeer.open({ blobs: layers, behaviour, name: 'peer' })
    const machine = await office.machine({ peers: [peer] })
    await announced(machine, sizes.length)
    await machine.get(`/v2/${repository}/manifests/latest`)
    return new Trap(office, peer, machine, layers)
  }

  /** Pulls one layer after another, and looks at every byte. */
  async pull(): Promise<void> {
    for (const [digest, bytes] of this.layers) await this.#layer(digest, bytes)
  }

  async #layer(digest: Digest, bytes: Buffer): Promise<void> {
    const { status, body } = await this.machine.get(`/v2/${repository}/blobs/${digest}`)
    assert.is(status, 200)
    assert.ok(body.equals(bytes), 'the client has other bytes')
  }

  async row(): Promise<PeerRow | undefined> {
    return (await statusOf(this.machine)).peers.find(({ name }) => name === 'peer')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.peer[Symbol.asyncDispose]()
    await this.office[Symbol.asyncDispose]()
  }
}

for (const behaviour of ['wrong', 'longer', 'endless'] as const)
  test(`a peer whose bytes are ${behaviour} harms no client, and is banned for good`, async () => {
    await using trap = await Trap.open(behaviour, [2 * 1024 * 1024])
    await trap.pull()
    assert.ok(trap.peer.asked.length > 0, 'the peer was not asked')
    const banned = await until(
      async () => ((await trap.row())?.state === 'banned' ? trap.row() : undefined),
      () => `it is not banned:\n${trap.machine.log.join('')}`,
    )
    assert.is(banned?.ban?.until, null)
    await trap.machine.restart()
    assert.is((await trap.row())?.state, 'banned')
  })

for (const behaviour of ['stall', 'cut', 'lacking', 'drip'] as const)
  test(`a peer that does this once costs no more than time: ${behaviour}`, async () => {
    await using trap = await Trap.open(behaviour, [2 * 1024 * 1024])
    await trap.pull()
    assert.ok(trap.peer.asked.length > 0, 'the peer was not asked')
    assert.is.not((await trap.row())?.state, 'banned')
  })

test('a peer that gives as it should is not blamed, and has given', async () => {
  await using trap = await Trap.open('honest', [2 * 1024 * 1024, 10_000])
  await trap.pull()
  const row = await trap.row()
  assert.is(row?.state, 'connected')
  assert.is(row?.received_bytes, 2 * 1024 * 1024 + 10_000)
  const blobsOfHub = trap.office.internet.log.entries.filter(({ path }) => path.includes('/blobs/'))
  assert.equal(blobsOfHub, [])
})

test.run()
