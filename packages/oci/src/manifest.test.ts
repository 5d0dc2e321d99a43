import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Digest, digestOf } from './digest.ts'
import { childrenOf, type Manifest, ManifestError, manifestLimit, parseManifest } from './manifest.ts'
import { acceptManifests, essence, isIndexType, isManifestType, mediaTypes } from './media-type.ts'

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
const sum = (text: string): Digest => digestOf(new TextEncoder().encode(text))
const refused = (value: unknown, contentType?: string) =>
  assert.throws(
    () => parseManifest(encode(value), contentType),
    (error: unknown) => error instanceof ManifestError && error.code === 'MANIFEST_INVALID',
    JSON.stringify(value),
  )

const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: sum('config'), size: 7023 }
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: sum('layer'), size: 32654 }
const layer2 = { mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd', digest: sum('layer2'), size: 73109 }
const image = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer, layer2] }
const index = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociIndex,
  manifests: [
    {
      mediaType: mediaTypes.ociManifest,
      digest: sum('amd64'),
      size: 7143,
      platform: { architecture: 'amd64', os: 'linux' },
    },
    {
      mediaType: mediaTypes.ociManifest,
      digest: sum('arm'),
      size: 7682,
      platform: { architecture: 'arm', os: 'linux', variant: 'v7', 'os.features': ['x'] },
    },
    {
      mediaType: mediaTypes.ociManifest,
      digest: sum('attestation'),
      size: 566,
      annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
      platform: { architecture: 'unknown', os: 'unknown' },
    },
  ],
  annotations: { a: 'b' },
}
const schema1 = {
  schemaVersion: 1,
  name: 'library/hello-world',
  tag: 'latest',
  architecture: 'amd64',
  fsLayers: [{ blobSum: sum('empty') }, { blobSum: sum('base') }, { blobSum: sum('empty') }],
  history: [{ v1Compatibility: '{}' }],
  signatures: [{ protected: 'e30' }],
}

const { annotations: _, mediaType: __, ...bareIndex } = index
const { mediaType: ___, ...bareImage } = image

test('an OCI image has its config and layers, in order', () => {
  assert.equal(parseManifest(encode(image)), {
    mediaType: mediaTypes.ociManifest,
    manifests: [],
    config,
    layers: [layer, layer2],
  })
})

test('a Docker image has its config and layers, and ignores where else a foreign layer is', () => {
  const foreign = {
    mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    digest: sum('windows'),
    size: 1,
  }
  const docker = {
    schemaVersion: 2,
    mediaType: mediaTypes.dockerManifest,
    config: { ...config, mediaType: 'application/vnd.docker.container.image.v1+json' },
    layers: [{ ...foreign, urls: ['https://example.com/layer'] }, layer],
  }
  const manifest = parseManifest(encode(docker), mediaTypes.dockerManifest)
  assert.is(manifest.mediaType, mediaTypes.dockerManifest)
  assert.equal(manifest.layers, [foreign, layer])
  assert.equal(childrenOf(manifest), [docker.config, foreign, layer])
})

test('an index lists its manifests with their platforms', () => {
  const manifest = parseManifest(encode(index))
  assert.is(manifest.mediaType, mediaTypes.ociIndex)
  assert.equal(manifest.layers, [])
  assert.not('config' in manifest)
  assert.equal(
    manifest.manifests.map(item => item.platform),
    [
      { architecture: 'amd64', os: 'linux' },
      { architecture: 'arm', os: 'linux', variant: 'v7' },
      { architecture: 'unknown', os: 'unknown' },
    ],
  )
  assert.equal(
    childrenOf(manifest).map(item => item.digest),
    index.manifests.map(item => item.digest),
  )
  const list = { ...index, mediaType: mediaTypes.dockerList }
  assert.is(parseManifest(encode(list)).mediaType, mediaTypes.dockerList)
  assert.equal(parseManifest(encode(list)).manifests, manifest.manifests)
})

test('an empty index and an image without layers are fine', () => {
  assert.equal(childrenOf(parseManifest(encode({ ...index, manifests: [] }))), [])
  assert.equal(childrenOf(parseManifest(encode({ ...image, layers: [] }))), [config])
  assert.equal(childrenOf(parseManifest(encode({ ...image, layers: null }))), [config])
})

test('a document without a media type is what the registry calls it, or else what it looks like', () => {
  assert.is(parseManifest(encode(bareIndex)).mediaType, mediaTypes.ociIndex)
  assert.is(parseManifest(encode(bareIndex), mediaTypes.dockerList).mediaType, mediaTypes.dockerList)
  assert.is(parseManifest(encode(bareIndex), 'text/plain').mediaType, mediaTypes.ociIndex)
  assert.is(parseManifest(encode(bareImage)).mediaType, mediaTypes.ociManifest)
  assert.is(parseManifest(encode(bareImage), mediaTypes.dockerManifest).mediaType, mediaTypes.dockerManifest)
  assert.is(parseManifest(encode(bareImage), 'application/octet-stream').mediaType, mediaTypes.ociManifest)
})

test("the registry's word is taken with parameters and in any case", () => {
  const called = 'Application/vnd.docker.distribution.manifest.v2+JSON; charset=utf-8'
  assert.is(parseManifest(encode(bareImage), called).mediaType, mediaTypes.dockerManifest)
})

test("the document's own media type comes before the registry's word", () => {
  assert.is(parseManifest(encode(image), mediaTypes.ociIndex).mediaType, mediaTypes.ociManifest)
  assert.is(parseManifest(encode(index), mediaTypes.dockerManifest).mediaType, mediaTypes.ociIndex)
})

test('a subject is known but is no child', () => {
  const subject = { mediaType: mediaTypes.ociManifest, digest: sum('subject'), size: 10 }
  for (const document of [image, index]) {
    const manifest = parseManifest(encode({ ...document, subject, artifactType: 'application/vnd.example' }))
    assert.equal(manifest.subject, subject)
    assert.not(childrenOf(manifest).some(child => child.digest === subject.digest))
  }
})

test('an artifact manifest has its blobs as layers and needs no config', () => {
  const artifact = { mediaType: mediaTypes.ociArtifact, artifactType: 'application/x', blobs: [layer] }
  assert.equal(parseManifest(encode(artifact)), { mediaType: mediaTypes.ociArtifact, manifests: [], layers: [layer] })
})

test('schema 1 names each layer once, without a size', () => {
  for (const contentType of [undefined, mediaTypes.dockerSchema1Signed, 'application/json']) {
    const manifest = parseManifest(encode(schema1), contentType)
    assert.is(manifest.mediaType, mediaTypes.dockerSchema1Signed)
    assert.equal(
      childrenOf(manifest).map(child => [child.digest, child.size]),
      [
        [sum('empty'), -1],
        [sum('base'), -1],
      ],
    )
  }
  assert.is(parseManifest(encode(schema1), mediaTypes.dockerSchema1).mediaType, mediaTypes.dockerSchema1)
})

test('schema 1 with a layer that has no digest is refused', () => {
  for (const fsLayers of [undefined, {}, [null], [{}], [{ blobSum: 'tarsum+sha256:00' }], [{ blobSum: 1 }]])
    refused({ ...schema1, fsLayers })
})

test('what is called an image but has no config is refused', () => {
  for (const contentType of [mediaTypes.ociManifest, mediaTypes.dockerManifest]) {
    for (const document of [{}, { schemaVersion: 2 }, { schemaVersion: 2, layers: [] }, schema1, bareIndex])
      refused(document, contentType)
    refused({ ...image, mediaType: contentType, config: null })
  }
})

test('what is called an index but lists nothing is refused', () => {
  for (const contentType of [mediaTypes.ociIndex, mediaTypes.dockerList])
    for (const document of [{}, bareImage, schema1, { schemaVersion: 2, manifests: {} }]) refused(document, contentType)
})

test('documents of no known kind are refused', () => {
  const unknown = [null, true, 1, 'a', [], [image], {}, { schemaVersion: 3, config }, { schemaVersion: 2 }]
  for (const document of [
    ...unknown,
    { errors: [{ code: 'UNAUTHORIZED' }] },
    { schemaVersion: '2', config, layers: [] },
  ])
    refused(document)
})

test('descriptors that no registry could serve are refused', () => {
  const bad: unknown[] = [
    null,
    [],
    'x',
    {},
    { ...layer, digest: undefined },
    { ...layer, digest: `md5:${'0'.repeat(32)}` },
  ]
  for (const size of [-1, 1.5, 2 ** 53, '7', null, undefined]) bad.push({ ...layer, size })
  for (const digest of [1, '', 'sha256:', sum('a').toUpperCase(), `${sum('a')}0`]) bad.push({ ...layer, digest })
  for (const item of bad) {
    refused({ ...image, layers: [layer, item] })
    refused({ ...index, manifests: [item] })
    if (item !== null) refused({ ...image, config: item })
    if (item !== null) refused({ ...image, subject: item })
  }
})

test('bytes that are no JSON are refused', () => {
  const text = (value: string) => new TextEncoder().encode(value)
  const invalidUtf8 = Buffer.from(JSON.stringify({ ...image, artifactType: '?' }))
  invalidUtf8[invalidUtf8.indexOf('?')] = 0xff
  const deep = text('['.repeat(100_000) + ']'.repeat(100_000))
  for (const bytes of [new Uint8Array(), text('<html>'), text('{'), invalidUtf8, text('{"a":NaN}'), deep])
    assert.throws(
      () => parseManifest(bytes),
      (error: unknown) => error instanceof ManifestError,
    )
})

test('a manifest of just the limit is read, and one byte more is refused', () => {
  const json = JSON.stringify(image)
  const full = Buffer.from(json.padEnd(manifestLimit))
  assert.is(parseManifest(full).layers.length, 2)
  assert.throws(
    () => parseManifest(Buffer.concat([full, Buffer.from(' ')])),
    (error: unknown) => error instanceof ManifestError,
  )
})

test('a property called __proto__ has no say', () => {
  const json = `{"__proto__":${JSON.stringify(image)},"schemaVersion":2}`
  assert.throws(
    () => parseManifest(Buffer.from(json)),
    (error: unknown) => error instanceof ManifestError,
  )
  assert.not(Object.hasOwn(Object.prototype, 'schemaVersion'))
})

test('hostile JSON throws ManifestError only, and what is read can be relied on', () => {
  const digest = fc.constantFrom<unknown>(sum('a'), sum('b'), 'sha256:0', '', 1, null)
  const descriptor = fc.oneof(
    fc.constantFrom<unknown>(layer, config),
    fc.record(
      {
        mediaType: fc.constantFrom<unknown>(...Object.values(mediaTypes), 1, null),
        digest,
        size: fc.oneof(fc.nat(), fc.double(), fc.constantFrom<unknown>('1', null, -1)),
        platform: fc.oneof(fc.jsonValue({ maxDepth: 1 }), fc.record({ os: fc.string(), architecture: fc.jsonValue() })),
      },
      { requiredKeys: [] },
    ),
    fc.jsonValue({ maxDepth: 1 }),
  )
  const field = fc.oneof(descriptor, fc.array(descriptor, { maxLength: 3 }))
  const document = fc.record(
    {
      schemaVersion: fc.constantFrom<unknown>(1, 2, '2', null),
      mediaType: fc.constantFrom<unknown>(...Object.values(mediaTypes), 'x', 7),
      manifests: field,
      config: descriptor,
      layers: field,
      blobs: field,
      subject: descriptor,
      fsLayers: fc.oneof(field, fc.array(fc.record({ blobSum: digest }), { maxLength: 3 })),
    },
    { requiredKeys: [] },
  )
  const bytes = fc.oneof(
    { weight: 6, arbitrary: document.map(encode) },
    { weight: 1, arbitrary: fc.json().map(text => new TextEncoder().encode(text)) },
    { weight: 1, arbitrary: fc.uint8Array() },
  )
  const contentType = fc.option(fc.constantFrom(...Object.values(mediaTypes), 'text/html', ''), { nil: undefined })
  let read = 0
  fc.assert(
    fc.property(bytes, contentType, (input, called) => {
      let manifest: Manifest
      try {
        manifest = parseManifest(input, called)
      } catch (error) {
        assert.instance(error, ManifestError)
        return
      }
      read++
      assert.ok(isManifestType(manifest.mediaType))
      const schema1 = manifest.mediaType.includes('manifest.v1+') && manifest.mediaType.includes('docker')
      for (const child of [...childrenOf(manifest), ...(manifest.subject ? [manifest.subject] : [])]) {
        assert.match(child.digest, /^sha256:[0-9a-f]{64}$/)
        assert.ok(schema1 ? child.size === -1 : Number.isSafeInteger(child.size) && child.size >= 0)
        assert.type(child.mediaType, 'string')
        if (child.platform) assert.type(child.platform.architecture, 'string')
      }
      if (isIndexType(manifest.mediaType)) assert.is(manifest.layers.length, 0)
      else assert.is(manifest.manifests.length, 0)
    }),
    { numRuns: 1000 },
  )
  assert.ok(read > 0, 'some of the documents are valid')
})

test('images made at random are read as they were made', () => {
  const descriptor = fc.record(
    {
      mediaType: fc.string(),
      digest: fc.uint8Array({ maxLength: 4 }).map(bytes => digestOf(bytes)),
      size: fc.maxSafeNat(),
    },
    { noNullPrototype: true },
  )
  fc.assert(
    fc.property(descriptor, fc.array(descriptor, { maxLength: 5 }), (config, layers) => {
      const manifest = parseManifest(encode({ ...image, config, layers }))
      assert.equal(manifest, { mediaType: mediaTypes.ociManifest, manifests: [], config, layers })
    }),
  )
})

test('the type of a Content-Type is without parameters, blanks and upper case', () => {
  assert.is(essence('Application/JSON; charset=utf-8'), 'application/json')
  assert.is(essence(' text/plain '), 'text/plain')
  assert.is(essence(''), '')
})

test('all kinds of manifests are asked for, and the two kinds of index are told apart from the rest', () => {
  assert.equal(acceptManifests.split(', ').toSorted(), Object.values(mediaTypes).toSorted())
  assert.equal(Object.values(mediaTypes).filter(isIndexType), [mediaTypes.ociIndex, mediaTypes.dockerList])
})

test.run()
