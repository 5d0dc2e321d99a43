import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { digestFrom } from './digest.ts'
import { type Name, NameError, parseName } from './name.ts'
import {
  familiarReference,
  formatReference,
  isTag,
  parseReference,
  type Reference,
  readReference,
} from './reference.ts'

// Lone surrogates included.
const anyText = fc.string({ unit: fc.nat(0xffff).map(code => String.fromCharCode(code)) })
const sha256 = `sha256:${'f'.repeat(64)}`
const sha512 = `sha512:${'f'.repeat(128)}`
const id = '1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a'

const component = fc.stringMatching(/^[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}$/)
const repository = fc.array(component, { minLength: 1, maxLength: 4 }).map(parts => parts.join('/'))
const registry = fc.oneof(
  fc.constantFrom('docker.io', 'localhost', 'localhost:5000', 'ghcr.io', '[::1]:5000', '127.0.0.1:80', 'registry:5000'),
  fc.stringMatching(/^[a-z0-9]{1,6}(-[a-z0-9]{1,3})?\.[a-z]{2,4}(:[1-9][0-9]{0,3})?$/),
)
const name: fc.Arbitrary<Name> = fc.tuple(registry, repository).map(([host, path]) => parseName(host, path))
const tag = fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}$/)
const digest = fc
  .tuple(
    fc.constantFrom('sha256' as const, 'sha512' as const),
    fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 128, maxLength: 128 }),
  )
  .map(([algorithm, hex]) => digestFrom(algorithm, algorithm === 'sha256' ? hex.slice(64) : hex))
const reference: fc.Arbitrary<Reference> = fc.oneof(
  fc.record({ name, tag }, { noNullPrototype: true }),
  fc.record({ name, digest }, { noNullPrototype: true }),
  fc.record({ name, tag, digest }, { noNullPrototype: true }),
)

test('a reference that is formatted and read back is the same', () => {
  fc.assert(
    fc.property(reference, value => {
      assert.equal(parseReference(formatReference(value)), value)
    }),
    { numRuns: 300 },
  )
})

test('the familiar form means the same, unless the first part of a Docker Hub path looks like a registry', () => {
  fc.assert(
    fc.property(reference, value => {
      const [first = ''] = value.name.repository.split('/')
      fc.pre(value.name.registry !== 'docker.io' || !(first.includes('.') || first === 'localhost'))
      assert.equal(parseReference(familiarReference(value)), value)
    }),
    { numRuns: 300 },
  )
})

test('formatting what was read gives a fixed point', () => {
  const text = fc
    .tuple(fc.option(registry), repository, fc.option(tag), fc.option(digest))
    .filter(([host, path]) => host !== null || !path.split('/', 1)[0]?.includes('.'))
    .map(([host, path, label, sum]) => [host && `${host}/`, path, label && `:${label}`, sum && `@${sum}`].join(''))
  fc.assert(
    fc.property(text, input => {
      const once = formatReference(parseReference(input))
      assert.is(formatReference(parseReference(once)), once)
    }),
  )
})

test('garbage throws NameError and nothing else', () => {
  const pieces = fc.array(
    fc.constantFrom(
      'a',
      'B',
      '0',
      '/',
      ':',
      '@',
      '.',
      '-',
      '_',
      '[',
      ']',
      '::1',
      'localhost',
      'docker.io',
      sha256,
      ' ',
      'é',
      '\n',
      '\0',
      '%2f',
      '\ud800',
    ),
    { maxLength: 10 },
  )
  fc.assert(
    fc.property(
      fc.oneof(
        pieces.map(list => list.join('')),
        fc.string(),
        anyText,
        fc.webUrl(),
      ),
      text => {
        let value: Reference
        try {
          value = parseReference(text)
        } catch (error) {
          assert.instance(error, NameError)
          return
        }
        assert.equal(parseReference(formatReference(value)), value)
      },
    ),
    { numRuns: 1000 },
  )
})

test('short names are of Docker Hub, with the tag latest', () => {
  const cases: Record<string, string> = {
    nginx: 'docker.io/library/nginx:latest',
    'nginx:1.27': 'docker.io/library/nginx:1.27',
    'library/nginx': 'docker.io/library/nginx:latest',
    'docker.io/nginx': 'docker.io/library/nginx:latest',
    'index.docker.io/library/nginx': 'docker.io/library/nginx:latest',
    'grafana/loki:3': 'docker.io/grafana/loki:3',
    'library/foo/bar': 'docker.io/library/foo/bar:latest',
    'test_com/foo': 'docker.io/test_com/foo:latest',
    'ubuntu-12.04-base': 'docker.io/library/ubuntu-12.04-base:latest',
    'lowercase:Uppercase': 'docker.io/library/lowercase:Uppercase',
    'test.com:5000': 'docker.io/library/test.com:5000',
    '192.168.1.1': 'docker.io/library/192.168.1.1:latest',
    'localhost:5000': 'docker.io/library/localhost:5000',
    [`redis@${sha256}`]: `docker.io/library/redis@${sha256}`,
    [`redis:7@${sha256}`]: `docker.io/library/redis:7@${sha256}`,
  }
  for (const [text, whole] of Object.entries(cases)) assert.is(formatReference(parseReference(text)), whole, text)
})

test('a first part with a dot or a colon, or localhost, is a registry', () => {
  const cases: Record<string, string> = {
    'test.com/repo:tag': 'test.com/repo:tag',
    'test:5000/repo': 'test:5000/repo:latest',
    'test-com:8080/foo': 'test-com:8080/foo:latest',
    'localhost/foo': 'localhost/foo:latest',
    'LOCALHOST/foo': 'localhost/foo:latest',
    'GHCR.IO/a/b': 'ghcr.io/a/b:latest',
    'b.gcr.io/test.example.com/my-app:test.example.com': 'b.gcr.io/test.example.com/my-app:test.example.com',
    '[2001:db8::1]/repo': '[2001:db8::1]/repo:latest',
    '[::1]:5000/repo:5050': '[::1]:5000/repo:5050',
    [`test:5000/repo:tag@${sha256}`]: `test:5000/repo:tag@${sha256}`,
    [`xn--7o8h.com/myimage:xn--7o8h.com@${sha512}`]: `xn--7o8h.com/myimage:xn--7o8h.com@${sha512}`,
  }
  for (const [text, whole] of Object.entries(cases)) assert.is(formatReference(parseReference(text)), whole, text)
})

test('what Docker refuses is refused', () => {
  const bad = [
    '',
    ':justtag',
    `@${sha256}`,
    'repo@sha256:ffff',
    `repo@${sha256}@${sha256}`,
    'repo@',
    'repo:',
    'repo:-tag',
    'repo:a:b',
    `repo:${'t'.repeat(129)}`,
    'Uppercase:tag',
    'test:5000/Uppercase/lowercase:tag',
    `${'a/'.repeat(128)}a:tag`,
    'aa/asdf$$^/aa',
    'https://github.com/docker/docker',
    'docker///docker',
    'docker/',
    '/docker',
    'docker.io/',
    '-docker.io/docker/docker',
    'fc00::1:5000/debian',
    '[2001:db8::1]',
    '[2001:db8::1]:5000',
    '[fe80::1%eth0]:5000/repo',
    '[2001:db8:3:4::192.0.2.33]:5000/debian',
    ' nginx',
    'nginx ',
    'nginx\n',
  ]
  for (const text of bad)
    assert.throws(
      () => parseReference(text),
      (error: unknown) => error instanceof NameError,
      text,
    )
})

test("an image's id is no reference, unless a registry comes first", () => {
  assert.throws(
    () => parseReference(id),
    (error: unknown) => error instanceof NameError,
  )
  assert.is(formatReference(parseReference(`docker.io/${id}`)), `docker.io/library/${id}:latest`)
  assert.is(formatReference(parseReference(id.slice(1))), `docker.io/library/${id.slice(1)}:latest`)
})

test('a tag has 1 to 128 characters and begins with none of the punctuation but the underscore', () => {
  for (const text of ['latest', '_', '1', 'A.b-C_d', 't'.repeat(128)]) assert.ok(isTag(text), text)
  for (const text of ['', '.a', '-a', 'a b', 'a+b', 'a/b', 'a\n', 'é', 't'.repeat(129)]) assert.not(isTag(text), text)
})

test('the familiar form leaves out what Docker leaves out', () => {
  const cases: Record<string, string> = {
    'docker.io/library/nginx:latest': 'nginx:latest',
    'docker.io/grafana/loki:3': 'grafana/loki:3',
    'docker.io/library/foo/bar:1': 'library/foo/bar:1',
    'docker.io/other/library:1': 'other/library:1',
    [`docker.io/library/busybox:latest@${sha256}`]: `busybox:latest@${sha256}`,
    'ghcr.io/library/nginx:1': 'ghcr.io/library/nginx:1',
    'docker.io.example.com/library/nginx:1': 'docker.io.example.com/library/nginx:1',
  }
  for (const [text, familiar] of Object.entries(cases)) assert.is(familiarReference(parseReference(text)), familiar)
})

test('text that need not be a reference is read, or is none', () => {
  assert.equal(readReference('nginx:1.27'), parseReference('nginx:1.27'))
  assert.is(readReference('no reference'), undefined)
})

test.run()
