import { type Digest, digestOf } from '@shoal/oci/digest'
import type { Manifest } from '@shoal/oci/manifest'
import { mediaTypes } from '@shoal/oci/media-type'
import { type Name, parseName } from '@shoal/oci/name'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Pulls } from './pulls.ts'

const nginx = parseName('docker.io', 'nginx')
const quayNginx = parseName('quay.io', 'library/nginx')
const of = (text: string) => digestOf(Buffer.from(text))
const [index, amd64, arm64, config] = ['index', 'amd64', 'arm64', 'config'].map(of) as [Digest, Digest, Digest, Digest]
const tagged = 'docker.io/library/nginx:latest'

function listing(...digests: Digest[]): Manifest {
  const manifests = digests.map(digest => ({ mediaType: mediaTypes.ociManifest, digest, size: 1 }))
  return { mediaType: mediaTypes.ociIndex, manifests, layers: [] }
}

/** Clients of a mirror that has some manifests at hand, and answers after so many ms. Time stands still else. */
class Clients {
  readonly pulled: string[] = []
  readonly manifests = new Map<Digest, Manifest>()
  now = 0
  readonly #pulls = new Pulls({
    manifest: digest => this.manifests.get(digest),
    now: () => this.now,
    onPulled: image => void this.pulled.push(image),
  })

  constructor() {
    this.manifests.set(index, listing(amd64, arm64))
  }

  tag(digest = index, { name = nginx, tag = 'latest', answersAfter = 0 } = {}): void {
    const cameAt = this.now
    this.now += answersAfter
    this.#pulls.byTag(name, tag, digest, cameAt)
  }

  digest(digest: Digest, { name = nginx, answersAfter = 0 }: { name?: Name; answersAfter?: number } = {}): void {
    const cameAt = this.now
    this.now += answersAfter
    this.#pulls.byDigest(name, digest, cameAt)
  }
}

test('what a client asks for to pull a tag is one pull: by tag, then the index and a manifest by digest', () => {
  const clients = new Clients()
  clients.tag()
  clients.digest(index)
  clients.digest(index)
  clients.digest(amd64)
  clients.now += 9 * 60_000
  clients.digest(arm64)
  assert.equal(clients.pulled, [tagged])
})

test('a request by tag more than a second after the last one begins a new pull', () => {
  const clients = new Clients()
  for (const wait of [0, 1000, 1000, 1001, 500, 60_000]) {
    clients.now += wait
    clients.tag()
  }
  assert.equal(clients.pulled, [tagged, tagged, tagged])
})

test('how long it takes to find an answer begins no new pull', () => {
  const clients = new Clients()
  clients.tag(index, { answersAfter: 3000 })
  clients.tag(index, { answersAfter: 3000 })
  clients.digest(index, { answersAfter: 3000 })
  clients.digest(config, { answersAfter: 3000 })
  clients.digest(config, { answersAfter: 3000 })
  assert.equal(clients.pulled, [tagged, `docker.io/library/nginx@${config}`])
})

test('a pull by digest counts as that of what was asked for first, and not of what that lists', () => {
  const clients = new Clients()
  clients.digest(index)
  clients.digest(index)
  clients.digest(amd64)
  assert.equal(clients.pulled, [`docker.io/library/nginx@${index}`])
  clients.now += 1001
  clients.digest(index)
  clients.digest(amd64)
  assert.equal(clients.pulled, [`docker.io/library/nginx@${index}`, `docker.io/library/nginx@${index}`])
})

test('what an index lists is known as soon as the index is at hand', () => {
  const clients = new Clients()
  clients.manifests.clear()
  clients.tag()
  clients.manifests.set(index, listing(amd64))
  clients.digest(index)
  clients.digest(amd64)
  assert.equal(clients.pulled, [tagged])
})

test('ten minutes after the last request of a pull, a digest of it is a pull of its own', () => {
  const clients = new Clients()
  clients.tag()
  clients.now += 600_000
  clients.digest(amd64)
  clients.now += 600_001
  clients.digest(amd64)
  assert.equal(clients.pulled, [tagged, `docker.io/library/nginx@${amd64}`])
})

test('the same digest of another repository or registry is another image', () => {
  const clients = new Clients()
  clients.tag()
  clients.digest(amd64, { name: quayNginx })
  clients.digest(amd64, { name: parseName('docker.io', 'team/nginx') })
  assert.equal(clients.pulled, [tagged, `quay.io/library/nginx@${amd64}`, `docker.io/team/nginx@${amd64}`])
})

test('other tags are other images, also if they are the same', () => {
  const clients = new Clients()
  clients.tag()
  clients.tag(index, { tag: '1.27' })
  clients.digest(amd64)
  assert.equal(clients.pulled, [tagged, 'docker.io/library/nginx:1.27'])
})

test('a tag that has moved covers what it is now', () => {
  const clients = new Clients()
  clients.tag()
  clients.tag(config)
  clients.digest(config)
  assert.equal(clients.pulled, [tagged])
  clients.digest(amd64)
  assert.equal(clients.pulled, [tagged, `docker.io/library/nginx@${amd64}`])
})

test('of very many at once the oldest are taken to be over, and of an index not all is taken in', () => {
  const clients = new Clients()
  const many = Array.from({ length: 1024 }, (_, i) => of(`child ${i}`))
  clients.manifests.set(config, listing(...many))
  clients.tag()
  clients.tag(config, { tag: 'huge' })
  clients.digest(many[0]!)
  assert.is(clients.pulled.length, 2)
  clients.digest(many.at(-1)!)
  assert.is(clients.pulled.length, 3)
  for (let i = 0; i < 1022; i++) clients.tag(of(String(i)), { tag: `v${i}` })
  clients.digest(index)
  assert.is(clients.pulled.at(-1), `docker.io/library/nginx@${index}`)
  clients.digest(of('1021'))
  assert.is(clients.pulled.at(-1), `docker.io/library/nginx@${index}`)
})

test('those that are over make room first', () => {
  const clients = new Clients()
  for (let i = 0; i < 1023; i++) clients.tag(of(String(i)), { tag: `v${i}` })
  clients.now += 600_001
  clients.tag(of('0'), { tag: 'v0' })
  clients.tag()
  clients.tag(config, { tag: 'other' })
  clients.pulled.length = 0
  clients.digest(of('0'))
  clients.digest(index)
  assert.equal(clients.pulled, [])
})

test.run()
