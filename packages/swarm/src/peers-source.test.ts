import { randomBytes } from 'node:crypto'
import { type Digest, digestOf } from '@shoal/oci/digest'
import { SourceError, type SourceErrorCode } from '@shoal/store/source'
import { sourceConformance } from '@shoal/store/source.conformance'
import { suite, test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Answer, after, fails, gives, refuses, ScriptedPeers, silent } from '../../../test/scripted-peers.ts'
import { heldBlob, makePeer } from '../../../test/transfer-peer.ts'
import { PeerClient, PeerViolation } from './peer-client.ts'
import { PeerServer } from './peer-server.ts'
import { PeersSource } from './peers-source.ts'
import { Provider } from './provider.ts'

const never = new AbortController().signal
const lacking = refuses({ status: 404 })
const busy = refuses({ status: 503, refusal: 'busy' })
const resting = refuses({ status: 503, refusal: 'resting' })

/** Two peers, the first of them the likelier, and the sources that ask them. */
function world(...answers: readonly (readonly Answer[])[]) {
  const peers = new ScriptedPeers()
  const providers = answers.map((each, index) => peers.add('abc'[index]!, ...each))
  return {
    peers,
    providers,
    want: peers.want,
    impatient: new PeersSource(peers.context, 'impatient'),
    patient: new PeersSource(peers.context, 'patient'),
    [Symbol.dispose]: () => peers[Symbol.dispose](),
  }
}

async function throws(promise: Promise<unknown>, code: SourceErrorCode): Promise<SourceError> {
  const error = await promise.then(
    () => new Error(`it should have failed with ${code}`),
    (error: unknown) => error,
  )
  assert.instance(error, SourceError, String(error))
  assert.is((error as SourceError).code, code, (error as SourceError).message)
  return error as SourceError
}

const conformance = suite('peers as a source')
const [server, client] = [await makePeer(), await makePeer()]
sourceConformance(conformance, async blobs => {
  const held = new Map<Digest, Buffer>(blobs.map(bytes => [digestOf(bytes), bytes]))
  const peerServer = new PeerServer({
    certificate: server.certificate,
    admitsAddress: () => true,
    admits: () => true,
    open: async digest => {
      const bytes = held.get(digest)
      return bytes && { blob: heldBlob(bytes), contentType: 'application/octet-stream' }
    },
    maxUploads: 16,
    resting: () => undefined,
    onServed: () => {},
    now: () => performance.now(),
  })
  const { port } = await peerServer.listen('127.0.0.1', 0)
  const peerClient = new PeerClient(client)
  const provider = new Provider(
    server.peerId,
    'server',
    () => performance.now(),
    () => {},
  )
  const source = new PeersSource(
    {
      holders: digest => (held.has(digest) ? [{ provider, address: { host: '127.0.0.1', port } }] : []),
      client: peerClient,
      lacks: () => {},
      gaveAll: () => {},
      suspect: () => {},
      ban: () => {},
      now: () => performance.now(),
      random: Math.random,
    },
    'patient',
  )
  return {
    source,
    breakDown: () => peerServer.close(0),
    async [Symbol.asyncDispose]() {
      peerClient.close()
      await peerServer.close(0)
    },
  }
})

test('if nobody has announced it, nobody is asked', async () => {
  using w = world([gives()])
  const other = { ...w.want, digest: digestOf(randomBytes(8)) }
  assert.is(await w.impatient.find(other, never), null)
  assert.is(await w.patient.find(other, never), null)
  assert.equal(w.peers.asked, [])
})

test('the likeliest is asked, and nobody else if it answers', async () => {
  using w = world([gives()], [gives()])
  const [a, b] = w.providers
  a!.gave(1_000_000, 1000)
  b!.gave(1_000_000, 10)
  const offer = await w.impatient.find(w.want, never)
  assert.is(offer?.giver, b)
  assert.equal(offer?.origin, { kind: 'peer', host: 'b', visibility: 'public' })
  assert.is(offer?.size, w.want.size)
  await w.peers.pass(2000)
  assert.equal(w.peers.asked, ['b'])
})

test('of a blob that is there in part, the rest is asked for', async () => {
  using w = world([gives()])
  await w.impatient.find({ ...w.want, at: 70_000 }, never)
  const { size: _, ...unsized } = w.want
  await w.impatient.find({ ...unsized, at: 70_000 }, never)
  await w.impatient.find({ ...w.want, kind: 'manifest', at: 5 }, never)
  assert.equal(
    w.peers.requests.map(({ range }) => range),
    [{ start: 70_000, end: 100_000 }, { start: 70_000, end: Number.MAX_SAFE_INTEGER }, undefined],
  )
})

for (const [kind, hedge] of [
  ['impatient', 120],
  ['patient', 1000],
] as const)
  test(`a second one is asked as well after ${hedge} ms (${kind}), and the slower one is not blamed`, async () => {
    using w = world([silent], [gives()], [gives()])
    const finding = w[kind].find(w.want, never)
    await w.peers.pass(hedge - 10)
    assert.equal(w.peers.asked, ['a'])
    await w.peers.pass(10)
    assert.is((await w.peers.during(finding))?.giver, w.providers[1])
    await w.peers.pass(20_000)
    assert.equal(w.peers.asked, ['a', 'b'])
    assert.equal(w.peers.aborted, ['a'])
    assert.equal(w.peers.verdicts, [])
    assert.not(w.providers[0]!.rests)
  })

test('the first may still be the faster of two', async () => {
  using w = world([after(200, gives())], [silent])
  const finding = w.impatient.find(w.want, never)
  assert.is((await w.peers.during(finding))?.giver, w.providers[0])
  assert.equal(w.peers.asked, ['a', 'b'])
  assert.equal(w.peers.aborted, ['b'])
  assert.equal(w.peers.verdicts, [])
})

test('an answer that comes too late to be stopped is not left open', async () => {
  const late = Promise.withResolvers<void>()
  const deaf: Answer = async (...asked) => {
    await late.promise
    return gives()(...asked)
  }
  using w = world([deaf], [gives()])
  assert.is((await w.peers.during(w.impatient.find(w.want, never)))?.giver, w.providers[1])
  await w.peers.pass(20_000)
  assert.equal(w.peers.aborted, [])
  late.resolve()
  await w.peers.pass(10)
  assert.equal(w.peers.aborted, ['a'])
  assert.equal(w.peers.verdicts, [])
})

test('of one that lacks it that is told, and the next is asked at once', async () => {
  using w = world([lacking], [gives()])
  const offer = await w.impatient.find(w.want, never)
  assert.is(offer?.giver, w.providers[1])
  assert.equal(w.peers.verdicts, ['lacks a'])
  assert.is(w.peers.now, 0)
})

test('if all lack it, it is not there', async () => {
  using w = world([lacking], [lacking])
  assert.is(await w.patient.find(w.want, never), null)
  assert.equal(w.peers.asked, ['a', 'b'])
  assert.equal(w.peers.verdicts, ['lacks a', 'lacks b'])
})

test('in place of a busy one another is asked, and it is not blamed', async () => {
  using w = world([busy], [gives()])
  assert.is((await w.impatient.find(w.want, never))?.giver, w.providers[1])
  assert.ok(w.providers[0]!.busy)
  assert.not(w.providers[0]!.rests)
  assert.equal(w.peers.verdicts, [])
})

test('if all are busy, upstream is turned to at once', async () => {
  using w = world([busy], [busy], [lacking])
  await throws(w.impatient.find(w.want, never), 'limited')
  assert.equal(w.peers.asked, ['a', 'b', 'c'])
  assert.is(w.peers.now, 0)
})

test('without upstream, the busy are asked again and again, and nobody else is', async () => {
  using w = world([busy, busy, gives()], [busy], [lacking])
  const offer = await w.peers.during(w.patient.find(w.want, never))
  assert.is(offer?.giver, w.providers[0])
  assert.equal(w.peers.asked, ['a', 'b', 'c', 'a', 'b', 'a'])
  assert.ok(w.peers.now >= 400, `asked again after ${w.peers.now} ms`)
})

test('the busy are given up after 20 s', async () => {
  using w = world([busy])
  await throws(w.peers.during(w.patient.find(w.want, never)), 'limited')
  assert.ok(w.peers.now >= 20_000 && w.peers.now < 21_000, `${w.peers.now} ms`)
  assert.equal(w.peers.verdicts, [])
})

test('who gives nothing now is not asked again until it says otherwise', async () => {
  using w = world([resting])
  for (const source of [w.impatient, w.patient, w.patient]) assert.is(await source.find(w.want, never), null)
  assert.equal(w.peers.asked, ['a'])
  w.providers[0]!.willing = true
  await w.patient.find(w.want, never)
  assert.equal(w.peers.asked, ['a', 'a'])
})

test('who answers what no peer does is banned, and the next is asked', async () => {
  using w = world([fails(new PeerViolation('the answer is no HTTP/1.1'))], [gives()])
  assert.is((await w.impatient.find(w.want, never))?.giver, w.providers[1])
  assert.equal(w.peers.verdicts, ['ban a', 'suspect a'])
})

test('who was asked in vain because that was called off is not blamed', async () => {
  using w = world([fails(new SourceError('revoked', 'the daemon stops'))])
  assert.is(await w.impatient.find(w.want, never), null)
  assert.equal(w.peers.verdicts, [])
  assert.not(w.providers[0]!.rests)
})

test('who cannot be reached rests, and the next is asked', async () => {
  using w = world([fails(new SourceError('unreachable', 'ECONNREFUSED'))], [gives()])
  assert.is((await w.impatient.find(w.want, never))?.giver, w.providers[1])
  assert.equal(w.peers.verdicts, ['suspect a'])
  assert.ok(w.providers[0]!.rests)
})

test('why the last one failed is told', async () => {
  using w = world([fails(new SourceError('unreachable', 'ECONNREFUSED'))], [lacking])
  await throws(w.impatient.find(w.want, never), 'unreachable')
})

test('who has a shorter blob is not blamed for it before it is known which size is right', async () => {
  using w = world([refuses({ status: 416, size: 7 })])
  await throws(w.impatient.find({ ...w.want, at: 50 }, never), 'broken')
  assert.equal(w.peers.verdicts, [])
  assert.not(w.providers[0]!.rests)
})

test('too many connections of its own are no fault of the peer', async () => {
  const limited = fails(new SourceError('limited', '16 requests to peer a are under way'))
  using w = world([limited, limited, gives()])
  await throws(w.impatient.find(w.want, never), 'limited')
  assert.is((await w.peers.during(w.patient.find(w.want, never)))?.giver, w.providers[0])
  assert.equal(w.peers.verdicts, [])
  assert.not(w.providers[0]!.rests)
})

for (const [kind, most] of [
  ['impatient', 1400],
  ['patient', 12_000],
] as const)
  test(`who does not answer within ${most} ms (${kind}) is suspected and rests, however many were asked`, async () => {
    using w = world([silent], [silent], [silent])
    const finding = throws(w[kind].find(w.want, never), 'timeout')
    await w.peers.pass(most - 10)
    assert.equal(w.peers.verdicts, [])
    await w.peers.pass(10)
    await w.peers.during(finding)
    assert.equal(w.peers.verdicts, ['suspect a', 'suspect b'])
    assert.equal(w.peers.aborted, ['a', 'b'])
    assert.equal(
      w.providers.map(({ rests }) => rests),
      [true, true, false],
    )
  })

test('each is told how long it is waited for', async () => {
  using w = world([gives()])
  await w.impatient.find(w.want, never)
  await w.patient.find(w.want, never)
  assert.equal(
    w.peers.requests.map(request => ['connectTimeout' in request && request.connectTimeout, request.answerTimeout]),
    [
      [1000, 400],
      [6000, 6000],
    ],
  )
})

test('who rests, or is not believed, is asked only where there is nobody else to turn to', async () => {
  using w = world([gives()], [gives()])
  const [a, b] = w.providers
  a!.failed()
  for (let count = 0; count < 5; count++) b!.lacked()
  assert.is(await w.impatient.find(w.want, never), null)
  assert.equal(w.peers.asked, [])
  assert.ok(await w.patient.find(w.want, never))
  w.peers.now += 3001
  assert.is((await w.impatient.find(w.want, never))?.giver, a)
})

test('who took part in what was wrong is not asked', async () => {
  using w = world([gives()], [gives()])
  const [a, b] = w.providers
  assert.is((await w.patient.find({ ...w.want, without: new Set([a!]) }, never))?.giver, b)
  assert.is(await w.patient.find({ ...w.want, without: new Set([a!, b!]) }, never), null)
  assert.equal(w.peers.asked, ['b'])
})

test('an abort ends it with its reason, at any time, and nobody is blamed', async () => {
  const reason = new Error('nobody wants it any longer')
  using w = world([silent], [silent])
  const abort = new AbortController()
  const finding = w.impatient.find(w.want, abort.signal).catch((error: unknown) => error)
  await w.peers.pass(200)
  abort.abort(reason)
  assert.is(await w.peers.during(finding), reason)
  assert.equal(w.peers.aborted, ['a', 'b'])
  const again = w.impatient.find(w.want, abort.signal).catch((error: unknown) => error)
  assert.is(await w.peers.during(again), reason)
  await w.peers.pass(20_000)
  assert.equal(w.peers.asked, ['a', 'b'])
  assert.equal(w.peers.verdicts, [])
})

test('an abort ends it also while all are busy', async () => {
  const reason = new Error('nobody wants it any longer')
  using w = world([busy])
  const abort = new AbortController()
  const finding = w.patient.find(w.want, abort.signal).catch((error: unknown) => error)
  await w.peers.pass(100)
  abort.abort(reason)
  assert.is(await w.peers.during(finding), reason)
  assert.ok(w.peers.now < 200, `${w.peers.now} ms`)
  assert.equal(w.peers.asked, ['a'])
})

test.run()
// After the others: what it opens has timers of its own, which are real.
conformance.run()
